"""What Firecracker is told: a machine as the bodies of its API's requests. Pure; golden tests beside it.

Paths in the bodies are names relative to the VMM's working directory: in a jail its root, where the root helper makes
them, outside the VM's runtime directory, where `plan_links` says what each name leads to. So the bodies are the same in
both, and a snapshot can be restored elsewhere: Firecracker writes the names of disks and vsock into it and lets nobody
change them.
"""

import re
from typing import Any, NamedTuple

from banger.base.problem import bad_request
from banger.model.machine import Disk, DiskFormat, Machine, TapNetwork, UserNetwork, validate_machine
from banger.vmm.firecracker.sockets import AGENT_SOCKET, DIRECTORY

AGENT_PORT = 1024  # the vsock port on which the guest's agent listens, and the host's port on which it knocks
GUEST_CHANNEL = f"vsock:{AGENT_PORT}"  # the same in the guest's boot configuration
KERNEL, INITRAMFS = "kernel", "initramfs"
NIC = "eth0"

_GUEST_CID = 3  # the first that a guest may have; each VMM has a socket of its own, so all may have the same
_QEMU = 'set vmm = "qemu" in config.toml'
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
# Firecracker ends when the guest asks the keyboard controller for a reset (reboot=k) and at nothing else; there is no
# PCI to look for.
_KERNEL_ARGUMENTS = ("reboot=k", "pci=off")


class Call(NamedTuple):
    """One request to the API."""

    method: str
    path: str
    body: dict[str, Any]


START = Call("PUT", "/actions", {"action_type": "InstanceStart"})
PAUSE = Call("PATCH", "/vm", {"state": "Paused"})
RESUME = Call("PATCH", "/vm", {"state": "Resumed"})
FLUSH_METRICS = Call("PUT", "/actions", {"action_type": "FlushMetrics"})


def validate_for_firecracker(machine: Machine, *, jailed: bool) -> None:
    """Raises `bad_request` for what no VMM could run, and for what Firecracker cannot."""
    validate_machine(machine)
    if not _ID.fullmatch(machine.id):
        raise bad_request(f"{machine.id!r} is no id for Firecracker: letters, digits and hyphens, at most 64")
    for disk in machine.disks:
        if disk.format is DiskFormat.QCOW2:
            raise bad_request(f"the disk {disk.path} is qcow2, which Firecracker does not read", hint=_QEMU)
        if disk.format is DiskFormat.SNAPSHOT and not jailed:
            raise bad_request(
                f"the disk {disk.path} is a device of root's, which only a jailed Firecracker is given",
                hint="set jailer_enabled = true in config.toml, or sudo banger system install",
            )
    if isinstance(machine.network, UserNetwork):
        raise bad_request("Firecracker has no user network", hint=f"sudo banger system install, or {_QEMU}")


def plan_calls(machine: Machine) -> tuple[Call, ...]:
    """All that comes before `START`, in order. The order of the disks is that of their names in the guest. The tap is
    last: it is nobody's until the VMM has been settled."""
    return (
        Call("PUT", "/machine-config", {"vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_mib}),
        Call("PUT", "/boot-source", _render_boot_source(machine)),
        *(_plan_disk(index, disk) for index, disk in enumerate(machine.disks)),
        Call("PUT", "/vsock", {"guest_cid": _GUEST_CID, "uds_path": f"{DIRECTORY}/{AGENT_SOCKET}"}),
        Call("PUT", "/entropy", {}),
        *((plan_network(machine.network),) if isinstance(machine.network, TapNetwork) else ()),
    )


def plan_network(network: TapNetwork) -> Call:
    body = {"iface_id": NIC, "guest_mac": network.mac, "host_dev_name": network.tap}
    return Call("PUT", f"/network-interfaces/{NIC}", body)


def plan_links(machine: Machine) -> dict[str, str]:
    """What each name of the bodies leads to."""
    disks = {_disk_name(index): disk.path for index, disk in enumerate(machine.disks)}
    return {KERNEL: machine.kernel, INITRAMFS: machine.initramfs, **disks}


def render_guest_disks(machine: Machine) -> dict[str, str]:
    """Each disk's serial with its device in the guest. Firecracker has no serials to find disks by, but its devices
    come in the order in which they were made."""
    return {disk.serial: f"/dev/vd{chr(ord('a') + index)}" for index, disk in enumerate(machine.disks)}


def render_kernel_arguments(machine: Machine) -> str:
    """The machine's own win over ours of the same name."""
    own = {argument.partition("=")[0] for argument in machine.kernel_arguments}
    added = (word for word in _KERNEL_ARGUMENTS if word.partition("=")[0] not in own)
    return " ".join((*machine.kernel_arguments, *added))


def _disk_name(index: int) -> str:
    return f"disk{index}"


def _render_boot_source(machine: Machine) -> dict[str, Any]:
    return {
        "kernel_image_path": KERNEL,
        "initrd_path": INITRAMFS,
        "boot_args": render_kernel_arguments(machine),
    }


def _plan_disk(index: int, disk: Disk) -> Call:
    """Writeback: a guest's flush reaches the host's disk. Firecracker's default drops it."""
    name = _disk_name(index)
    body = {
        "drive_id": name,
        "path_on_host": name,
        "is_root_device": False,  # would add root= to the kernel's arguments
        "is_read_only": disk.read_only,
        "cache_type": "Unsafe" if disk.read_only else "Writeback",
    }
    return Call("PUT", f"/drives/{name}", body)
