"""Methods on what running VMs use, serve and how they are. A number that cannot be had is null, never 0."""

from typing import Annotated

import msgspec

from banger.api.method import Request, VmReference, declare, field
from banger.model.vm import VmState


class VmUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One VM's use of the host. `cpu_percent` is of one CPU of the host, over the last interval; `cpu_s` since its VMM
    started; `memory_bytes` the VMM's share of the host's memory (PSS; in a jail what its control group has mapped);
    `disk_bytes` what only this VM has on disk. Network as the guest sees it, since it booted; block I/O of the VMM."""

    id: str
    name: str
    state: VmState
    vcpus: int
    memory_mib: int
    cpu_percent: float | None = None
    cpu_s: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None
    block_read_bytes: int | None = None
    block_written_bytes: int | None = None


class VmUsages(msgspec.Struct, frozen=True, kw_only=True):
    vms: list[VmUsage]


class GuestPort(msgspec.Struct, frozen=True, kw_only=True):
    """A socket that listens in a guest. `process` and `pid` are empty and null where the owner is not known; `service`
    is `http`, `https` or `ssh` where that is known. `reach` are the places at which this host reaches it, as HOST:PORT;
    where there are none, `unreachable` says why and `hint` what helps."""

    protocol: str
    address: str
    port: int
    process: str = ""
    pid: int | None = None
    service: str = ""
    reach: list[str] = []
    urls: list[str] = []
    unreachable: str = ""
    hint: str = ""


class GuestPorts(msgspec.Struct, frozen=True, kw_only=True):
    vm: str
    ports: list[GuestPort]


class GuestFileSystem(msgspec.Struct, frozen=True, kw_only=True):
    """`available_bytes` is what an ordinary user of the guest may still take."""

    path: str
    size_bytes: int
    used_bytes: int
    available_bytes: int


class GuestHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a guest is. Unhealthy exactly when there are `problems`; `warnings` are worth a look. `clock_offset_s` is how
    far the guest's clock is ahead of the host's; `ssh` whether something listens on port 22."""

    vm: str
    healthy: bool
    agent_ms: float | None = None
    uptime_s: float | None = None
    load1: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    file_systems: list[GuestFileSystem] = []
    init_mode: str = ""
    clock_offset_s: float | None = None
    ssh: bool | None = None
    problems: list[str] = []
    warnings: list[str] = []


@declare("vm.stats")
class VmStats(Request[VmUsages]):
    """CPU, memory, disk, network and block I/O of the running VMs, or of those named."""

    vms: Annotated[
        list[str], field("name, id or unique id prefix of a VM", positional=True, metavar="VM")
    ] = []


@declare("vm.ports")
class VmPorts(Request[GuestPorts]):
    """What listens in a guest, with URLs for what this host reaches of it."""

    vm: VmReference


@declare("vm.health")
class VmHealth(Request[GuestHealth]):
    """Asks the guest's agent how it is: load, memory, file systems, clock, sshd."""

    vm: VmReference
