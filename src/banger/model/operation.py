"""Operations: everything that takes longer than a blink, as a record that can be watched and kept.

Also the rules by which the outcome of an operation is told afterwards, when its daemon died before it could say: from
what is there now, never from what was going to be.
"""

from enum import Enum
from typing import Any, NamedTuple

import msgspec

from banger.model.vm import Stage, VmRecord, VmState


class OperationState(Enum):
    """`unknown`: its daemon died while it ran, and what came of it has not been told yet."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


ENDED = frozenset({OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED})


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one operation. `id` is the operation id of the call that began it.

    `object_id` is the VM's once it is known. `call` is a digest of method and parameters, by which the same call is
    known when it comes again. `resolved` says how the outcome is known of one that its daemon did not survive.
    """

    id: str
    kind: str  # the method, for example vm.create
    subject: str  # the VM, image or kernel it works on
    state: OperationState
    started_at: str
    finished_at: str | None = None
    stages: tuple[Stage, ...] = ()
    stage: str | None = None
    detail: str | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    object_id: str = ""
    call: str = ""
    cancelling: bool = False
    resolved: str | None = None


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which operations are meant; what is None does not matter."""

    states: frozenset[OperationState] | None = None
    kind: str | None = None
    subject: str | None = None


class Resolution(NamedTuple):
    """How an operation of unknown outcome ended, and in one sentence how that is known.

    `state` is one of ENDED. `result` is what the method would have returned, for who calls it again.
    """

    state: OperationState
    why: str
    result: Any = None


_ENDS_WITH_THE_DAEMON = {
    "tooling.install": "mise ended with it; what it had finished stays",
    "workspace.prepare": "it was cut short; preparing again completes it",
    "agent.prepare": "it was cut short; what was not put into the guest will be the next time",
    "agent.wait": "nobody waits any more",
}


def judge_vm_operation(operation: Operation, vm: VmRecord | None, *, live: bool) -> Resolution | None:
    """What came of an operation on a VM: `vm` is its row after reconciliation, None when there is none (any more);
    `live` is whether a VMM of it runs now. None for an operation that leaves no trace to judge by."""
    match operation.kind:
        case "vm.create":
            return _judge_create(vm, live=live)
        case "vm.start":
            return _judge_start(vm, live=live)
        case "vm.restart":
            return _judge_restart(operation, vm, live=live)
        case "vm.stop" | "vm.kill":
            return _failed("the VM still runs") if live else _succeeded("the VM does not run")
        case "vm.delete":
            return _succeeded("the VM is gone", {}) if vm is None else _failed("the VM is still there")
    why = _ENDS_WITH_THE_DAEMON.get(operation.kind)
    return _failed(why) if why else None


def judge_making(operation: Operation, created_at: str | None) -> Resolution | None:
    """What came of making an image or a kernel; `created_at` is that of the complete one of this name, None when there
    is none. None for an operation that makes neither."""
    if operation.kind not in ("image.build", "kernel.pull"):
        return None
    what = operation.kind.partition(".")[0]
    if created_at is None:
        return _failed(f"there is no complete {what} of this name")
    if created_at < operation.started_at:
        return _failed(f"the {what} is still the one from before")
    return _succeeded(f"the {what} is complete")


def _judge_create(vm: VmRecord | None, *, live: bool) -> Resolution:
    if vm is None:
        return _failed("there is no such VM")
    if live:
        return _succeeded("the VM runs")
    if vm.state is VmState.CREATED:
        return _succeeded("the VM is there and was not started")
    return _failed("the VM is there and does not run")


def _judge_start(vm: VmRecord | None, *, live: bool) -> Resolution:
    if vm is None:
        return _failed("the VM is gone")
    return _succeeded("the VM runs") if live else _failed("the VM does not run")


def _judge_restart(operation: Operation, vm: VmRecord | None, *, live: bool) -> Resolution:
    """A VM that has run since before has not been restarted."""
    started_at = vm.runtime.started_at if vm is not None and vm.runtime is not None else ""
    if live and started_at and started_at < operation.started_at:
        return _failed("the VM runs as it did before")
    return _judge_start(vm, live=live)


def _succeeded(why: str, result: Any = None) -> Resolution:
    return Resolution(OperationState.SUCCEEDED, why, result)


def _failed(why: str) -> Resolution:
    return Resolution(OperationState.FAILED, why)
