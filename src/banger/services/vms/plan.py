"""What a VM's record means for its VMM and its guest. Changes nothing."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from banger.base.problem import Code, Outcome, Problem
from banger.guest.bootconfig import BootConfig
from banger.model.machine import Disk, Machine
from banger.model.vm import VmRecord
from banger.services.vms.capabilities.contract import Capability, GuestBoot
from banger.services.vms.holds import Start
from banger.services.vms.layout import Layout
from banger.storage.contract import ROOT_SERIAL, Root, RootDriver

MODULES_SERIAL = "modules"
ROOTFS = "rootfs.ext4"  # of an image's directory

KERNEL_ARGUMENTS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",
    "cryptomgr.notests",
    "random.trust_cpu=on",
    "i8042.noaux",
    "i8042.nomux",
    "i8042.nopnp",
    "i8042.dumbkbd",
)


def locate_root(vm: VmRecord, layout: Layout) -> Root:
    """What the VM's root disk stands on, and where."""
    return Root(
        vm_id=vm.id,
        vm_name=vm.name,
        image=Path(vm.image_directory) / ROOTFS,
        state=layout.state,
        size_bytes=vm.spec.system_overlay_size_bytes,
        work_disk=layout.work_disk if vm.has_work_disk else None,
    )


def compose_machine(start: Start, layout: Layout, capabilities: Iterable[Capability]) -> Machine:
    """The hardware. What a guest finds its disks by, its VMM says: `Vmm.view_guest`."""
    vm, kernel = start.vm, start.kernel
    machine = Machine(
        id=vm.id,
        name=vm.name,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        kernel=str(kernel.directory / kernel.manifest.vmlinux),
        initramfs=str(layout.initramfs),
        kernel_arguments=KERNEL_ARGUMENTS,
        disks=(start.root,),
        network=start.lease.network,
    )
    for capability in capabilities:
        machine = capability.machine(vm, layout, machine)
    if kernel.manifest.modules_image is None:
        return machine
    modules = str(kernel.directory / kernel.manifest.modules_image)
    disk = Disk(serial=MODULES_SERIAL, path=modules, read_only=True)
    return msgspec.structs.replace(machine, disks=(*machine.disks, disk))


def compose_boot_config(start: Start, layout: Layout, capabilities: Iterable[Capability]) -> BootConfig:
    """What the guest is told: who it is, where its disks are, how it reaches the network, and what each capability
    adds."""
    lease, view = start.lease, start.vmm.view_guest(start.machine)
    config = BootConfig(
        hostname=start.vm.name,
        root=view.disks[ROOT_SERIAL],
        modules=view.disks.get(MODULES_SERIAL),
        address=lease.guest_address,
        gateway=lease.gateway,
    )
    boot = GuestBoot(start.vm, layout, lease, view)
    for capability in capabilities:
        config = capability.guest(boot, config)
    return config


def require_files(vm: VmRecord, layout: Layout) -> None:
    """A VM whose directory is gone has lost its disks."""
    if layout.state.is_dir():
        return
    raise Problem(
        Code.NOT_FOUND,
        f"the files of {vm.name} are gone: {layout.state}",
        hint=f"banger vm delete {vm.name}",
        outcome=Outcome.NOT_STARTED,
    )


def require_image(vm: VmRecord, driver: RootDriver, layout: Layout) -> None:
    """The build that root stands on must still be there: no other one, whatever its name, can take its place."""
    if not driver.stands_on_image or Path(vm.image_directory).is_dir():
        return
    rescue = f"cp --sparse=always {layout.work_disk} {vm.name}-work.img && " if vm.has_work_disk else ""
    raise Problem(
        Code.NOT_FOUND,
        f"the root disk of {vm.name} stands on {vm.image_directory}, a build of image {vm.spec.image} that is gone",
        hint=f"{rescue}banger vm delete {vm.name}",
        outcome=Outcome.NOT_STARTED,
    )
