"""The service of workspaces before a guest without a machine: its git runs on this host, at real paths.

What goes is held against plain git: what it says that the host's repository tracks.
"""

import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from tests.support.repositories import Case, Tree, perform, read_paths, run_git
from tests.support.workspace_guest import open_agent

from banger.api.workspaces import (
    Prepared,
    WorkspacePlan,
    WorkspacePlanning,
    WorkspacePrepare,
    WorkspaceState,
    WorkspaceStatus,
)
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.guest.fake import FakeGuest
from banger.model.vm import VmRecord, VmState
from banger.model.workspace import Workspace
from banger.services.workspaces.service import WorkspaceService


class Rows:
    """The store's rows of workspaces, in memory."""

    def __init__(self) -> None:
        self._rows: dict[str, Workspace] = {}

    def save(self, workspace: Workspace) -> None:
        self._rows[workspace.vm_id] = workspace

    def find(self, vm_id: str) -> Workspace | None:
        return self._rows.get(vm_id)

    def list(self) -> list[Workspace]:
        return [*self._rows.values()]

    def delete(self, vm_id: str) -> None:
        self._rows.pop(vm_id, None)


class Vms:
    """One VM that runs."""

    def __init__(self, agent: Agent, vm: Any) -> None:
        self.agent = agent
        self.vm = vm

    def resolve(self, untrusted_reference: str) -> VmRecord:
        return self.vm

    def get_agent(self, vm: VmRecord) -> Agent:
        return self.agent

    def on_agent(self, met: Callable[[str, Agent], None]) -> None:
        self.met = met

    def using(self, vm_id: str) -> AbstractContextManager[None]:
        return nullcontext()


class RunningVm:
    id, name, state, removing = "1" * 12, "web", VmState.RUNNING, False


class Preparing:
    """`inside` is the guest's working tree, `outside` a directory that holds everything."""

    def __init__(self, outside: Path, vms: Vms) -> None:
        self.outside = outside
        self.inside = outside / "guest" / "repo"
        self.vms = vms
        self.rows = Rows()
        self.scratch = outside / "scratch"
        self.tasks = Supervisor()
        self.service = WorkspaceService(vms, self.rows, self.scratch, self.tasks)

    async def prepare(self, path: Path | None = None, **options: Any) -> Prepared:
        if path is not None:
            options |= {"path": str(path)}
            options.setdefault("guest_path", str(self.inside))
        return await self.service.prepare(WorkspacePrepare(vm="web", **options), Silent())

    async def plan(self, path: Path, **options: Any) -> WorkspacePlan:
        return await self.service.plan(WorkspacePlanning(path=str(path), **options))

    async def status(self) -> WorkspaceState:
        return await self.service.status(WorkspaceStatus(vm="web"))


@asynccontextmanager
async def open_preparing(outside: Path) -> AsyncIterator[Preparing]:
    async with open_agent(FakeGuest(Path("/"))) as agent:
        yield Preparing(outside, Vms(agent, RunningVm()))


def read_tracked(tree: Path) -> Tree:
    """What git tracks in a working tree, as it is there."""
    names = run_git(tree, "-c", "core.fsmonitor=false", "ls-files", "-z", "--cached").split(b"\0")
    return {name: found for name, found in read_paths(tree, names).items() if found[0] != "nested"}


def read_all(tree: Path) -> Tree:
    """Every file below a directory, but for git's own."""
    found: Tree = {}
    for directory, names, files in os.walk(os.fsencode(tree)):
        names[:] = [name for name in names if name != b".git"]
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in (*files, *links):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, os.fsencode(tree))] = _read(path)
    return found


def _read(path: bytes) -> tuple[str, bytes]:
    state = os.lstat(path)
    if stat.S_ISLNK(state.st_mode):
        return "link", os.readlink(path)
    with open(path, "rb") as file:
        return ("program" if state.st_mode & 0o100 else "file"), file.read()


def list_objects(tree: Path) -> set[str]:
    """Everything that a repository holds, reachable or not."""
    asked = ("cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    return set(run_git(tree, *asked).decode().split())


def fingerprint(tree: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything about every file of the host's repository, git's own included, by which a write would show."""
    found = {}
    for directory, names, files in os.walk(tree):
        for name in (*names, *files):
            path = Path(directory) / name
            state = path.lstat()
            is_file = stat.S_ISREG(state.st_mode)
            found[str(path)] = (
                state.st_mode,
                state.st_mtime_ns,
                state.st_ctime_ns,
                path.read_bytes() if is_file else b"",
            )
    return found


def require_same(preparing: Preparing, host: Path) -> None:
    """The guest has the host's working tree byte for byte, its commit, and git finds nothing wrong."""
    inside = preparing.inside
    assert read_all(inside) == read_tracked(host)
    has_commit = run_git(host, "rev-parse", "-q", "--verify", "HEAD", check=False)
    if has_commit:
        assert run_git(inside, "rev-parse", "HEAD") == has_commit
        assert run_git(inside, "diff", "--cached", "--name-only") == b""
    run_git(inside, "fsck", "--strict", "--no-dangling")


def has_anything_to_bring(host: Path) -> bool:
    """A commit, or at least one file that is staged and there: without either there is nothing to bring."""
    return bool(run_git(host, "rev-parse", "-q", "--verify", "HEAD", check=False)) or bool(read_tracked(host))


async def check_round(preparing: Preparing, case: Case) -> None:
    """Brings it, changes it, and brings it again."""
    host = case.build(preparing.outside / "case")
    if not has_anything_to_bring(host) or b"160000 " in run_git(host, "ls-files", "-s"):
        return
    before = fingerprint(host)
    await preparing.prepare(host)
    require_same(preparing, host)
    assert fingerprint(host) == before
    perform(host, case.change)
    if not has_anything_to_bring(host):
        return
    await preparing.prepare(host)
    require_same(preparing, host)
    assert (await preparing.status()).guest_changes == []
