"""Guests that have powered off: their kernels say so on the console and halt, and Firecracker runs on.

Owns one inotify instance for all consoles. A watch goes with its first event and comes back after a rest, so a guest
that writes without end has its console's last bytes looked at ten times a second, and no more. A guest that writes the
words without halting ends its own VMM and nobody else's.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from banger.base.problem import Problem
from banger.vmm.firecracker.inotify import MODIFIED, ONCE, add_watch, open_inotify, read_events, remove_watch
from banger.vmm.logs import has_halted

_log = logging.getLogger(__name__)
_REST_S = 0.1


class Console:
    """One console under watch."""

    def __init__(self, log: Path, notice: Callable[[], None]) -> None:
        self.log = log
        self.notice = notice
        self.number = 0
        self.rest: asyncio.TimerHandle | None = None


class Consoles:
    """Opens its descriptor with the first console and closes it with the last."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._watched: dict[int, Console] = {}
        self._all: set[Console] = set()

    def watch(self, log: Path, notice: Callable[[], None]) -> Callable[[], None]:
        """`notice` is called once, possibly at once, when the guest has powered off; what is returned ends the watch
        and is idempotent. Raises Problem when inotify is used up."""
        console = Console(log, notice)
        if self._descriptor is None:
            self._descriptor = open_inotify()
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        self._all.add(console)
        try:
            self._look(console)
        except BaseException:
            self._forget(console)
            raise
        return lambda: self._forget(console)

    def _look(self, console: Console) -> None:
        """Watches first and looks then: what comes in between is an event."""
        assert self._descriptor is not None
        console.rest = None
        try:
            console.number = add_watch(self._descriptor, console.log, MODIFIED | ONCE)
        except OSError:  # the file is gone, and nothing more will be said there
            return
        self._watched[console.number] = console
        if has_halted(console.log):
            self._forget(console)
            console.notice()

    def _look_again(self, console: Console) -> None:
        try:
            self._look(console)
        except Problem as problem:
            _log.warning(
                "a console is watched no more", extra={"log": str(console.log), "why": problem.brief}
            )

    def _read(self) -> None:
        assert self._descriptor is not None
        numbers = read_events(self._descriptor)
        wanted = set(self._watched) if -1 in numbers else numbers & set(self._watched)
        for number in wanted:
            console = self._watched.pop(number)
            remove_watch(self._descriptor, number)
            console.rest = asyncio.get_running_loop().call_later(_REST_S, self._look_again, console)

    def _forget(self, console: Console) -> None:
        if console not in self._all or self._descriptor is None:
            return
        self._all.remove(console)
        if console.rest is not None:
            console.rest.cancel()
        if self._watched.get(console.number) is console:
            del self._watched[console.number]
            remove_watch(self._descriptor, console.number)
        if not self._all:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
