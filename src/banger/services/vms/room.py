"""The room that VMs want and that this host has: measured here, judged by `policy` and `admission`.

Owns no state. Nothing here waits, so that a VM which is admitted and then written down, without waiting in between,
is counted when the next one is judged.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from banger.base.files import allocated_bytes, free_bytes
from banger.base.memory import available_bytes
from banger.base.problem import Code, Outcome, Problem
from banger.base.units import MIB, render_size
from banger.model.admission import DiskClaim, DiskRoom, MemoryRoom, check_disk, check_memory
from banger.model.policy import (
    Totals,
    check_disks,
    check_growth,
    check_new,
    check_running,
    check_vm,
    disk_bytes,
    sum_others,
)
from banger.model.storage import StorageDriver
from banger.model.vm import VmRecord, VmSpec
from banger.services.vms.plan import ROOTFS, locate_root
from banger.services.vms.surroundings import Surroundings
from banger.storage.contract import RootDriver


class Room(NamedTuple):
    around: Surroundings
    memory_available: Callable[[], int] = available_bytes

    def admit_new(self, spec: VmSpec, driver: StorageDriver | None, *, start: bool) -> None:
        """One more VM, before anything of it is made. Raises `bad_request`, `conflict`, `no_space`."""
        limits = self.around.config.allowed
        others = sum_others(self.around.vms.list())
        check_vm(spec, limits)
        check_new(spec, others, limits)
        if start:
            self._check_running(spec, others)
        else:
            check_memory(spec.memory_mib * MIB, 0, self._memory(), limits)
        nominal = spec.disk_size_bytes + self._root_bytes(spec, driver)
        self._check_disk(DiskClaim(nominal, 0))

    def admit_start(self, vm: VmRecord) -> None:
        """One more VM that runs. A limit that was lowered meanwhile holds, but for disks, which cannot shrink."""
        limits = self.around.config.allowed
        check_vm(vm.spec, limits._replace(disk_per_vm_bytes=None), name=vm.name)
        self._check_running(vm.spec, sum_others(self.around.vms.list(), but=vm.id))

    def admit_change(self, vm: VmRecord, spec: VmSpec) -> None:
        """Only what grows is judged."""
        limits = self.around.config.allowed
        check_growth(vm.spec, spec, limits)
        if spec.memory_mib > vm.spec.memory_mib:
            check_memory(spec.memory_mib * MIB, 0, self._memory(), limits)
        more_bytes = disk_bytes(spec) - disk_bytes(vm.spec)
        if more_bytes > 0:
            check_disks(disk_bytes(spec), sum_others(self.around.vms.list(), but=vm.id), limits)
            before = self.measure_claim(vm)
            self._check_disk(before._replace(nominal_bytes=before.nominal_bytes + more_bytes), but=vm.id)

    def check_root(self, driver: RootDriver, image_directory: Path) -> None:
        """Refuses a root disk that would fill the disk while it is made."""
        place = self.around.layouts.state
        free, wanted = free_bytes(place), driver.estimate_bytes(image_directory / ROOTFS)
        if wanted > free:
            raise Problem(
                Code.NO_SPACE,
                f"a {driver.name.value} of the image ({render_size(wanted)}) does not fit: "
                f"{place} has {render_size(free)} free",
                hint="make room: banger vm prune --dry-run",
                outcome=Outcome.NOT_STARTED,
            )

    def measure_claim(self, vm: VmRecord) -> DiskClaim:
        """What a VM's disks may get to, and what they have."""
        layout = self.around.layouts.of(vm.id)
        driver = self.around.storage.get(vm.root_driver)
        used = driver.measure_bytes(locate_root(vm, layout)) + allocated_bytes(layout.work_disk)
        return DiskClaim(self._nominal_bytes(vm), used)

    def _check_running(self, spec: VmSpec, others: Totals) -> None:
        limits = self.around.config.allowed
        check_running(spec, others, limits)
        check_memory(spec.memory_mib * MIB, others.memory_bytes, self._memory(), limits)

    def _check_disk(self, wanted: DiskClaim, *, but: str = "") -> None:
        """What others have written is measured only where it matters: where all that they may write would not fit."""
        place, limits = self.around.layouts.state, self.around.config.allowed
        room = DiskRoom(str(place), free_bytes(place))
        others = [vm for vm in self.around.vms.list() if vm.id != but]
        try:
            check_disk(wanted, [DiskClaim(self._nominal_bytes(vm), 0) for vm in others], room, limits)
        except Problem:
            check_disk(wanted, [self.measure_claim(vm) for vm in others], room, limits)

    def _nominal_bytes(self, vm: VmRecord) -> int:
        work = vm.spec.disk_size_bytes if vm.has_work_disk else 0
        return work + self._root_bytes(vm.spec, vm.root_driver)

    def _memory(self) -> MemoryRoom:
        return MemoryRoom(self.around.host.memory_bytes, self.memory_available())

    def _root_bytes(self, spec: VmSpec, driver: StorageDriver | None) -> int:
        """How large a root disk's own part can get. Where the driver is open still, the least that it could be."""
        limit = self.around.config.snapshot_limit_bytes
        if limit is not None and driver in (None, StorageDriver.SNAPSHOT):
            return min(limit, spec.system_overlay_size_bytes)
        return spec.system_overlay_size_bytes
