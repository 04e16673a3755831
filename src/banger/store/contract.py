"""The fourth waist: what services see of the store. One writer; every call is one short transaction.

Calls are blocking and take microseconds (SQLite, WAL, synchronous=NORMAL), so they run on the event loop.
They raise Problem: `already_exists` for a taken name, `no_space` for a full disk, `unavailable` for a
damaged or newer database.
"""

from collections.abc import Sequence
from typing import Protocol

from banger.model.operation import Operation, Selection
from banger.model.vm import VmRecord


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


class Store(Protocol):
    @property
    def vms(self) -> VmRepository: ...

    @property
    def operations(self) -> OperationRepository: ...

    def close(self) -> None: ...
