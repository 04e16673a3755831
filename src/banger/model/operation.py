"""Operations: everything that takes longer than a blink, as a record that can be watched and kept."""

from enum import Enum
from typing import Any

import msgspec

from banger.model.vm import Stage


class OperationState(Enum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one operation. `id` is the operation id of the call that began it."""

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
