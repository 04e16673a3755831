"""Methods on VMs. Sizes on the wire are integers in the unit of their name."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from banger.api.method import Effect, Kind, Nothing, Request, VmReference, declare, field
from banger.model.vm import VmRecord, VmState

Natural = Annotated[int, Meta(ge=0)]
Cells = Annotated[int, Meta(ge=1, le=65535)]
PublishedPort = Annotated[
    str, field("[IP:]HOST:GUEST[/udp], on loopback unless IP says otherwise", positional=True, metavar="PORT")
]
Deadline = Annotated[float, Meta(ge=0, le=86400)]
TtlSeconds = Annotated[float, Meta(ge=1, le=315360000)]
_TTL = "how long it may run, for example 2h: then it is stopped, or deleted if it was to be temporary"


class VmSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `vm list`."""

    id: str
    name: str
    state: VmState
    image: str
    vcpus: int
    memory_mib: int
    address: str
    backend: str
    created_at: str


class VmSummaries(msgspec.Struct, frozen=True, kw_only=True):
    vms: list[VmSummary]


class SshTarget(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a VM's sshd: everything that an OpenSSH command line needs."""

    host: str
    port: int
    user: str
    identity_file: str
    known_hosts_file: str
    host_key_alias: str


class DiskUse(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the host's disk that only this VM uses."""

    root_bytes: int
    work_bytes: int


class Posture(msgspec.Struct, frozen=True, kw_only=True):
    """What a VM runs on, and why: never silently weaker. `jail` says what keeps its VMM from the host, or why nothing
    does."""

    backend: str
    backend_reason: str = ""
    accelerator: str
    accelerator_reason: str
    network_mode: str
    network_reason: str
    storage_driver: str
    memory_backing: str
    jail: str = ""


class VmDetails(msgspec.Struct, frozen=True, kw_only=True):
    vm: VmRecord
    posture: Posture
    disk_use: DiskUse
    directory: str
    ssh: SshTarget | None = None
    ttl_left_s: float | None = None


class LogText(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    text: str
    truncated: bool


class PruneVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why one VM goes, or stays, and what it frees if it goes. `failed`: it was to go, and could not be removed."""

    id: str
    name: str
    goes: bool
    why: str
    frees_bytes: int = 0
    failed: bool = False


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be; `verdicts` are about every VM there was."""

    vms: list[str]
    freed_bytes: int
    dry_run: bool
    verdicts: list[PruneVerdict] = []


@declare("vm.list")
class VmList(Request[VmSummaries]):
    """Lists VMs: the running ones, or all."""

    all: Annotated[bool, field("stopped VMs too", short="a")] = False
    labels: Annotated[
        dict[str, str], field("KEY=VALUE: only those with this label, repeatable", flag="label", short="l")
    ] = {}


@declare("vm.show")
class VmShow(Request[VmDetails]):
    """Everything known about one VM: specification and where each size came from, state, timings, SSH."""

    vm: VmReference


@declare("vm.create", effect=Effect.CHANGE, kind=Kind.OPERATION)
class VmCreate(Request[VmDetails]):
    """Creates a VM, obtaining kernel and image when they are missing, and starts it unless told not to."""

    name: Annotated[str | None, field("a DNS label; generated when absent", short="n")] = None
    image: Annotated[str | None, field("image to boot; default: the configured one")] = None
    kernel: Annotated[str | None, field("kernel to boot; default the image's own choice")] = None
    vcpus: Annotated[int | None, field("number of virtual CPUs", flag="vcpu", metavar="N")] = None
    memory_mib: Annotated[
        int | None, field("memory, for example 2G", flag="memory", unit="mib", short="m")
    ] = None
    disk_size_bytes: Annotated[
        int | None, field("size of the work disk at /root", flag="disk-size", unit="bytes")
    ] = None
    system_overlay_size_bytes: Annotated[
        int | None, field("size of the root disk", flag="system-overlay-size", unit="bytes")
    ] = None
    nat: Annotated[bool, field("let the guest reach the network outside")] = False
    publish: Annotated[
        list[str],
        field(
            "[IP:]HOST:GUEST[/udp]: lead a port of this host to the guest; repeatable",
            short="p",
            metavar="PORT",
        ),
    ] = []
    labels: Annotated[dict[str, str], field("KEY=VALUE, repeatable", flag="label", short="l")] = {}
    start: Annotated[bool, field("start it as well", hidden=True)] = True
    ttl_s: Annotated[TtlSeconds | None, field(_TTL, flag="ttl", unit="seconds")] = None
    ephemeral: Annotated[bool, field("delete it when its first command ends", hidden=True)] = False
    wait_ssh: Annotated[bool, field("wait until sshd listens, too", flag="wait-ssh")] = False
    wait_opencode: Annotated[bool, field("wait until opencode listens, too", flag="wait-opencode")] = False


@declare("vm.start", effect=Effect.CHANGE, kind=Kind.OPERATION)
class VmStart(Request[VmDetails]):
    """Boots a stopped VM and waits for its agent."""

    vm: VmReference
    ttl_s: Annotated[TtlSeconds | None, field(_TTL, flag="ttl", unit="seconds")] = None
    wait_ssh: Annotated[bool, field("wait until sshd listens, too", flag="wait-ssh")] = False
    wait_opencode: Annotated[bool, field("wait until opencode listens, too", flag="wait-opencode")] = False


@declare("vm.stop", effect=Effect.CHANGE, kind=Kind.OPERATION)
class VmStop(Request[VmDetails]):
    """Asks the guest to sync and power off; kills it at the deadline."""

    vm: VmReference
    timeout_s: Annotated[
        Deadline, field("deadline before the VM is killed", flag="timeout", unit="seconds")
    ] = 30.0
    reason: Annotated[Annotated[str, Meta(max_length=200)], field("why, for vm show", hidden=True)] = ""


@declare("vm.restart", effect=Effect.CHANGE, kind=Kind.OPERATION)
class VmRestart(Request[VmDetails]):
    """Stops and starts a VM."""

    vm: VmReference
    timeout_s: Annotated[
        Deadline, field("deadline before the VM is killed", flag="timeout", unit="seconds")
    ] = 30.0


@declare("vm.kill", effect=Effect.DESTROY, kind=Kind.OPERATION)
class VmKill(Request[VmDetails]):
    """Ends a VM at once, like pulling the plug."""

    vm: VmReference


@declare("vm.delete", effect=Effect.DESTROY, kind=Kind.OPERATION)
class VmDelete(Request[Nothing]):
    """Deletes a stopped VM and its disks."""

    vm: VmReference
    force: Annotated[bool, field("a running VM too", short="f")] = False


@declare("vm.set", effect=Effect.CHANGE)
class VmSet(Request[VmDetails]):
    """Changes a VM: labels, time to live and, where it is on the bridge, NAT at once; its sizes while it is stopped."""

    vm: VmReference
    nat: Annotated[bool | None, field("let the guest reach the network outside", negatable=True)] = None
    vcpus: Annotated[int | None, field("number of virtual CPUs", flag="vcpu", metavar="N")] = None
    memory_mib: Annotated[
        int | None, field("memory, for example 2G", flag="memory", unit="mib", short="m")
    ] = None
    disk_size_bytes: Annotated[
        int | None, field("size of the work disk at /root; it only grows", flag="disk-size", unit="bytes")
    ] = None
    ttl_s: Annotated[
        TtlSeconds | None,
        field("how long it may run from now on, for example 4h", flag="ttl", unit="seconds"),
    ] = None
    no_ttl: Annotated[bool, field("let it run for as long as it likes", flag="no-ttl")] = False
    labels: Annotated[dict[str, str], field("KEY=VALUE, repeatable", flag="label", short="l")] = {}
    unlabel: Annotated[
        list[str], field("take the label KEY away, repeatable", flag="unlabel", metavar="KEY")
    ] = []


@declare("vm.rename", effect=Effect.CHANGE)
class VmRename(Request[VmDetails]):
    """Gives a VM another name: at once for banger and where names resolve, in the guest at its next start."""

    vm: VmReference
    name: Annotated[str, field("the new name, a DNS label", positional=True, metavar="NAME")]


@declare("vm.publish", effect=Effect.CHANGE)
class VmPublish(Request[VmDetails]):
    """Leads a port of this host to a running VM, from now on and at its next starts."""

    vm: VmReference
    port: PublishedPort


@declare("vm.unpublish", effect=Effect.CHANGE)
class VmUnpublish(Request[VmDetails]):
    """Takes a published port back."""

    vm: VmReference
    port: PublishedPort


@declare("vm.prune", effect=Effect.DESTROY)
class VmPrune(Request[Pruned]):
    """Deletes all VMs that are not running, or those of them that the filters name."""

    dry_run: Annotated[bool, field("only tell what would go, and why", flag="dry-run")] = False
    labels: Annotated[
        dict[str, str],
        field("KEY=VALUE: only those with this label, repeatable", flag="label", short="l"),
    ] = {}
    older_than_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        field(
            "only those that nobody has used for so long, for example 7d", flag="older-than", unit="seconds"
        ),
    ] = None


@declare("vm.ssh")
class VmSsh(Request[SshTarget]):
    """Where a VM's sshd is reached; waits until it listens."""

    vm: VmReference
    timeout_s: Annotated[Deadline, field("how long to wait for sshd", flag="timeout", unit="seconds")] = 60.0


@declare("vm.logs")
class VmLogs(Request[LogText]):
    """The serial console of the guest, the words of its VMM, or those of the last installation of tools."""

    vm: VmReference
    source: Annotated[
        Literal["serial", "vmm", "tooling"],
        field("serial, vmm or tooling", choices=["serial", "vmm", "tooling"]),
    ] = "serial"
    tail_lines: Annotated[
        Natural | None, field("only the last N lines", flag="tail", short="n", metavar="N")
    ] = None


@declare("vm.exec", effect=Effect.CHANGE, kind=Kind.STREAM)
class VmExec(Request[Nothing]):
    """Runs a command in the guest. The connection turns into a stream of frames (see the protocol's reference)."""

    vm: VmReference
    argv: Annotated[list[str], field("the command", positional=True, metavar="CMD")]
    env: Annotated[list[str], field("KEY=VALUE, repeatable", short="e")] = []
    cwd: Annotated[
        str | None,
        field("working directory; default the workspace, or the user's home", flag="workdir", short="w"),
    ] = None
    guest_path: Annotated[
        str | None,
        field("run here as in the workspace, with its tools", flag="guest-path", metavar="PATH"),
    ] = None
    user: Annotated[str | None, field("user name or uid[:gid]; default root", short="u")] = None
    pty: Annotated[bool, field("allocate a terminal", flag="tty", short="t")] = False
    stdin: Annotated[bool, field("keep stdin open", flag="interactive", short="i")] = False
    rows: Annotated[Cells | None, field("terminal height", hidden=True)] = None
    columns: Annotated[Cells | None, field("terminal width", hidden=True)] = None
    delete_after: Annotated[bool, field("delete the VM when the command ends", hidden=True)] = False
