"""`df`: what each image, kernel and VM takes of the disk.

Owns no state and changes nothing. Measures in a thread, for extents of large files take their time.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from banger.api.disk import DiskTotals, DiskUsage, DiskUsageShow, StoredUse, VmUse
from banger.base.files import allocated_bytes, free_bytes
from banger.model.admission import DiskClaim
from banger.model.vm import LIVE, VmRecord
from banger.services.disk.measure import Build, find_builds, measure_tree
from banger.services.vms.layout import Layouts
from banger.services.vms.plan import locate_root
from banger.storage.choose import Storage
from banger.storage.extents import measure_own_bytes


class Places(NamedTuple):
    """`state` is the daemon's own directory: records, log, and in it those of the VMs."""

    images: Path
    kernels: Path
    state: Path


class DiskService:
    def __init__(
        self,
        places: Places,
        layouts: Layouts,
        storage: Storage,
        list_vms: Callable[[], Sequence[VmRecord]],
        measure_claim: Callable[[VmRecord], DiskClaim],
    ) -> None:
        self._places = places
        self._layouts = layouts
        self._storage = storage
        self._list_vms = list_vms
        self._measure_claim = measure_claim

    async def show_usage(self, request: DiskUsageShow) -> DiskUsage:
        return await asyncio.to_thread(self._measure, self._list_vms())

    def _measure(self, rows: Sequence[VmRecord]) -> DiskUsage:
        images, unfinished_images = find_builds(self._places.images)
        kernels, unfinished_kernels = find_builds(self._places.kernels)
        vms = [self._measure_vm(vm) for vm in rows]
        stored_images = [_describe(build, _find_image_users(build, rows)) for build in images]
        stored_kernels = [_describe(build, _find_kernel_users(build, rows)) for build in kernels]
        return DiskUsage(
            images=stored_images,
            kernels=stored_kernels,
            vms=vms,
            totals=self._sum(stored_images, stored_kernels, vms, unfinished_images + unfinished_kernels),
        )

    def _measure_vm(self, vm: VmRecord) -> VmUse:
        layout = self._layouts.of(vm.id)
        tree = measure_tree(layout.state)
        root = self._storage.get(vm.root_driver).measure_bytes(locate_root(vm, layout))
        work = measure_own_bytes(layout.work_disk)
        shared = tree.shared_bytes
        own = max(0, tree.total_bytes - shared)
        return VmUse(
            id=vm.id,
            name=vm.name,
            state=vm.state.value,
            shared_bytes=shared,
            root_bytes=root,
            work_bytes=work,
            log_bytes=tree.log_bytes,
            other_bytes=max(0, own - root - work - tree.log_bytes),
            exclusive_bytes=own,
            growth_bytes=self._measure_claim(vm).growth_bytes,
            reclaimable_bytes=0 if vm.state in LIVE else own,
        )

    def _sum(
        self, images: list[StoredUse], kernels: list[StoredUse], vms: list[VmUse], unfinished: int
    ) -> DiskTotals:
        of_images, of_kernels = _sum_stored(images), _sum_stored(kernels)
        of_vms = sum(vm.exclusive_bytes for vm in vms)
        other = sum(allocated_bytes(path) for path in self._places.state.glob("*") if path.is_file())
        reclaimable = sum(build.reclaimable_bytes for build in (*images, *kernels))
        return DiskTotals(
            images_bytes=of_images,
            kernels_bytes=of_kernels,
            vms_bytes=of_vms,
            unfinished_bytes=unfinished,
            other_bytes=other,
            total_bytes=of_images + of_kernels + of_vms + unfinished + other,
            reclaimable_bytes=reclaimable + sum(vm.reclaimable_bytes for vm in vms),
            growth_bytes=sum(vm.growth_bytes for vm in vms),
            free_bytes=free_bytes(self._layouts.state),
        )


def _sum_stored(builds: list[StoredUse]) -> int:
    return sum(build.shared_bytes + build.exclusive_bytes for build in builds)


def _describe(build: Build, users: list[str]) -> StoredUse:
    return StoredUse(
        name=build.name,
        id=build.id,
        is_current=build.is_current,
        used_by=users,
        shared_bytes=build.size_bytes if users else 0,
        exclusive_bytes=0 if users else build.size_bytes,
        reclaimable_bytes=0 if users else build.size_bytes,
    )


def _find_image_users(build: Build, rows: Sequence[VmRecord]) -> list[str]:
    """A VM stands on one build for good."""
    return [vm.name for vm in rows if Path(vm.image_directory) == build.directory]


def _find_kernel_users(build: Build, rows: Sequence[VmRecord]) -> list[str]:
    """A VM boots what its kernel's name leads to at the time."""
    return [vm.name for vm in rows if build.is_current and vm.spec.kernel == build.name]
