"""The disk at /root, which is the VM's own: a clone of the image's seed, grown without an offline resize."""

import asyncio
import os
from pathlib import Path

import msgspec

from banger.base.files import clone_sparse
from banger.base.problem import bad_request
from banger.base.units import render_size
from banger.guest.bootconfig import BootConfig
from banger.model.image import ImageManifest
from banger.model.machine import Disk, Machine
from banger.model.vm import VmRecord, VmSpec
from banger.services.vms.capabilities.contract import Capability, GuestBoot
from banger.services.vms.layout import Layout, Layouts

WORK_SERIAL = "work"


class WorkDisk(Capability):
    name = "work disk"

    def __init__(self, layouts: Layouts) -> None:
        self._layouts = layouts

    def prepare(self, vm: VmRecord, layout: Layout, image: ImageManifest) -> None:
        if image.work_seed is not None:
            clone_sparse(Path(vm.image_directory) / image.work_seed, layout.work_disk)
            _grow(vm, layout, vm.spec.disk_size_bytes)

    def machine(self, vm: VmRecord, layout: Layout, machine: Machine) -> Machine:
        if not vm.has_work_disk:
            return machine
        disk = Disk(serial=WORK_SERIAL, path=str(layout.work_disk))
        return msgspec.structs.replace(machine, disks=(*machine.disks, disk))

    def guest(self, boot: GuestBoot, config: BootConfig) -> BootConfig:
        return msgspec.structs.replace(config, work=boot.view.disks.get(WORK_SERIAL))

    async def change(self, vm: VmRecord, after: VmSpec) -> None:
        """The guest grows the file system at its next boot."""
        if vm.has_work_disk and after.disk_size_bytes > vm.spec.disk_size_bytes:
            await asyncio.to_thread(_grow, vm, self._layouts.of(vm.id), after.disk_size_bytes)


def _grow(vm: VmRecord, layout: Layout, size_bytes: int) -> None:
    """The file itself is asked: a row may not know of a growth that was the last thing a daemon did."""
    with layout.work_disk.open("r+b") as disk:
        found = os.fstat(disk.fileno()).st_size
        if found > size_bytes:
            raise bad_request(
                f"the work disk of {vm.name} cannot shrink to {render_size(size_bytes)}",
                hint=f"--disk-size takes {render_size(found)} or more",
            )
        disk.truncate(size_bytes)
