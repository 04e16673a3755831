"""The fourth waist: what services see of the store. One writer; every call is one short transaction.

Calls are blocking and take microseconds (SQLite, WAL, synchronous=NORMAL), so they run on the event loop.
They raise Problem: `already_exists` for a taken name, `no_space` for a full disk, `unavailable` for a
damaged or newer database.
"""

from collections.abc import Sequence
from typing import Protocol

from banger.model.operation import Operation, Selection
from banger.model.session import SessionRow
from banger.model.vm import VmRecord
from banger.model.workspace import Workspace


class VmRepository(Protocol):
    def insert(self, vm: VmRecord) -> None:
        """Reserves the name and writes the row. Raises `already_exists`, naming the VM that has the name."""

    def save(self, vm: VmRecord) -> None:
        """Replaces the row of `vm.id`. The row must exist."""

    def find(self, vm_id: str) -> VmRecord | None: ...

    def list(self) -> Sequence[VmRecord]:
        """All VMs by name."""

    def delete(self, vm_id: str) -> None:
        """Idempotent."""


class OperationRepository(Protocol):
    def save(self, operation: Operation) -> None:
        """Inserts or replaces."""

    def find(self, operation_id: str) -> Operation | None: ...

    def list(self, limit: int | None, selection: Selection = ...) -> Sequence[Operation]:
        """Those meant, the newest first; without a limit all of them."""

    def prune(self, keep: int, before: str) -> None:
        """Drops all but the newest `keep` that have ended, and whatever ended before a time. One whose outcome is
        unknown is dropped by its age only, one that runs never."""


class SessionRepository(Protocol):
    """Rows of a VM that is deleted go with it."""

    def save(self, session: SessionRow) -> None:
        """Inserts or replaces. Raises `already_exists` when the VM has another session of that name."""

    def find(self, session_id: str) -> SessionRow | None: ...

    def list(self, vm_id: str | None = None) -> Sequence[SessionRow]:
        """Of one VM or of all, the oldest first."""

    def delete(self, session_id: str) -> None:
        """Idempotent."""


class WorkspaceRepository(Protocol):
    """At most one for each VM. The row of a VM that is deleted goes with it."""

    def save(self, workspace: Workspace) -> None:
        """Inserts or replaces."""

    def find(self, vm_id: str) -> Workspace | None: ...

    def list(self) -> Sequence[Workspace]: ...

    def delete(self, vm_id: str) -> None:
        """Idempotent."""


class Store(Protocol):
    @property
    def vms(self) -> VmRepository: ...

    @property
    def operations(self) -> OperationRepository: ...

    @property
    def sessions(self) -> SessionRepository: ...

    @property
    def workspaces(self) -> WorkspaceRepository: ...

    def close(self) -> None: ...
