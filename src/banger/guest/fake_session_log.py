"""What a fake session has said, bounded as the agent's is; and a bell for all who wait. No processes."""

import asyncio
import re
from collections import deque
from typing import NamedTuple

from banger.guest.frames import Stream

_MODES = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_CUT_BYTES = 32  # of what was dropped: a sequence may have been cut


class Run(NamedTuple):
    """Output of one stream, as it was read."""

    sequence: int
    stream: Stream
    data: bytes

    @property
    def end(self) -> int:
        return self.sequence + len(self.data)


class Bell:
    """Wakes all who wait, at each change of anything."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def listen(self) -> asyncio.Future[None]:
        """Done at the next change after this call, for who awaits other things between looking and waiting."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter

    async def wait(self) -> None:
        await self.listen()


class Log:
    """The last output, bounded. `restore` is what a fresh terminal lacks at its beginning."""

    def __init__(self, limit_bytes: int) -> None:
        self.begin = self.end = 0
        self.runs: deque[Run] = deque()
        self._limit = limit_bytes
        self._modes: dict[bytes, bytes] = {}
        self._dropped = b""

    def append(self, stream: Stream, data: bytes) -> None:
        self.runs.append(Run(self.end, stream, data))
        self.end += len(data)
        while self.end - self.begin > self._limit:
            run = self.runs.popleft()
            cut = min(self.end - self.begin - self._limit, len(run.data))
            self._note(run.data[:cut])
            self.begin += cut
            if cut < len(run.data):
                self.runs.appendleft(Run(self.begin, run.stream, run.data[cut:]))

    def _note(self, dropped: bytes) -> None:
        self._dropped = self._dropped[-_CUT_BYTES:] + dropped
        for numbers, end in _MODES.findall(self._dropped):
            self._modes |= dict.fromkeys(numbers.split(b";"), end)

    @property
    def restore(self) -> bytes:
        return b"".join(b"\x1b[?%b%b" % mode for mode in self._modes.items())

    def tail(self, lines: int, streams: frozenset[int]) -> int:
        """Where that many last lines begin."""
        if lines == 0:
            return self.end
        left = lines + 1
        newest = True
        for run in reversed(self.runs):
            if run.stream not in streams:
                continue
            for at in range(len(run.data) - 1, -1, -1):
                if newest:  # an unfinished last line is one, too
                    newest, left = False, left - (run.data[at] != ord("\n"))
                if run.data[at] == ord("\n"):
                    left -= 1
                if left == 0:
                    return run.sequence + at + 1
        return self.begin
