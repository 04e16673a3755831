"""What a VM's record means for its VMM and its guest. Pure."""

from pathlib import Path
from typing import NamedTuple

from banger.guest.bootconfig import BootConfig, GuestFile
from banger.model.kernel import KernelManifest
from banger.model.machine import Disk, DiskFormat, Machine, Network
from banger.model.vm import VmRecord
from banger.services.hostnet.contract import Lease
from banger.services.vms.layout import Layout

AGENT_PORT_NAME = "banger.agent"
ROOT_SERIAL, WORK_SERIAL, MODULES_SERIAL = "root", "work", "modules"
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


def compose_machine(
    vm: VmRecord, layout: Layout, kernel: KernelManifest, kernel_directory: Path, network: Network
) -> Machine:
    """The hardware. Disks are found by serial, so their order means nothing."""
    disks = [Disk(serial=ROOT_SERIAL, path=str(layout.root_disk), format=DiskFormat.QCOW2)]
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


def compose_boot_config(vm: VmRecord, kernel: KernelManifest, lease: Lease, keys: GuestKeys) -> BootConfig:
    """What the guest is told: who it is, where its disks are, how it reaches the network, whom it lets in."""
    return BootConfig(
        hostname=vm.name,
        root=ROOT_SERIAL,
        work=WORK_SERIAL if vm.has_work_disk else None,
        modules=MODULES_SERIAL if kernel.modules_image is not None else None,
        address=lease.guest_address,
        gateway=lease.gateway,
        dns=(lease.dns,),
        channel=(f"virtio-serial:{AGENT_PORT_NAME}",),
        files=(
            GuestFile(path=HOST_KEY_PATH, content=keys.host_private, mode=0o600),
            GuestFile(path=HOST_KEY_PATH + ".pub", content=keys.host_public.encode() + b"\n"),
            GuestFile(path=AUTHORIZED_KEYS_PATH, content=keys.authorized.encode() + b"\n", mode=0o600),
        ),
    )
