"""Background tasks that someone owns: strong references, failures logged, all ended when the owner ends.

A TaskGroup would end everything when one task fails; here tasks are independent of one another.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

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


class Supervisor:
    """Use as an async context manager: leaving cancels what still runs and waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "Supervisor":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Runs in the background. A failure that nobody waits for is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """Waits for work that must not be left half-done: a cancelled caller leaves, the work goes on."""
        return await asyncio.shield(self.start(work, name=name))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.info("a background task failed", extra={"task": task.get_name(), "why": str(error)})
