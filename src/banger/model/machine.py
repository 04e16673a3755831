"""A machine: everything a VMM must know to start a guest, and nothing of how a VMM is told."""

from enum import Enum

import msgspec


class DiskFormat(Enum):
    RAW = "raw"
    QCOW2 = "qcow2"


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
    network: UserNetwork | None
    agent_channel: str  # the name of the guest's virtio-serial port
