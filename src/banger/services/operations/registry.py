"""The registry of operations: begins work in tasks of its own, and knows all that runs or has run.

Owns the tasks and the operations' records. An operation outlives whoever began it unless they cancel it.
Invariant: an id is in the store before its work has begun; what is not live is exactly as it is stored.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import Any

import msgspec

from banger.api.events import DetailEvent, Event, SnapshotEvent, StageEvent
from banger.base.clock import utc_now
from banger.base.log import operation_id
from banger.base.problem import Code, Outcome, Problem, not_found
from banger.base.progress import Progress
from banger.model.operation import Operation, OperationState
from banger.model.vm import Stage
from banger.store.contract import OperationRepository

KEPT_OPERATIONS = 200
WATCHER_EVENTS = 256
_MAX_UNSAVED = 64

log = logging.getLogger(__name__)

Work = Callable[[Progress], Awaitable[Any]]


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


class Running:
    """One live operation; implements Progress for its work. All methods belong to the event loop's thread."""

    def __init__(self, operation: Operation, monotonic: Callable[[], float]) -> None:
        self._operation = operation
        self._monotonic = monotonic
        self._began = monotonic()
        self._stages: list[Stage] = []
        self._stage: str | None = None
        self._stage_began_ms = 0.0
        self._detail: str | None = None
        self._watchers: set[_Watcher] = set()
        self._ended = asyncio.Event()
        self._cancelled = False
        self._task: asyncio.Task[Any] | None = None

    @property
    def id(self) -> str:
        return self._operation.id

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def enter(self, stage: str) -> None:
        self.leave()
        self._stage, self._stage_began_ms, self._detail = stage, self._elapsed_ms(), None
        self._push(StageEvent(name=stage, state="begin", started_ms=self._stage_began_ms))

    def leave(self) -> None:
        if self._stage is None:
            return
        duration = round(self._elapsed_ms() - self._stage_began_ms, 3)
        stage = Stage(name=self._stage, started_ms=self._stage_began_ms, duration_ms=duration)
        self._stages.append(stage)
        self._stage = self._detail = None
        self._push(_render_end(stage))

    def tell(self, detail: str) -> None:
        self._detail = detail
        self._push(DetailEvent(stage=self._stage or "", text=detail))

    def snapshot(self) -> Operation:
        return msgspec.structs.replace(
            self._operation, stages=tuple(self._stages), stage=self._stage, detail=self._detail
        )

    async def events(self) -> AsyncGenerator[Event, None]:
        """History first, then what happens, until the end. Close it (`aclosing`) when leaving early."""
        watcher = _Watcher(self._render_history())
        self._watchers.add(watcher)
        try:
            while True:
                while watcher.queue or watcher.lost:
                    if watcher.lost:
                        watcher.lost = False
                        yield SnapshotEvent(operation=self.snapshot())
                    else:
                        yield watcher.queue.popleft()
                if self.ended:
                    return
                watcher.wake.clear()
                await watcher.wake.wait()
        finally:
            self._watchers.discard(watcher)

    async def wait(self) -> Operation:
        """The operation as it ended. Whoever waits may leave: the work goes on."""
        await self._ended.wait()
        return self.snapshot()

    def cancel(self) -> None:
        """Asks the work to undo itself and end. Asking again changes nothing: the undo is not interrupted."""
        if self._task is not None and not self._cancelled and not self._task.done():
            self._cancelled = True
            self._task.cancel()

    def start(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def finish(self, task: asyncio.Task[Any], now: str) -> Operation:
        """Turns the task's end into the operation's, and releases everybody who waits or watches."""
        self.leave()
        state, result, error = _judge(task, self._operation)
        self._operation = msgspec.structs.replace(
            self._operation, state=state, finished_at=now, result=result, error=error
        )
        self._ended.set()
        for watcher in self._watchers:
            watcher.wake.set()
        return self.snapshot()

    def _elapsed_ms(self) -> float:
        return round((self._monotonic() - self._began) * 1000, 3)

    def _push(self, event: Event) -> None:
        for watcher in self._watchers:
            watcher.push(event)

    def _render_history(self) -> list[Event]:
        history: list[Event] = []
        for stage in self._stages:
            history.append(StageEvent(name=stage.name, state="begin", started_ms=stage.started_ms))
            history.append(_render_end(stage))
        if self._stage is not None:
            history.append(StageEvent(name=self._stage, state="begin", started_ms=self._stage_began_ms))
        if self._detail is not None:
            history.append(DetailEvent(stage=self._stage or "", text=self._detail))
        return history


def _render_end(stage: Stage) -> StageEvent:
    return StageEvent(
        name=stage.name, state="end", started_ms=stage.started_ms, duration_ms=stage.duration_ms
    )


def _judge(
    task: asyncio.Task[Any], operation: Operation
) -> tuple[OperationState, Any, dict[str, Any] | None]:
    if task.cancelled():
        problem = Problem(Code.CANCELLED, f"{operation.kind} was cancelled")
        return OperationState.CANCELLED, None, {**problem.as_data(), "op": operation.id}
    failure = task.exception()
    if failure is None:
        return OperationState.SUCCEEDED, task.result(), None
    if not isinstance(failure, Problem):
        log.error("%s failed by a bug", operation.kind, exc_info=failure, extra={"op": operation.id})
        failure = Problem(
            Code.INTERNAL,
            f"{operation.kind} failed by a bug: {type(failure).__name__}",
            hint=f"grep {operation.id} in the daemon's log",
            outcome=Outcome.UNKNOWN,
        )
    log.info(
        "%s failed",
        operation.kind,
        extra={"op": operation.id, "code": failure.code.value, "why": failure.brief},
    )
    return OperationState.FAILED, None, {**failure.as_data(), "op": operation.id}


class Operations:
    """All operations of this daemon. Blocking calls are short transactions of the store."""

    def __init__(
        self,
        repository: OperationRepository,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], str] = utc_now,
        keep: int = KEPT_OPERATIONS,
    ) -> None:
        self._repository = repository
        self._monotonic = monotonic
        self._now = now
        self._keep = keep
        self._live: dict[str, Running] = {}
        self._unsaved: dict[str, Operation] = {}
        self._closed = False

    @property
    def running(self) -> int:
        return len(self._live)

    def begin(self, op_id: str, kind: str, subject: str, work: Work) -> Running:
        """Starts `work` in a task of its own.

        Raises `already_exists`, or what the store says about the new record; nothing runs then.
        """
        if self._closed:
            raise Problem(Code.UNAVAILABLE, "the daemon is shutting down", outcome=Outcome.NOT_STARTED)
        if self._find(op_id) is not None:
            raise Problem(
                Code.ALREADY_EXISTS,
                f"operation {op_id} exists already",
                hint=f"banger operation show {op_id}",
                outcome=Outcome.NOT_STARTED,
            )
        operation = Operation(
            id=op_id, kind=kind, subject=subject, state=OperationState.RUNNING, started_at=self._now()
        )
        self._repository.save(operation)
        running = Running(operation, self._monotonic)
        context = copy_context()
        context.run(operation_id.set, op_id)

        async def run() -> Any:
            return msgspec.to_builtins(await work(running))

        # The registry supervises: it keeps the task until `_settle` has taken its end.
        task = asyncio.get_running_loop().create_task(run(), name=op_id, context=context)
        running.start(task)
        self._live[op_id] = running
        task.add_done_callback(self._settle, context=context)
        return running

    def find_running(self, op_id: str) -> Running | None:
        return self._live.get(op_id)

    def get(self, op_id: str) -> Operation:
        """The operation as it is now. Raises `not_found`."""
        operation = self._find(op_id)
        if operation is None:
            raise not_found(f"there is no operation {op_id!r}", hint="banger operation list")
        return operation

    def list(self, limit: int = KEPT_OPERATIONS) -> Sequence[Operation]:
        """The newest first; those that run with their stages so far."""
        return [self._overlay(operation) for operation in self._repository.list(limit)]

    def recover(self) -> None:
        """Closes the records of operations that ran when an earlier daemon ended. Call once, at start."""
        problem = Problem(
            Code.OPERATION_FAILED, "the daemon ended while the operation ran", outcome=Outcome.UNKNOWN
        )
        for operation in self._repository.list(self._keep * 2):
            if operation.state is OperationState.RUNNING:
                self._repository.save(
                    msgspec.structs.replace(
                        operation,
                        state=OperationState.FAILED,
                        finished_at=self._now(),
                        error={**problem.as_data(), "op": operation.id},
                    )
                )

    async def close(self, timeout_s: float) -> bool:
        """Cancels all and waits for their undoing. False when some had not ended at the deadline."""
        self._closed = True
        for running in list(self._live.values()):
            running.cancel()
        try:
            async with asyncio.timeout(timeout_s):
                for running in list(self._live.values()):
                    await running.wait()
        except TimeoutError:
            log.error("operations did not end in time", extra={"operations": sorted(self._live)})
            return False
        return True

    def _find(self, op_id: str) -> Operation | None:
        if (running := self._live.get(op_id)) is not None:
            return running.snapshot()
        return self._unsaved.get(op_id) or self._repository.find(op_id)

    def _overlay(self, stored: Operation) -> Operation:
        if (running := self._live.get(stored.id)) is not None:
            return running.snapshot()
        return self._unsaved.get(stored.id, stored)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        running = self._live.pop(task.get_name())
        operation = running.finish(task, self._now())
        try:
            self._repository.save(operation)
            self._repository.prune(self._keep)
        except Problem as problem:
            log.error("the end of an operation could not be recorded", exc_info=problem)
            while len(self._unsaved) >= _MAX_UNSAVED:
                self._unsaved.pop(next(iter(self._unsaved)))
            self._unsaved[operation.id] = operation
