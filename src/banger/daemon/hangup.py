"""Notices that a peer has gone while its socket is not read, which back-pressure would hide for ever.

Owns one epoll of its own: the loop's holds no entry for a socket whose reading is paused. EPOLLHUP is
reported without asking (epoll_ctl(2)); a Unix stream socket raises it when the peer has closed (unix(7)).
"""

import asyncio
import select
from collections.abc import Callable


class HangupWatch:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._report)

    def add(self, descriptor: int, gone: Callable[[], None]) -> None:
        """Calls `gone` once when the peer of the socket has closed. Idempotent."""
        if descriptor not in self._callbacks:
            self._epoll.register(descriptor, 0)
            self._callbacks[descriptor] = gone

    def discard(self, descriptor: int) -> None:
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _report(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            gone = self._callbacks[descriptor]
            self.discard(descriptor)
            gone()
