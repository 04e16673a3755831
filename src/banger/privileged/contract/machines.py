"""What is asked of root about a VM's disks and its jail. Standard library only.

A VM is named by its id alone: device, jail, cgroup and uid follow from it. What a VM is made of travels as
descriptors of files that the owner has opened, so nobody gets at a file through root that is not the owner's already.
"""

from dataclasses import dataclass

from banger.privileged.contract.base import DESCRIPTORS_MAX, Done, Request
from banger.privileged.contract.values import refuse, validate_tap, validate_vm

JAIL_CGROUPS = "/sys/fs/cgroup/banger"  # one for each jailed VMM, by VM; everybody may read its numbers
SECTOR_BYTES = 512
SNAPSHOT_BYTES_MAX = 4 * 1024**4
MEMORY_MIB_MAX = 1024 * 1024
DISKS_MAX = 16
SNAPSHOT, FILE, READ_ONLY = "snapshot", "file", "read-only"
DISK_KINDS = (SNAPSHOT, FILE, READ_ONLY)
_LAUNCH_FILES = 3  # kernel, initramfs, console

ACTIVE, FULL = "active", "full"


@dataclass(frozen=True, kw_only=True)
class MachineSupport:
    """What this host has for VMs that root takes part in. A reason is empty where the thing works; a hint is a command.
    `firecracker` and `firecracker_version` are empty without a trusted one."""

    snapshot_reason: str
    snapshot_hint: str
    jail_reason: str
    jail_hint: str
    firecracker: str
    firecracker_version: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A root disk of a VM's. `state` is `active`, or `full`: the kernel has given it up, and every access fails.
    The bytes are those of the layer of changes, its metadata included; both 0 when `full`."""

    vm: str
    state: str
    used_bytes: int
    size_bytes: int
    in_use: bool


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    snapshots: tuple[Snapshot, ...]


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A jailed Firecracker's identity; one descriptor comes along, that of its directory of sockets."""

    pid: int
    start_time: int
    uid: int


@dataclass(frozen=True, kw_only=True)
class Jail:
    """What is left of a jail, or lives in it. `pid` is 0 when nobody does."""

    vm: str
    pid: int
    start_time: int
    uid: int


@dataclass(frozen=True, kw_only=True)
class Jails:
    jails: tuple[Jail, ...]


@dataclass(frozen=True, kw_only=True)
class InspectMachines(Request[MachineSupport]):
    """Tries, and leaves nothing behind: device-mapper and its snapshot target, loop devices, cgroups of version 2, a
    place for jails, a Firecracker and jailer that root may run."""

    method = "inspect_machines"
    result = MachineSupport


@dataclass(frozen=True, kw_only=True)
class AttachSnapshot(Request[Done]):
    """The VM's root disk: as large as `size_bytes`, the first file (read) with zeroes behind it, and the second (read
    and write) for what changes. An empty second file starts a new layer, one used before is taken up again. `conflict`
    when the name is taken; `operation_failed` for a layer that has been full: its state is then told by the message,
    and nothing stays attached."""

    method = "attach_snapshot"
    result = Done
    descriptors = range(2, 3)
    vm: str
    size_bytes: int

    def validate(self) -> None:
        validate_vm(self.vm)
        if not 0 < self.size_bytes <= SNAPSHOT_BYTES_MAX or self.size_bytes % SECTOR_BYTES:
            raise refuse(f"{self.size_bytes} bytes are not the size of a disk")


@dataclass(frozen=True, kw_only=True)
class DetachSnapshot(Request[Done]):
    """Idempotent. Waits a little for who has it open; `conflict` when it stays in use."""

    method = "detach_snapshot"
    result = Done
    vm: str

    def validate(self) -> None:
        validate_vm(self.vm)


@dataclass(frozen=True, kw_only=True)
class ListSnapshots(Request[Snapshots]):
    """All of ours, found in the kernel: nothing is remembered."""

    method = "list_snapshots"
    result = Snapshots


@dataclass(frozen=True, kw_only=True)
class LaunchVmm(Request[Launched]):
    """A Firecracker in a jail of its own, which waits for its machine to be described at `api.sock` of the directory
    that is sent. Descriptors: kernel, initramfs, console (written), then one for each disk that is not the snapshot.
    The jail has them as `kernel`, `initramfs`, `disk0`, `disk1`, … `conflict` when the VM has a jail already."""

    method = "launch_vmm"
    result = Launched
    descriptors = range(_LAUNCH_FILES, _LAUNCH_FILES + DISKS_MAX + 1)
    vm: str
    memory_mib: int
    disks: tuple[str, ...]

    def validate(self) -> None:
        validate_vm(self.vm)
        if not 0 < self.memory_mib <= MEMORY_MIB_MAX:
            raise refuse(f"{self.memory_mib} MiB are not the memory of a VM")
        if len(self.disks) > DISKS_MAX:
            raise refuse(f"{len(self.disks)} disks are more than {DISKS_MAX}")
        for disk in self.disks:
            if disk not in DISK_KINDS:
                raise refuse(f"{disk!r} is no kind of disk", f"use {', '.join(DISK_KINDS)}")
        if self.disks.count(SNAPSHOT) > 1:
            raise refuse("a VM has one snapshot")

    @property
    def files(self) -> int:
        """How many descriptors this request must bring."""
        return _LAUNCH_FILES + sum(disk != SNAPSHOT for disk in self.disks)


@dataclass(frozen=True, kw_only=True)
class SettleVmm(Request[Done]):
    """The launched VMM has opened its disks and attached to its tap (empty: it has none), and its guest has not begun:
    one that took over its VMM could keep a name for itself. Boot files and device nodes leave the jail, loop devices
    go with their last user from now on, and the tap lives only as long as somebody holds it: one descriptor of it is
    sent. `not_found` without such a VMM or when it does not hold the tap."""

    method = "settle_vmm"
    result = Done
    vm: str
    tap: str

    def validate(self) -> None:
        validate_vm(self.vm)
        if self.tap:
            validate_tap(self.tap)


@dataclass(frozen=True, kw_only=True)
class EnterJail(Request[Jail]):
    """Who lives in it, and one descriptor: its directory of sockets. `not_found` without a jail."""

    method = "enter_jail"
    result = Jail
    vm: str

    def validate(self) -> None:
        validate_vm(self.vm)


@dataclass(frozen=True, kw_only=True)
class RemoveJail(Request[Done]):
    """Whoever is in it is killed and waited for; then directory, cgroup and loop devices go. Idempotent."""

    method = "remove_jail"
    result = Done
    vm: str

    def validate(self) -> None:
        validate_vm(self.vm)


@dataclass(frozen=True, kw_only=True)
class ListJails(Request[Jails]):
    """All of ours, those without anybody in them too: nothing is remembered."""

    method = "list_jails"
    result = Jails


assert LaunchVmm.descriptors.stop <= DESCRIPTORS_MAX
