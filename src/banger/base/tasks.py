"""Background tasks that someone owns: strong references, failures logged, all ended when the owner ends.

A TaskGroup would end everything when one task fails; here tasks are independent of one another.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from banger.base.locks import hold_none

_log = logging.getLogger(__name__)
T = TypeVar("T")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Work that runs as long as the block does. The block's own failure stays what it is; the work's is
    logged, because what made it fail shows in the block as well."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.info("what ran beside a call failed", extra={"why": str(error)})


async def first_of(*works: Coroutine[Any, Any, T]) -> tuple[int, T]:
    """Which of them ends first, and its result; a failure of its is the caller's. The others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    number = next(number for number, task in enumerate(tasks) if task in done)
    return number, tasks[number].result()


async def to_the_end(work: Awaitable[T]) -> T:
    """Waits for work that must not be left half-done; a cancelled caller waits as well, and learns of it then."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()
        raise asyncio.CancelledError
    return task.result()


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """As asyncio.to_thread, but a cancelled caller waits for the thread: whoever then undoes what it did finds it
    done, not being done."""
    return await to_the_end(asyncio.to_thread(function, *arguments))


class Supervisor:
    """Use as an async context manager: leaving cancels what still runs and waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._awaited: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "Supervisor":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Runs in the background. A failure that nobody waits for is logged."""
        with hold_none():
            return self._begin(work, name)

    async def finish(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """Waits for work that must not be left half-done: a cancelled caller leaves, the work goes on.
        A failure is the caller's; it is logged when that has left."""
        task = self._begin(work, name)
        self._awaited.add(task)
        try:
            return await asyncio.shield(task)
        finally:
            self._awaited.discard(task)

    def _begin(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and task not in self._awaited:
            _log.info("a background task failed", extra={"task": task.get_name(), "why": str(error)})
