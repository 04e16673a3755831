"""Work that no daemon does, shown to a person as a daemon's operation is. Owns the event loop that it runs in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from banger.base.problem import Problem
from banger.base.progress import Progress
from banger.client.wire import Failure

_TICK_S = 0.1

R = TypeVar("R")


class Watch(Protocol):
    """Who shows stages to a person, told of them as the daemon tells of an operation's."""

    def event(self, event: dict[str, Any]) -> None: ...

    def idle(self) -> None: ...


def run_watched(watch: Watch, work: Callable[[Progress], Awaitable[R]]) -> R:
    """Raises Problem, as the work does."""

    async def perform() -> R:
        clock = asyncio.create_task(_tick(watch))
        try:
            return await work(_Told(watch))
        finally:
            clock.cancel()

    return asyncio.run(perform())


@contextmanager
def failing() -> Iterator[None]:
    """A Problem within is a Failure for who called, as if a daemon had told it."""
    try:
        yield
    except Problem as problem:
        raise Failure(
            problem.code.value,
            problem.brief,
            hint=problem.hint,
            detail=problem.detail,
            outcome=problem.outcome.value,
        ) from problem


async def _tick(watch: Watch) -> None:
    """The clock of a stage that says nothing."""
    while True:
        await asyncio.sleep(_TICK_S)
        watch.idle()


class _Told:
    """Progress as events."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._stage = ""
        self._since = 0.0

    def enter(self, stage: str) -> None:
        self.leave()
        self._stage, self._since = stage, time.monotonic()
        self._watch.event({"type": "stage", "state": "begin", "name": stage})

    def leave(self) -> None:
        if self._stage:
            took_ms = (time.monotonic() - self._since) * 1000
            self._watch.event({"type": "stage", "state": "end", "name": self._stage, "duration_ms": took_ms})
            self._stage = ""

    def tell(self, detail: str) -> None:
        self._watch.event({"type": "detail", "text": detail})
