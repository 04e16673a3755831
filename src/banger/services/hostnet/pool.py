"""A pool of taps that wait on the bridge, down, so that a start need not make one.

Owns the parked taps and their descriptors. A tap exists as long as its descriptor is open somewhere, so a daemon that
dies leaves none. Refills run in the background, in batches; a pool found empty makes what is waited for in one call.
"""

import asyncio
import logging
import os
import select
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

from banger.base.problem import Problem
from banger.base.tasks import Supervisor
from banger.privileged.contract.base import DESCRIPTORS_MAX, Privileged
from banger.privileged.contract.network import TAPS_MAX, CreateTaps, DeleteTaps, ListTaps
from banger.services.hostnet.told import told

_log = logging.getLogger(__name__)
_FRAME_BYTES = 65_600
_FRAMES_MAX = 4_096  # a tap's queue holds 500


class PooledTap(NamedTuple):
    name: str
    descriptor: int
    generation: int

    @property
    def alive(self) -> bool:
        """Whether its interface is still there; somebody may have deleted it, and a poll says so."""
        poll = select.poll()
        poll.register(self.descriptor, 0)  # POLLERR and POLLHUP come unasked
        return not poll.poll(0)


class TapLease:
    """A tap of one's own, down, as long as the block lasts.

    No generator: one that is never left would be closed by the collector, and a guest that outlives the daemon would
    lose its tap."""

    def __init__(self, pool: "TapPool") -> None:
        self._pool = pool
        self._tap: PooledTap | None = None

    async def __aenter__(self) -> PooledTap:
        self._tap = await self._pool.take()
        return self._tap

    async def __aexit__(self, *_: object) -> None:
        assert self._tap is not None
        self._pool.give_back(self._tap)


class TapPool:
    """`fill` it first, `close` it last. Failures of a refill reach those who wait for a tap."""

    def __init__(self, privileged: Privileged, bridge: str, target: int, tasks: Supervisor) -> None:
        self._privileged = privileged
        self._bridge = bridge
        self._target = target
        self._tasks = tasks
        self._parked: deque[PooledTap] = deque()
        self._waiting: deque[asyncio.Future[PooledTap]] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._generation = 0
        self._surplus: list[PooledTap] = []
        self._made: set[str] = set()
        self._shrink: asyncio.Task[None] | None = None

    @property
    def parked(self) -> int:
        return len(self._parked)

    def lease(self) -> "TapLease":
        return TapLease(self)

    def fill(self) -> None:
        """Brings the pool to its target; nobody waits for it."""
        if self._refill is None and self._missing() > 0:
            self._refill = self._tasks.start(self._make(), name="refill taps")

    async def sweep(self, used: Collection[str]) -> tuple[str, ...]:
        """Those of VMs that run are used, and some are ours; all others are of a daemon before us, which was killed
        while it lent one to a VMM (`vmm/firecracker/tap.py`). Returns the names of what went."""
        with told(_log, "taps of a daemon before could not be deleted"):
            found = (await self._privileged.call(ListTaps(bridge=self._bridge))).result.taps
            strays = tuple(tap.name for tap in found if tap.name not in used and tap.name not in self._made)
            if strays:
                _log.info("deleting taps that no VM has", extra={"taps": ", ".join(strays)})
                await self._privileged.call(DeleteTaps(taps=strays[:TAPS_MAX]))
                return strays[:TAPS_MAX]
        return ()

    async def close(self) -> None:
        """Deletes what is parked."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.wait((self._refill,))
        if self._shrink is not None:
            await asyncio.wait((self._shrink,))
        self._surplus += self._parked
        self._parked.clear()
        await self._delete_surplus()

    async def take(self) -> PooledTap:
        """For `TapLease`, which gives it back."""
        while self._parked:
            tap = self._parked.popleft()
            if tap.alive:
                self.fill()
                return tap
            self._close(tap)
        waiter: asyncio.Future[PooledTap] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.fill()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())
            raise

    def _missing(self) -> int:
        waiting = sum(not waiter.done() for waiter in self._waiting)
        return waiting + self._target - len(self._parked)

    async def _make(self) -> None:
        try:
            while (count := self._missing()) > 0:
                generation = self._generation
                reply = await self._privileged.call(
                    CreateTaps(bridge=self._bridge, count=min(count, DESCRIPTORS_MAX))
                )
                for tap, descriptor in zip(reply.result.taps, reply.descriptors, strict=True):
                    os.set_blocking(descriptor, False)
                    self._made.add(tap.name)
                    self._park(PooledTap(tap.name, descriptor, generation))
        except Problem as problem:
            waiting, self._waiting = self._waiting, deque()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(problem)
            _log.warning("the tap pool cannot be filled", extra={"why": problem.brief})
        finally:
            self._refill = None

    def give_back(self, tap: PooledTap) -> None:
        """Down again: parked for the next, or deleted where enough are."""
        if not tap.alive:
            self._close(tap)
        else:
            _drain(tap.descriptor)
            self._park(tap)

    def renew(self) -> None:
        """Nobody gets a tap again that was made until now: it may be on no bridge, or somebody's as far as the firewall
        knows. What is parked is deleted now, what is leased when it comes back."""
        self._generation += 1
        while self._parked:
            self._discard(self._parked.popleft())

    def _park(self, tap: PooledTap) -> None:
        """For who waits longest; else for later, unless it is old or enough are there."""
        if tap.generation != self._generation:
            self._discard(tap)
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(tap)
                return
        if len(self._parked) < self._target:
            self._parked.append(tap)
        else:
            self._discard(tap)

    def _close(self, tap: PooledTap) -> None:
        os.close(tap.descriptor)
        self._made.discard(tap.name)

    def _discard(self, tap: PooledTap) -> None:
        self._surplus.append(tap)
        if self._shrink is None:
            self._shrink = self._tasks.start(self._delete_surplus(), name="delete surplus taps")

    async def _delete_surplus(self) -> None:
        """All that there are by then in one call. The interface goes before its last descriptor: closing that one would
        wait for the kernel, and the loop with it."""
        try:
            while taps := self._surplus[:TAPS_MAX]:
                del self._surplus[: len(taps)]
                try:
                    with told(_log, "taps could not be deleted"):
                        await self._privileged.call(DeleteTaps(taps=tuple(tap.name for tap in taps)))
                finally:
                    for tap in taps:
                        self._close(tap)
        finally:
            self._shrink = None


def _drain(descriptor: int) -> None:
    """What was on its way to the guest that had the tap is not for the one that gets it next."""
    with suppress(BlockingIOError, OSError):
        for _ in range(_FRAMES_MAX):
            os.read(descriptor, _FRAME_BYTES)
