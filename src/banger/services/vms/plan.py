"""What a VM's record means for its VMM and its guest. Pure."""

from pathlib import Path
from typing import NamedTuple

from banger.guest.bootconfig import BootConfig, GuestFile
from banger.model.kernel import KernelManifest
from banger.model.machine import Disk, Machine, Network
from banger.model.vm import VmRecord
from banger.services.hostnet.contract import Lease
from banger.services.vms.layout import Layout
from banger.storage.contract import ROOT_SERIAL, Root
from banger.vmm.contract import GuestView

AGENT_PORT_NAME = "banger.agent"
WORK_SERIAL, MODULES_SERIAL = "work", "modules"
ROOTFS = "rootfs.ext4"  # of an image's directory
HOST_KEY_PATH = "/etc/ssh/ssh_host_ed25519_key"
AUTHORIZED_KEYS_PATH = "/root/.ssh/authorized_keys"

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


class GuestKeys(NamedTuple):
    """The guest's SSH identity, made on the host, and who may come in."""

    host_private: bytes
    host_public: str
    authorized: str


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


def compose_machine(
    vm: VmRecord,
    layout: Layout,
    root: Disk,
    kernel: KernelManifest,
    kernel_directory: Path,
    network: Network,
) -> Machine:
    """The hardware. What a guest finds its disks by, its VMM says: `Vmm.view_guest`."""
    disks = [root]
    if vm.has_work_disk:
        disks.append(Disk(serial=WORK_SERIAL, path=str(layout.work_disk)))
    if kernel.modules_image is not None:
        modules = str(kernel_directory / kernel.modules_image)
        disks.append(Disk(serial=MODULES_SERIAL, path=modules, read_only=True))
    return Machine(
        id=vm.id,
        name=vm.name,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        kernel=str(kernel_directory / kernel.vmlinux),
        initramfs=str(layout.initramfs),
        kernel_arguments=KERNEL_ARGUMENTS,
        disks=tuple(disks),
        network=network,
        agent_channel=AGENT_PORT_NAME,
    )


def compose_boot_config(vm: VmRecord, view: GuestView, lease: Lease, keys: GuestKeys) -> BootConfig:
    """What the guest is told: who it is, where its disks are, how it reaches the network, whom it lets in."""
    return BootConfig(
        hostname=vm.name,
        root=view.disks[ROOT_SERIAL],
        work=view.disks.get(WORK_SERIAL),
        modules=view.disks.get(MODULES_SERIAL),
        address=lease.guest_address,
        gateway=lease.gateway,
        dns=(lease.dns,),
        channel=view.channels,
        files=(
            GuestFile(path=HOST_KEY_PATH, content=keys.host_private, mode=0o600),
            GuestFile(path=HOST_KEY_PATH + ".pub", content=keys.host_public.encode() + b"\n"),
            GuestFile(path=AUTHORIZED_KEYS_PATH, content=keys.authorized.encode() + b"\n", mode=0o600),
        ),
    )
