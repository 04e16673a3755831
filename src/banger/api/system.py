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
    """Shuts the daemon down. Running VMs are stopped first; after a crash the next daemon takes over those that run."""


@declare("daemon.ping")
class Ping(Request[Nothing]):
    """Answers."""


@declare("doctor.run")
class DoctorRun(Request[Findings]):
    """Looks at everything banger needs, changes nothing, and says how to get what is missing."""


@declare("operation.list")
class OperationList(Request[Operations]):
    """Lists operations, the newest first."""


@declare("operation.show")
class OperationShow(Request[Operation]):
    """One operation with its stages."""

    operation: OperationId


@declare("operation.watch", kind=Kind.OPERATION)
class OperationWatch(Request[Operation]):
    """Follows an operation until it ends; whoever watches may leave."""

    operation: OperationId


@declare("operation.cancel", effect=Effect.CHANGE)
class OperationCancel(Request[Operation]):
    """Cancels an operation and undoes what it did."""

    operation: OperationId


@declare("complete")
class Complete(Request[Completions]):
    """Names for shell completion: of VMs, images, kernels or operations."""

    what: Annotated[str, field("vm, image, kernel or operation", positional=True)]
