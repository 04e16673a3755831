"""Methods on workspaces: repositories of the host's that were brought into VMs."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from banger.api.method import Effect, Kind, Nothing, Request, VmReference, declare, field
from banger.model.returned import Returned
from banger.model.workspace import Workspace, WorkspaceMode

Depth = Annotated[int, Meta(ge=1, le=1_000_000)]
RepositoryPath = Annotated[
    str | None,
    field(
        "a directory in a git repository on the host; default: the one that the VM has, if it has one",
        positional=True,
        metavar="PATH",
    ),
]
MaxSize = Annotated[int, Meta(ge=1 << 20, le=1 << 50)]
_MAX_SIZE = "take no more than this from the guest; default 1G"
_FULL = "the branch's whole history and the submodules too; otherwise only its newest commit"
_DEPTH = "so many of the newest commits instead of one"
_UNTRACKED = "files that git does not track and does not ignore, too"
_INCLUDE = "this file or directory too, whether git tracks or ignores it; repeatable"
_BRANCH = "the branch in the guest; default the host's"
_FROM = "begin at this commit of the host's, without changes that are not committed"
_GUEST_PATH = "where it goes in the guest; default /root/ and the directory's name"


class WorkspaceFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file that differs from the commit that goes: `path` as shown (odd bytes escaped)."""

    path: str
    change: Literal["added", "modified", "deleted", "type"]
    size_bytes: int = 0
    mode: str = ""
    untracked: bool = False


class WorkspacePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into a guest, exactly. `transfer_bytes` is what is sent, compressed, 0 where nobody measured;
    `stays_home` are names of files that git does not track; `guest_work` is what would be lost."""

    host_root: str
    subdirectory: str
    guest_path: str
    mode: WorkspaceMode
    branch: str
    detached: bool
    commit: str
    commits: int
    objects: int
    transfer_bytes: int
    files: list[WorkspaceFile]
    stays_home: list[str]
    submodules: list[str]
    origin: str
    identity: str
    up_to_date: bool = False
    guest_work: list[str] = []
    warnings: list[str] = []


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace as it is now in the guest. `changed` is False when everything was there already."""

    workspace: Workspace
    changed: bool
    commits: int
    files: int
    sent_bytes: int
    took_ms: int
    warnings: list[str] = []


class WorkspaceState(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a workspace. `host_commit` is the host's HEAD today, empty where it cannot be read, and
    `host_differs` whether a prepare would bring anything; `guest_commit` is the guest's; `guest_changes` are paths
    that differ from what was brought, as shown."""

    vm: str
    workspace: Workspace
    host_commit: str = ""
    host_moved: bool = False
    host_changed_files: int = 0
    host_differs: bool = False
    guest_commit: str = ""
    guest_branch: str = ""
    guest_changes: list[str] = []
    guest_commits: int = 0
    reachable: bool = True
    note: str = ""


@declare("workspace.plan")
class WorkspacePlanning(Request[WorkspacePlan]):
    """What would go into a guest, exactly, without anything going."""

    path: RepositoryPath = None
    vm: Annotated[str | None, field("a running VM: only what it lacks", metavar="VM")] = None
    full: Annotated[bool, field(_FULL)] = False
    depth: Annotated[Depth | None, field(_DEPTH, metavar="N")] = None
    untracked: Annotated[bool, field(_UNTRACKED)] = False
    include: Annotated[list[str], field(_INCLUDE, metavar="FILE")] = []
    branch: Annotated[str | None, field(_BRANCH, metavar="NAME")] = None
    commit: Annotated[str | None, field(_FROM, flag="from", metavar="COMMIT")] = None
    guest_path: Annotated[str | None, field(_GUEST_PATH, flag="guest-path", metavar="PATH")] = None
    measure: Annotated[bool, field("pack everything to count the bytes", hidden=True)] = True


@declare("workspace.prepare", effect=Effect.CHANGE, kind=Kind.OPERATION)
class WorkspacePrepare(Request[Prepared]):
    """Brings a repository into a running VM, or brings what is there up to date."""

    vm: VmReference
    path: RepositoryPath = None
    full: Annotated[bool, field(_FULL)] = False
    depth: Annotated[Depth | None, field(_DEPTH, metavar="N")] = None
    untracked: Annotated[bool, field(_UNTRACKED)] = False
    include: Annotated[list[str], field(_INCLUDE, metavar="FILE")] = []
    branch: Annotated[str | None, field(_BRANCH, metavar="NAME")] = None
    commit: Annotated[str | None, field(_FROM, flag="from", metavar="COMMIT")] = None
    guest_path: Annotated[str | None, field(_GUEST_PATH, flag="guest-path", metavar="PATH")] = None
    read_only: Annotated[bool, field("nothing in the guest can change it", flag="read-only")] = False
    force: Annotated[bool, field("even where that throws away work of the guest's", short="f")] = False


@declare("workspace.status")
class WorkspaceStatus(Request[WorkspaceState]):
    """What a VM's workspace came from, and what has changed since on both sides."""

    vm: VmReference
    quick: Annotated[bool, field("only whether the host has another commit checked out", hidden=True)] = False


@declare("workspace.export", kind=Kind.STREAM)
class WorkspaceExport(Request[Nothing]):
    """Writes what the guest has changed as a patch for `git apply`, or its commits for `git am`, to stdout."""

    vm: VmReference
    base_commit: Annotated[
        str | None,
        field(
            "against this commit of the guest's instead of what was prepared",
            flag="base-commit",
            metavar="COMMIT",
        ),
    ] = None
    commits: Annotated[bool, field("the guest's commits, as mail for git am")] = False
    max_size_bytes: Annotated[MaxSize | None, field(_MAX_SIZE, flag="max-size", unit="bytes")] = None


@declare("workspace.diff", kind=Kind.STREAM)
class WorkspaceDiff(Request[Nothing]):
    """Shows what the guest has changed since its workspace was prepared, committed or not."""

    vm: VmReference
    stat: Annotated[bool, field("only how much of which file")] = False
    name_only: Annotated[bool, field("only the names of the files", flag="name-only")] = False


@declare("workspace.pull", effect=Effect.CHANGE, kind=Kind.OPERATION)
class WorkspacePull(Request[Returned]):
    """Brings the guest's commits to the host's repository, as refs below refs/banger/VM/, and says what is in them.

    Nothing is checked out, merged or run."""

    vm: VmReference
    branches: Annotated[
        list[str],
        field("only this branch of the guest's; repeatable", flag="branch", short="b", metavar="NAME"),
    ] = []
    force: Annotated[bool, field("even where the guest has rewritten what was pulled before", short="f")] = (
        False
    )
    max_size_bytes: Annotated[MaxSize | None, field(_MAX_SIZE, flag="max-size", unit="bytes")] = None
