"""What watchers of one operation see: its past first, then each event, never more than they can take.

Owns the watchers' queues and the stages so far. A watcher that is too slow loses single events and gets a snapshot.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from banger.api.events import DetailEvent, Event, SnapshotEvent, StageEvent
from banger.model.operation import Operation
from banger.model.vm import Stage

WATCHER_EVENTS = 256


class _Watcher:
    """One watcher's queue. When it overflows, all that waits in it becomes one snapshot."""

    def __init__(self, history: Sequence[Event]) -> None:
        self.queue: deque[Event] = deque(history)
        self.lost = False
        self.wake = asyncio.Event()

    def push(self, event: Event) -> None:
        if self.lost:
            return
        if len(self.queue) >= WATCHER_EVENTS:
            self.queue.clear()
            self.lost = True
        else:
            self.queue.append(event)
        self.wake.set()


class Watched:
    """The stages of one operation, timed from its beginning, and everybody who follows them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._stages: list[Stage] = []
        self._stage_began_ms = 0.0
        self._watchers: set[_Watcher] = set()
        self._over = False
        self.stage: str | None = None
        self.detail: str | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(self._stages)

    @property
    def elapsed_ms(self) -> float:
        return round((self._monotonic() - self._began) * 1000, 3)

    def enter(self, stage: str) -> None:
        self.leave()
        self.stage, self._stage_began_ms, self.detail = stage, self.elapsed_ms, None
        self._push(StageEvent(name=stage, state="begin", started_ms=self._stage_began_ms))

    def leave(self) -> None:
        if self.stage is None:
            return
        duration = round(self.elapsed_ms - self._stage_began_ms, 3)
        stage = Stage(name=self.stage, started_ms=self._stage_began_ms, duration_ms=duration)
        self._stages.append(stage)
        self.stage = self.detail = None
        self._push(_render_end(stage))

    def tell(self, detail: str) -> None:
        self.detail = detail
        self._push(DetailEvent(stage=self.stage or "", text=detail))

    def end(self) -> None:
        """No event follows: whoever follows is released."""
        self._over = True
        for watcher in self._watchers:
            watcher.wake.set()

    async def follow(self, snapshot: Callable[[], Operation]) -> AsyncGenerator[Event, None]:
        """History first, then what happens, until the end. Close it (`aclosing`) when leaving early."""
        watcher = _Watcher(self._render_history())
        self._watchers.add(watcher)
        try:
            while True:
                while watcher.queue or watcher.lost:
                    if watcher.lost:
                        watcher.lost = False
                        yield SnapshotEvent(operation=snapshot())
                    else:
                        yield watcher.queue.popleft()
                if self._over:
                    return
                watcher.wake.clear()
                await watcher.wake.wait()
        finally:
            self._watchers.discard(watcher)

    def _push(self, event: Event) -> None:
        for watcher in self._watchers:
            watcher.push(event)

    def _render_history(self) -> list[Event]:
        history: list[Event] = []
        for stage in self._stages:
            history.append(StageEvent(name=stage.name, state="begin", started_ms=stage.started_ms))
            history.append(_render_end(stage))
        if self.stage is not None:
            history.append(StageEvent(name=self.stage, state="begin", started_ms=self._stage_began_ms))
        if self.detail is not None:
            history.append(DetailEvent(stage=self.stage or "", text=self.detail))
        return history


def _render_end(stage: Stage) -> StageEvent:
    return StageEvent(
        name=stage.name, state="end", started_ms=stage.started_ms, duration_ms=stage.duration_ms
    )
