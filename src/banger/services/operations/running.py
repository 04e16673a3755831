"""One operation that runs: its task, what it reports, who waits for it, and how it ends."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from banger.api.events import Event
from banger.base.problem import Code, Outcome, Problem
from banger.model.operation import Operation, OperationState
from banger.services.operations.watching import Watched

log = logging.getLogger(__name__)


class Running:
    """Implements Progress and Naming for its work. All methods belong to the event loop's thread.

    Callers that stay (`join`) hold it: when the last of them has left it is cancelled, unless somebody began it to go
    on alone (`keep`). Watching holds nothing.
    """

    def __init__(
        self, operation: Operation, monotonic: Callable[[], float], save: Callable[[Operation], None]
    ) -> None:
        self._operation = operation
        self._save = save
        self._watched = Watched(monotonic)
        self._ended = asyncio.Event()
        self._callers = 0
        self._kept = False
        self._task: asyncio.Task[Any] | None = None

    @property
    def id(self) -> str:
        return self._operation.id

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    # --- what the work tells

    def enter(self, stage: str) -> None:
        self._watched.enter(stage)

    def leave(self) -> None:
        self._watched.leave()

    def tell(self, detail: str) -> None:
        self._watched.tell(detail)

    def name_object(self, object_id: str, name: str = "") -> None:
        """Recorded at once. A store that cannot take it now does not fail the work."""
        self._operation = msgspec.structs.replace(
            self._operation, object_id=object_id, subject=name or self._operation.subject
        )
        try:
            self._save(self.snapshot())
        except Problem as problem:
            log.warning("what an operation is about could not be recorded", exc_info=problem)

    # --- what others see and ask for

    def snapshot(self) -> Operation:
        watched = self._watched
        return msgspec.structs.replace(
            self._operation, stages=watched.stages, stage=watched.stage, detail=watched.detail
        )

    def events(self) -> AsyncGenerator[Event, None]:
        """History first, then what happens, until the end. Close it (`aclosing`) when leaving early."""
        return self._watched.follow(self.snapshot)

    async def wait(self) -> Operation:
        """The operation as it ended. Whoever waits may leave: the work goes on."""
        await self._ended.wait()
        return self.snapshot()

    def join(self) -> None:
        """One more caller for whom this is done; each ends with `part`."""
        self._callers += 1

    def part(self) -> None:
        self._callers -= 1
        if not self._callers and not self._kept:
            self.cancel()

    def keep(self) -> None:
        """It goes on whoever leaves."""
        self._kept = True

    def cancel(self) -> None:
        """Asks the work to undo itself and end. Asking again changes nothing: the undo is not interrupted."""
        if self._task is not None and not self._operation.cancelling and not self._task.done():
            self._operation = msgspec.structs.replace(self._operation, cancelling=True)
            self._task.cancel()

    # --- what the registry does

    def start(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def finish(self, task: asyncio.Task[Any], now: str) -> Operation:
        """Turns the task's end into the operation's, and releases everybody who waits or watches."""
        self._watched.leave()
        state, result, error = _judge(task, self._operation)
        self._operation = msgspec.structs.replace(
            self._operation, state=state, finished_at=now, result=result, error=error, cancelling=False
        )
        self._ended.set()
        self._watched.end()
        log.info(
            "%s %s",
            self._operation.kind,
            state.value,
            extra={"subject": self._operation.subject, "took_ms": self._watched.elapsed_ms, **_why(error)},
        )
        return self.snapshot()


def _why(error: dict[str, Any] | None) -> dict[str, Any]:
    return {} if error is None else {"code": error["code"], "why": error["message"]}


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
        log.error("%s failed by a bug", operation.kind, exc_info=failure)
        failure = Problem(
            Code.INTERNAL,
            f"{operation.kind} failed by a bug: {type(failure).__name__}",
            hint=f"grep {operation.id} in the daemon's log",
            outcome=Outcome.UNKNOWN,
        )
    return OperationState.FAILED, None, {**failure.as_data(), "op": operation.id}
