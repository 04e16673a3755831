"""A view that is drawn again and again on the whole terminal, until somebody leaves it.

Owns the alternate screen, the cursor and the keyboard as long as it is shown, and gives them back whatever happens.
q, Escape and Ctrl-C leave; so do SIGTERM and SIGHUP. A terminal that changes its size is drawn anew at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import ExitStack, contextmanager

from banger.cli.signals import signal_pipe
from banger.cli.terminal import find_size, is_terminal, raw_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_LEAVING_KEYS = (b"q", b"Q", b"\x03", b"\x1b", b"\x04")
_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)


def show(render: Callable[[], str], interval_s: float) -> None:
    """Draws what `render` gives now, and again after each interval. Stdout must be a terminal."""
    with ExitStack() as undo:
        signals = undo.enter_context(signal_pipe(*_WATCHED))
        keys = is_terminal(0)
        if keys:
            undo.enter_context(raw_mode(0))
        undo.enter_context(_whole_screen())
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        if keys:
            poll.register(0, select.POLLIN)
        while True:
            text = render()
            due_s = time.monotonic() + interval_s
            _draw(text)
            while (left_s := due_s - time.monotonic()) > 0:
                ready = dict(poll.poll(max(1, left_s * 1000)))
                if ready.get(0) and _leaves(os.read(0, 64)):
                    return
                if signals in ready and set(os.read(signals, 64)) != {signal.SIGWINCH}:
                    return
                if ready:
                    _draw(text)


def clip(text: str, rows: int, columns: int) -> list[str]:
    """The lines that fit, none of which wraps."""
    return [line[:columns] for line in text.splitlines()[:rows]]


def _leaves(typed: bytes) -> bool:
    """Nothing typed: the terminal has gone. An escape alone is the key, with more behind it an arrow or the like."""
    return not typed or typed in _LEAVING_KEYS or typed[:1] in _LEAVING_KEYS[:3]


def _draw(text: str) -> None:
    """Over what was there, without a moment of emptiness. Raw mode wants its own line starts."""
    rows, columns = find_size()
    lines = [line + _CLEAR_LINE for line in clip(text, rows, columns)]
    sys.stdout.write(_HOME + "\r\n".join(lines) + _CLEAR_BELOW)
    sys.stdout.flush()


@contextmanager
def _whole_screen() -> Iterator[None]:
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
