"""The VM as a record: what was asked for, what it is, and which states follow which."""

from enum import Enum
from typing import Any

import msgspec

from banger.base.problem import Code, Outcome, Problem, bad_request, conflict
from banger.base.units import render_size
from banger.model.machine import (
    DISK_BYTES_MAX,
    DISK_BYTES_MIN,
    MEMORY_MIB_MAX,
    MEMORY_MIB_MIN,
    OVERLAY_BYTES_MAX,
    VCPUS_MAX,
    PortForward,
)
from banger.model.moment import Moment, Ttl
from banger.model.storage import StorageDriver


class VmState(Enum):
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"


LOOPBACK = "127.0.0.1"
_JAIL_UIDS_FIRST, _JAIL_UIDS = 0x70000000, 0xFFE0000
STARTABLE = frozenset({VmState.CREATED, VmState.STOPPED, VmState.ERROR})
_FOLLOW = "banger operation list --running"  # what makes a VM leave its passing states
LIVE = frozenset({VmState.STARTING, VmState.RUNNING, VmState.STOPPING})


class Origin(Enum):
    """Where a value of the specification came from."""

    FLAG = "flag"
    CONFIG = "config"
    HOST = "host"
    FLOOR = "floor"


class NetworkMode(Enum):
    """How a VM is on the network: on the host's bridge with an address of its own, or behind its VMM."""

    BRIDGE = "bridge"
    USER = "user"


class VmSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a VM is made of. Sizes in the units of their names; validated by `validate_spec`."""

    image: str
    kernel: str
    vcpus: int
    memory_mib: int
    disk_size_bytes: int
    system_overlay_size_bytes: int
    nat: bool = False
    publish: tuple[PortForward, ...] = ()
    origins: dict[str, Origin] = {}


class VmRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a running VM, written before it is used, so that cleanup can find it again.

    `address` and `ssh_port` are where the host reaches its sshd; `host_boot` is the boot of the host in which `pid`
    means something."""

    backend: str
    pid: int
    start_time: int
    agent_socket: str
    control_socket: str
    accelerator: str
    memory: str = ""
    serial_log: str = ""
    jail: str = ""
    network_mode: NetworkMode = NetworkMode.USER
    tap: str = ""
    address: str = LOOPBACK
    ssh_port: int = 0
    boot_id: str = ""
    host_boot: str = ""
    started_at: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the host that a VM has, or may have: written before it is taken, dropped after it was given back.
    `what` is all that the step's undo needs beside the row, whoever it is that undoes."""

    step: str
    what: dict[str, str] = {}


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One measured step of an operation or a boot; `started_ms` counts from the beginning of the whole."""

    name: str
    started_ms: float
    duration_ms: float


class VmRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the store: what was asked for, the present state, and what the last boot took.

    Between the row's writing and `prepared`, and from `removing` on, what is on disk may be half of it; a
    daemon that finds such a row removes the rest. `image_directory` is the very build that root stands on.
    `ssh_port` (user mode) and `address` (bridge) stay the VM's across restarts. `holds` in the order of their taking.
    `warnings` are what the last start had to leave out. `stopped_because` says why a VM was stopped that nobody
    asked to stop; empty while it runs.
    """

    id: str
    name: str
    spec: VmSpec
    state: VmState
    created_at: str
    updated_at: str
    last_touched_at: str
    runtime: VmRuntime | None = None
    error: dict[str, Any] | None = None
    boot_stages: tuple[Stage, ...] = ()
    guest_stages: tuple[Stage, ...] = ()
    labels: dict[str, str] = {}
    ephemeral: bool = False
    has_work_disk: bool = False
    image_id: str = ""
    image_directory: str = ""
    prepared: bool = False
    removing: bool = False
    ssh_port: int = 0
    address: str = ""
    root_driver: StorageDriver = StorageDriver.QCOW2
    holds: tuple[Hold, ...] = ()
    touched: Moment | None = None
    ttl: Ttl | None = None
    warnings: tuple[str, ...] = ()
    stopped_because: str = ""

    @property
    def ends_with_command(self) -> bool:
        """Whether nothing but its first command, or the end of its daemon, will ever end it."""
        return self.ephemeral and self.ttl is None


def validate_spec(spec: VmSpec) -> VmSpec:
    """Refuses what no host could run, with the value and the limit."""
    if not 1 <= spec.vcpus <= VCPUS_MAX:
        raise bad_request(f"{spec.vcpus} vCPUs are not possible", hint=f"--vcpu takes 1 to {VCPUS_MAX}")
    if not MEMORY_MIB_MIN <= spec.memory_mib <= MEMORY_MIB_MAX:
        raise bad_request(
            f"{spec.memory_mib} MiB of memory are not possible",
            hint="--memory takes 64M to 1T, for example 2G",
        )
    sizes = (
        ("--disk-size", spec.disk_size_bytes, DISK_BYTES_MAX),
        ("--system-overlay-size", spec.system_overlay_size_bytes, OVERLAY_BYTES_MAX),
    )
    for flag, size, most in sizes:
        if not DISK_BYTES_MIN <= size <= most:
            raise bad_request(
                f"a disk of {render_size(size)} is not possible",
                hint=f"{flag} takes 64M to {most >> 40}T, for example 20G",
            )
    return spec


def derive_jail_uid(vm_id: str) -> int:
    """The uid of a VMM in a jail: each VM's own, out of a range that nobody else uses (systemd's UIDS-GIDS.md)."""
    return _JAIL_UIDS_FIRST + int(vm_id, 16) % _JAIL_UIDS


def require_running(vm: VmRecord) -> VmRecord:
    if vm.state is not VmState.RUNNING:
        hint = f"banger vm start {vm.name}" if vm.state in STARTABLE else _FOLLOW
        if vm.state is VmState.ERROR:
            hint = f"banger vm logs --source vmm {vm.name}"
        brief = f"{vm.name} {render_state(vm)}"
        raise Problem(Code.NOT_RUNNING, brief, hint=hint, outcome=Outcome.NOT_STARTED)
    return vm


def render_state(vm: VmRecord) -> str:
    """What there is to be said of it, after its name."""
    if vm.state is VmState.CREATED:
        return "has never been started"
    if vm.state is VmState.ERROR:
        reason = (vm.error or {}).get("message")
        return f"ended unexpectedly: {reason}" if reason else "ended unexpectedly"
    return f"is {vm.state.value}"


def require_startable(vm: VmRecord) -> VmRecord:
    if vm.removing:
        raise conflict(f"{vm.name} is being removed", hint=f"banger vm delete {vm.name}")
    if vm.state not in STARTABLE:
        hint = f"banger vm show {vm.name}" if vm.state is VmState.RUNNING else _FOLLOW
        raise conflict(f"{vm.name} is {vm.state.value} already", hint=hint)
    return vm
