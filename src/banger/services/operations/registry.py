"""The registry of operations: begins work in tasks of its own, and knows all that runs or has run.

Owns the tasks and the operations' records. An operation outlives whoever began it unless they cancel it.
Invariants: an id is in the store before its work has begun; what is not live is exactly as it is stored; an id
belongs to one call for as long as its record is kept, so that a call that is repeated under its id is done once.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from banger.base.clock import utc_now
from banger.base.log import operation_id
from banger.base.problem import Code, Outcome, Problem, conflict, not_found
from banger.base.progress import Progress
from banger.model.operation import ENDED, Operation, OperationState, Resolution, Selection
from banger.services.operations.running import Running
from banger.store.contract import OperationRepository

KEPT_OPERATIONS = 200
KEPT_DAYS = 14
_MAX_UNSAVED = 64
_ANY = Selection()
_NOT_ENDED = Selection(states=frozenset({OperationState.RUNNING, OperationState.UNKNOWN}))

log = logging.getLogger(__name__)

Work = Callable[[Progress], Awaitable[Any]]
Judge = Callable[[Operation], Resolution | None]


class Operations:
    """All operations of this daemon. Blocking calls are short transactions of the store."""

    def __init__(
        self,
        repository: OperationRepository,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], str] = utc_now,
        keep: int = KEPT_OPERATIONS,
        keep_days: int = KEPT_DAYS,
    ) -> None:
        self._repository = repository
        self._monotonic = monotonic
        self._now = now
        self._keep = keep
        self._keep_days = keep_days
        self._live: dict[str, Running] = {}
        self._unsaved: dict[str, Operation] = {}
        self._closed = False

    @property
    def running(self) -> int:
        return len(self._live)

    def begin(self, op_id: str, kind: str, subject: str, work: Work, *, call: str = "") -> Running:
        """Starts `work` in a task of its own. `call` is a digest of the whole call, for `find_same`.

        Raises `already_exists`, or what the store says about the new record; nothing runs then.
        """
        if self._closed:
            raise Problem(Code.UNAVAILABLE, "the daemon is shutting down", outcome=Outcome.NOT_STARTED)
        if self.find(op_id) is not None:
            raise Problem(
                Code.ALREADY_EXISTS,
                f"operation {op_id} exists already",
                hint=f"banger operation show {op_id}",
                outcome=Outcome.NOT_STARTED,
            )
        operation = Operation(
            id=op_id,
            kind=kind,
            subject=subject,
            state=OperationState.RUNNING,
            started_at=self._now(),
            call=call,
        )
        self._repository.save(operation)
        running = Running(operation, self._monotonic, self._repository.save)
        context = copy_context()
        context.run(operation_id.set, op_id)
        context.run(log.info, "%s begins", kind, extra={"subject": subject})

        async def run() -> Any:
            return msgspec.to_builtins(await work(running))

        # The registry supervises: it keeps the task until `_settle` has taken its end.
        task = asyncio.get_running_loop().create_task(run(), name=op_id, context=context)
        running.start(task)
        self._live[op_id] = running
        task.add_done_callback(self._settle, context=context)
        return running

    def find_same(self, op_id: str, kind: str, call: str) -> Running | Operation | None:
        """What this very call has begun under this id before: it is not to be begun again.

        Raises `conflict` when the id belongs to another call.
        """
        known = self.find(op_id)
        if known is None:
            return None
        if known.kind != kind or known.call != call:
            what = (
                f"{known.kind} of {known.subject}" if known.kind != kind else f"{kind} with other parameters"
            )
            raise conflict(
                f"operation id {op_id} is that of another call: {what}",
                hint=f"use another id, or see: banger operation show {op_id}",
            )
        return self._live.get(op_id) or known

    def find_running(self, op_id: str) -> Running | None:
        return self._live.get(op_id)

    def find(self, op_id: str) -> Operation | None:
        if (running := self._live.get(op_id)) is not None:
            return running.snapshot()
        return self._unsaved.get(op_id) or self._repository.find(op_id)

    def get(self, op_id: str) -> Operation:
        """The operation as it is now. Raises `not_found`."""
        operation = self.find(op_id)
        if operation is None:
            raise not_found(f"there is no operation {op_id!r}", hint="banger operation list")
        return operation

    def get_cancellable(self, op_id: str) -> Running:
        """Raises `not_found`, or `conflict` for one that has ended, however that was."""
        if (running := self._live.get(op_id)) is not None:
            return running
        operation = self.get(op_id)
        if operation.state is OperationState.UNKNOWN:
            raise conflict(
                f"operation {op_id} does not run: its daemon ended before it did",
                hint="banger daemon reconcile",
            )
        raise conflict(
            f"operation {op_id} has ended already: {operation.state.value}",
            hint=f"banger operation show {op_id}",
        )

    def list(self, limit: int | None = None, selection: Selection = _ANY) -> Sequence[Operation]:
        """Those meant, the newest first; those that run with their stages so far."""
        listed = [self._overlay(operation) for operation in self._repository.list(limit, selection)]
        states = selection.states
        return [operation for operation in listed if states is None or operation.state in states]

    def recover(self) -> None:
        """Marks what ran when an earlier daemon ended: its outcome is unknown. Call once, at start."""
        for operation in self._select(OperationState.RUNNING):
            problem = Problem(
                Code.OPERATION_FAILED,
                f"the daemon ended while {operation.kind} ran, and its outcome is unknown",
                hint="banger daemon reconcile",
                outcome=Outcome.UNKNOWN,
            )
            lost = msgspec.structs.replace(
                operation,
                state=OperationState.UNKNOWN,
                finished_at=self._now(),
                cancelling=False,
                error={**problem.as_data(), "op": operation.id},
            )
            self._store(lost)
            log.warning("%s has an unknown outcome", operation.kind, extra=_describe(lost))
        self._prune()

    def list_unknown(self) -> Sequence[Operation]:
        """Those whose outcome is unknown, the oldest first."""
        return list(reversed(self._select(OperationState.UNKNOWN)))

    def resolve(self, judge: Judge) -> Sequence[Operation]:
        """Asks for the outcome of each that is unknown, the oldest first; returns those that are known now."""
        resolved = []
        for operation in self.list_unknown():
            resolution = judge(operation)
            if resolution is None:
                continue
            assert resolution.state in ENDED, resolution
            known = _resolve(operation, resolution)
            self._store(known)
            resolved.append(known)
            log.info("%s: the outcome is known", operation.kind, extra=_describe(known))
        return resolved

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

    def _select(self, state: OperationState) -> Sequence[Operation]:
        """What is in this state and does not run here."""
        stored = map(self._overlay, self._repository.list(None, _NOT_ENDED))
        return [each for each in stored if each.state is state and each.id not in self._live]

    def _overlay(self, stored: Operation) -> Operation:
        if (running := self._live.get(stored.id)) is not None:
            return running.snapshot()
        return self._unsaved.get(stored.id, stored)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        running = self._live.pop(task.get_name())
        operation = running.finish(task, self._now())
        self._store(operation)
        self._prune()

    def _store(self, operation: Operation) -> None:
        """With those that found no room before. What finds none now is known all the same, and stored with the next."""
        self._unsaved[operation.id] = operation
        try:
            while self._unsaved:
                op_id, unsaved = next(iter(self._unsaved.items()))
                self._repository.save(unsaved)
                del self._unsaved[op_id]
        except Problem as problem:
            log.error("what became of an operation could not be recorded", exc_info=problem)
            while len(self._unsaved) > _MAX_UNSAVED:
                self._unsaved.pop(next(iter(self._unsaved)))

    def _prune(self) -> None:
        oldest = datetime.fromisoformat(self._now()) - timedelta(days=self._keep_days)
        before = oldest.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            self._repository.prune(self._keep, before)
        except Problem as problem:
            log.error("old operations could not be dropped", exc_info=problem)


def _resolve(operation: Operation, resolution: Resolution) -> Operation:
    error = None
    if resolution.state is not OperationState.SUCCEEDED:
        code = Code.CANCELLED if resolution.state is OperationState.CANCELLED else Code.OPERATION_FAILED
        problem = Problem(code, f"the daemon ended while {operation.kind} ran: {resolution.why}")
        error = {**problem.as_data(), "op": operation.id}
    return msgspec.structs.replace(
        operation, state=resolution.state, resolved=resolution.why, result=resolution.result, error=error
    )


def _describe(operation: Operation) -> dict[str, str]:
    described = {"op": operation.id, "subject": operation.subject, "state": operation.state.value}
    return described | ({"why": operation.resolved} if operation.resolved else {})
