"""A machine: everything a VMM must know to start a guest, and nothing of how a VMM is told."""

import re
from enum import Enum

import msgspec

from banger.base.problem import bad_request
from banger.base.units import GIB, MIB

DISK_SERIAL_MAX_BYTES = 20  # virtio-v1.2, 5.2.4
DISKS_MAX = 16  # of microvm's 24 virtio-mmio slots
KERNEL_ARGUMENTS_MAX_BYTES = 1900  # COMMAND_LINE_SIZE is 2048 on x86; the back end adds a few
VCPUS_MAX = 32
MEMORY_MIB_MIN = 64
MEMORY_MIB_MAX = 1024 * 1024
DISK_BYTES_MIN = 64 * MIB
DISK_BYTES_MAX = 16 * 1024 * GIB
OVERLAY_BYTES_MAX = 4 * 1024**4  # one cluster of first-level table (storage/qcow2.py)

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TAP = re.compile(r"[a-z0-9-]{1,15}")  # IFNAMSIZ
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class DiskFormat(Enum):
    RAW = "raw"
    QCOW2 = "qcow2"
    SNAPSHOT = "dm-snapshot"  # a device of root's that the VM's id names; `path` is for people


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """One virtio block device. The guest finds it by `serial` (at most 20 bytes, virtio's limit)."""

    serial: str
    path: str
    format: DiskFormat = DiskFormat.RAW
    read_only: bool = False


class PortForward(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP or UDP port of the host that leads to one of the guest."""

    host_address: str
    host_port: int
    guest_port: int
    protocol: str = "tcp"


class UserNetwork(msgspec.Struct, frozen=True, kw_only=True, tag="user"):
    """Network without privileges: the VMM itself speaks for the guest (QEMU's user mode).

    `restricted` keeps the guest from reaching anything but the forwards' replies.
    """

    mac: str
    subnet: str
    guest_address: str
    gateway: str
    dns: str
    restricted: bool
    forwards: tuple[PortForward, ...] = ()


class TapNetwork(msgspec.Struct, frozen=True, kw_only=True, tag="tap"):
    """A link to a bridge of the host. The VMM is given the tap's descriptor at its start, or opens it by name."""

    mac: str
    tap: str


Network = UserNetwork | TapNetwork


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The hardware of one VM. Paths are absolute and the VMM's user may read them."""

    id: str
    name: str
    vcpus: int
    memory_mib: int
    kernel: str
    initramfs: str
    kernel_arguments: tuple[str, ...]
    disks: tuple[Disk, ...]
    network: Network | None
    agent_channel: str = ""  # the name of the guest's virtio-serial port


def validate_machine(machine: Machine) -> None:
    """Raises `bad_request` for what no VMM could run. Sizes against the host are not looked at here."""
    if not 1 <= machine.vcpus <= VCPUS_MAX:
        raise bad_request(f"{machine.vcpus} virtual CPUs are not possible", hint=f"use 1 to {VCPUS_MAX}")
    if machine.memory_mib < MEMORY_MIB_MIN:
        raise bad_request(
            f"{machine.memory_mib} MiB of memory are too few", hint=f"use at least {MEMORY_MIB_MIN}M"
        )
    for argument in machine.kernel_arguments:
        if not argument or not argument.isprintable() or " " in argument:
            raise bad_request(f"{argument!r} is not one kernel argument")
    if sum(len(argument.encode()) + 1 for argument in machine.kernel_arguments) > KERNEL_ARGUMENTS_MAX_BYTES:
        raise bad_request(f"the kernel arguments exceed {KERNEL_ARGUMENTS_MAX_BYTES} bytes")
    if not _WORD.fullmatch(machine.agent_channel):
        raise bad_request(f"{machine.agent_channel!r} is not a channel name")
    _validate_disks(machine.disks)
    if machine.network is not None:
        _validate_network(machine.network)


def _validate_disks(disks: tuple[Disk, ...]) -> None:
    if len(disks) > DISKS_MAX:
        raise bad_request(f"{len(disks)} disks are more than {DISKS_MAX}")
    serials = [disk.serial for disk in disks]
    for serial in serials:
        if not _WORD.fullmatch(serial) or len(serial) > DISK_SERIAL_MAX_BYTES:
            raise bad_request(f"{serial!r} is not a disk serial of at most {DISK_SERIAL_MAX_BYTES} bytes")
        if serials.count(serial) > 1:
            raise bad_request(f"two disks have the serial {serial!r}")


def _validate_network(network: Network) -> None:
    if not _MAC.fullmatch(network.mac):
        raise bad_request(f"{network.mac!r} is not a MAC address")
    if isinstance(network, TapNetwork):
        if not _TAP.fullmatch(network.tap):
            raise bad_request(f"{network.tap!r} is not a tap")
        return
    for forward in network.forwards:
        if forward.protocol not in {"tcp", "udp"}:
            raise bad_request(f"{forward.protocol!r} cannot be forwarded", hint="use tcp or udp")
        for port in (forward.host_port, forward.guest_port):
            if not 0 < port < 65536:
                raise bad_request(f"{port} is not a port")
