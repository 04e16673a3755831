"""Signals as bytes in a pipe, for loops that poll; and what repeated Ctrl-C means."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_PATIENCE_S = 1.0


@contextmanager
def signal_pipe(*numbers: int) -> Iterator[int]:
    """A descriptor on which each of the signals appears as one byte, its number. Handlers are put back."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    former_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    former = {number: signal.signal(number, _noted) for number in numbers}
    try:
        yield reader
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_wakeup)
        os.close(reader)
        os.close(writer)


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has told; without a Python handler it would not."""


class Interrupts:
    """What a Ctrl-C does: the first interrupts the command, a second within a second kills it, then we leave."""

    def __init__(self) -> None:
        self._last_s = float("-inf")
        self._killed = False

    def press(self, now_s: float) -> int | None:
        """The signal to send to the command, or None: leave."""
        if self._killed:
            return None
        repeated = now_s - self._last_s <= _PATIENCE_S
        self._last_s = now_s
        self._killed = repeated
        return int(signal.SIGKILL if repeated else signal.SIGINT)
