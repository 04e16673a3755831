"""Locks with a rank: whoever holds one may only wait for those of a higher rank, so that no two wait for each other.

The ranks held are those of the task that holds them, and of tasks whose end it awaits (`Supervisor.finish`).
An order that is broken is a bug, and an AssertionError at once, not a standstill some day.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_held: ContextVar[tuple[int, ...]] = ContextVar("ranks of locks held", default=())


class RankedLock:
    """An asyncio.Lock for `async with`."""

    def __init__(self, rank: int, name: str) -> None:
        self._rank = rank
        self._name = name
        self._lock = asyncio.Lock()

    def locked(self) -> bool:
        return self._lock.locked()

    async def __aenter__(self) -> None:
        _check(self._rank, self._name)
        await self._lock.acquire()
        _held.set((*_held.get(), self._rank))

    async def __aexit__(self, *_: object) -> None:
        _held.set(tuple(rank for rank in _held.get() if rank != self._rank))
        self._lock.release()


@contextmanager
def hold_rank(rank: int, name: str) -> Iterator[None]:
    """Around the taking and holding of a lock of another kind."""
    _check(rank, name)
    token = _held.set((*_held.get(), rank))
    try:
        yield
    finally:
        _held.reset(token)


@contextmanager
def hold_none() -> Iterator[None]:
    """For tasks that are begun here and that nobody here waits for."""
    token = _held.set(())
    try:
        yield
    finally:
        _held.reset(token)


def _check(rank: int, name: str) -> None:
    held = _held.get()
    assert not held or max(held) < rank, f"{name} (rank {rank}) is asked for under locks of the ranks {held}"
