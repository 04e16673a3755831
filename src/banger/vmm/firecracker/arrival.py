"""The moment at which a process makes its socket, as an event. Owns the watch's descriptor for the time of a block."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banger.vmm.firecracker.inotify import CREATED, MOVED_HERE, add_watch, open_inotify, read_events


class Arrivals:
    """Names that appear in one directory."""

    def __init__(self, directory: Path, descriptor: int) -> None:
        self._directory = directory
        self._descriptor = descriptor

    async def wait_for(self, name: str) -> None:
        """Returns when there is a file of this name, at once if it was there before the watch."""
        loop = asyncio.get_running_loop()
        while not os.path.lexists(self._directory / name):
            news = asyncio.Event()
            loop.add_reader(self._descriptor, news.set)
            try:
                await news.wait()
            finally:
                loop.remove_reader(self._descriptor)
            read_events(self._descriptor)


@contextmanager
def watch_arrivals(directory: Path) -> Iterator[Arrivals]:
    """Raises Problem when inotify is used up."""
    descriptor = open_inotify()
    try:
        add_watch(descriptor, directory, CREATED | MOVED_HERE)
        yield Arrivals(directory, descriptor)
    finally:
        os.close(descriptor)
