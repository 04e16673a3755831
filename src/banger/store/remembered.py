"""The rows of VMs in memory, as they are on disk: one writer, so nobody else can change them.

Every look at the VMs would otherwise decode all of them; with fifty VMs that was most of a creation's time.
"""

from collections.abc import Sequence

from banger.model.vm import VmRecord
from banger.store.contract import VmRepository


class RememberedVms:
    """Implements VmRepository. Disk first: what could not be written is not remembered. Records are immutable."""

    def __init__(self, vms: VmRepository) -> None:
        self._vms = vms
        self._records: dict[str, VmRecord] | None = None

    def insert(self, vm: VmRecord) -> None:
        self._vms.insert(vm)
        self._remember(vm)

    def save(self, vm: VmRecord) -> None:
        self._vms.save(vm)
        self._remember(vm)

    def find(self, vm_id: str) -> VmRecord | None:
        return self._read().get(vm_id)

    def list(self) -> Sequence[VmRecord]:
        return sorted(self._read().values(), key=lambda vm: vm.name)

    def delete(self, vm_id: str) -> None:
        self._vms.delete(vm_id)
        if self._records is not None:
            self._records.pop(vm_id, None)

    def _remember(self, vm: VmRecord) -> None:
        if self._records is not None:
            self._records[vm.id] = vm

    def _read(self) -> dict[str, VmRecord]:
        if self._records is None:
            self._records = {vm.id: vm for vm in self._vms.list()}
        return self._records
