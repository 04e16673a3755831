"""Work that several callers want at once and that is done once.

Owns the running tasks. A caller that is cancelled leaves; only when the last one leaves is the work cancelled,
and its clean-up is waited for. Everybody's progress hears everything; who comes late hears the current stage.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from banger.base.progress import Progress

Result = TypeVar("Result")


class _Audience:
    """Progress that many watch."""

    def __init__(self) -> None:
        self._watchers: list[Progress] = []
        self._stage: str | None = None

    def join(self, watcher: Progress) -> None:
        self._watchers.append(watcher)
        if self._stage is not None:
            watcher.enter(self._stage)

    def part(self, watcher: Progress) -> None:
        self._watchers.remove(watcher)
        if self._stage is not None:
            watcher.leave()

    def enter(self, stage: str) -> None:
        self._stage = stage
        for watcher in tuple(self._watchers):
            watcher.enter(stage)

    def leave(self) -> None:
        self._stage = None
        for watcher in tuple(self._watchers):
            watcher.leave()

    def tell(self, detail: str) -> None:
        for watcher in tuple(self._watchers):
            watcher.tell(detail)


class _Running(Generic[Result]):
    def __init__(self, task: asyncio.Task[Result], audience: _Audience) -> None:
        self.task = task
        self.audience = audience
        self.callers = 0


class SharedWork(Generic[Result]):
    """At most one run for each key at a time."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Running[Result]] = {}

    async def run(
        self, key: Hashable, progress: Progress, work: Callable[[Progress], Coroutine[Any, Any, Result]]
    ) -> Result:
        """The result of the run under way for `key`, or of one begun now. Its failure is everybody's."""
        running = self._running.get(key)
        if running is None:
            audience = _Audience()
            task = asyncio.get_running_loop().create_task(work(_ThreadSafe(audience)))
            running = self._running[key] = _Running(task, audience)
            task.add_done_callback(_retrieve)
            task.add_done_callback(lambda _: self._forget(key, running))
        running.callers += 1
        running.audience.join(progress)
        try:
            return await asyncio.shield(running.task)
        finally:
            running.callers -= 1
            running.audience.part(progress)
            if running.callers == 0 and not running.task.done():
                # Late callers must not join what is being undone.
                self._forget(key, running)
                running.task.cancel()
                await asyncio.wait([running.task])

    def _forget(self, key: Hashable, running: "_Running[Result] | None") -> None:
        if self._running.get(key) is running:
            del self._running[key]


class _ThreadSafe:
    """Progress told from worker threads, heard on the loop."""

    def __init__(self, target: Progress) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()

    def _hear(self, hear: Callable[..., None], *words: str) -> None:
        try:
            on_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            on_loop = False
        if on_loop:
            hear(*words)
        else:
            self._loop.call_soon_threadsafe(hear, *words)

    def enter(self, stage: str) -> None:
        self._hear(self._target.enter, stage)

    def leave(self) -> None:
        self._hear(self._target.leave)

    def tell(self, detail: str) -> None:
        self._hear(self._target.tell, detail)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Takes note of a failure, so that asyncio does not report one whose every caller has left."""
    if not task.cancelled():
        task.exception()
