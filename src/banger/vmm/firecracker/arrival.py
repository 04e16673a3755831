"""The moment at which a process makes its socket, as an event: inotify(7), which Python does not have.

Owns the watch's descriptor for the time of a block. Whoever opens the watch before the process starts misses nothing.
"""

import asyncio
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_EVENTS_BYTES = 64 * 1024


class Arrivals:
    """Names that appear in one directory."""

    def __init__(self, directory: Path, descriptor: int) -> None:
        self._directory = directory
        self._descriptor = descriptor

    async def wait_for(self, name: str) -> None:
        """Returns when there is a file of this name."""
        loop = asyncio.get_running_loop()
        while not os.path.lexists(self._directory / name):
            news = asyncio.Event()
            loop.add_reader(self._descriptor, news.set)
            try:
                await news.wait()
            finally:
                loop.remove_reader(self._descriptor)
            os.read(self._descriptor, _EVENTS_BYTES)


@contextmanager
def watch_arrivals(directory: Path) -> Iterator[Arrivals]:
    """Raises OSError, among others when the user's inotify instances are used up (EMFILE)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = _check(libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
    try:
        _check(libc.inotify_add_watch(descriptor, os.fsencode(directory), _IN_CREATE | _IN_MOVED_TO))
        yield Arrivals(directory, descriptor)
    finally:
        os.close(descriptor)


def _check(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
