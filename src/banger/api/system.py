"""Methods on the daemon itself, on operations, and the doctor."""

from typing import Annotated

import msgspec

from banger.api.method import Effect, Kind, Nothing, Request, declare, field
from banger.model.operation import Operation

OperationId = Annotated[str, field("id of an operation", positional=True, metavar="OPERATION")]


class DaemonState(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    protocol: int
    pid: int
    uid: int
    started_at: str
    uptime_s: float
    socket: str
    log: str
    vms: int
    running: int
    operations: int
    rss_bytes: int


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What was not as the records say, in lines for people: VMs taken over, VMs whose VMM had gone, VMs removed to
    their end, objects of ours on the host that nobody owned, operations whose outcome is known now, and what could
    not be mended, each with the reason."""

    adopted: list[str] = []
    stopped: list[str] = []
    removed: list[str] = []
    swept: list[str] = []
    operations: list[str] = []
    left: list[str] = []


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found. `verdict` is pass, warn or fail."""

    check: str
    verdict: str
    text: str
    fix: str | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    findings: list[Finding]


class Operations(msgspec.Struct, frozen=True, kw_only=True):
    operations: list[Operation]


class Completions(msgspec.Struct, frozen=True, kw_only=True):
    words: list[str]


@declare("daemon.status")
class DaemonStatus(Request[DaemonState]):
    """Version, pid, uptime and load of the daemon."""


@declare("daemon.stop", effect=Effect.DESTROY)
class DaemonStop(Request[Nothing]):
    """Shuts the daemon down. Running VMs are stopped first, or run on and are taken over by the next daemon."""

    keep_vms: Annotated[bool, field("leave running VMs to the next daemon")] = False


@declare("daemon.reconcile", effect=Effect.CHANGE)
class DaemonReconcile(Request[Reconciled]):
    """Makes the host what the records say, as every start of the daemon does; VMs that run well are not touched."""


@declare("daemon.ping")
class Ping(Request[Nothing]):
    """Answers."""


@declare("doctor.run")
class DoctorRun(Request[Findings]):
    """Looks at everything banger needs, changes nothing, and says how to get what is missing."""


@declare("operation.list")
class OperationList(Request[Operations]):
    """Lists operations, the newest first, without their results. Kept are the newest 200 that have ended within 14
    days, what runs, and what has an unknown outcome."""

    running: Annotated[bool, field("only those that run")] = False
    all: Annotated[bool, field("every one that is kept", short="a")] = False
    of_kind: Annotated[
        str | None, field("only this method, for example vm.create", flag="kind", metavar="METHOD")
    ] = None
    subject: Annotated[str | None, field("only those on this VM, image or kernel", metavar="NAME")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000), field("at most so many", short="n", metavar="N")] = 50


@declare("operation.show")
class OperationShow(Request[Operation]):
    """One operation with its stages, its result or its error."""

    operation: OperationId


@declare("operation.watch", kind=Kind.OPERATION)
class OperationWatch(Request[Operation]):
    """Follows an operation until it ends; whoever watches may leave."""

    operation: OperationId


@declare("operation.cancel", effect=Effect.CHANGE)
class OperationCancel(Request[Operation]):
    """Cancels an operation and undoes what it did. Returns at once; the undo can be watched, or waited for."""

    operation: OperationId
    wait: Annotated[bool, field("until all is undone")] = False


@declare("complete")
class Complete(Request[Completions]):
    """Names for shell completion: of VMs, images, kernels or operations."""

    what: Annotated[str, field("vm, image, kernel or operation", positional=True)]
