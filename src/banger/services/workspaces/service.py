"""The use cases of workspaces on their way in: plan, prepare, status.

Owns one lock for each VM: two prepares of the same VM follow one another. The row is written when the guest has
everything. The owner's repository is read and never written.
"""

import asyncio
import hashlib
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from posixpath import normpath
from typing import Any, NamedTuple

import msgspec

from banger.api.workspaces import (
    Prepared,
    WorkspacePlan,
    WorkspacePlanning,
    WorkspacePrepare,
    WorkspaceState,
    WorkspaceStatus,
)
from banger.base.clock import monotonic, utc_now
from banger.base.problem import Problem, bad_request, conflict, not_found
from banger.base.progress import Progress, name_object, stage
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.model.returned import show_path
from banger.model.vm import VmRecord, require_running
from banger.model.workspace import Wanted, Workspace, pick_guest_path
from banger.services.workspaces import guest
from banger.services.workspaces.contract import WatchedVms
from banger.services.workspaces.describe import describe_plan
from banger.services.workspaces.git import GitPlace
from banger.services.workspaces.inspect import Repository, find_commit, inspect
from banger.services.workspaces.plan import Staged, stage_repository
from banger.services.workspaces.prepare import Order, list_losses, plan_alone, plan_steps, send
from banger.services.workspaces.shell import STALL_S, Shell
from banger.services.workspaces.snapshot import record_base
from banger.store.contract import WorkspaceRepository


class _Asked(NamedTuple):
    """A request with what the row remembers."""

    path: str
    wanted: Wanted
    guest_path: str | None
    known_include: tuple[str, ...]


class WorkspaceService:
    def __init__(
        self,
        vms: WatchedVms,
        rows: WorkspaceRepository,
        scratch: Path,
        tasks: Supervisor,
        *,
        stall_s: float = STALL_S,
    ) -> None:
        """`scratch` is a directory of ours on a real disk, for what is staged; `stall_s` is how long a guest may say
        nothing."""
        self._vms = vms
        self._rows = rows
        self._scratch = scratch
        self._tasks = tasks
        self._stall_s = stall_s
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def open(self) -> None:
        """Removes what a daemon that died has left behind. From now on workspaces that are read-only are so again when
        their guest has booted."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._vms.on_agent(self._meet)

    def _meet(self, vm_id: str, agent: Agent) -> None:
        row = self._rows.find(vm_id)
        if row is not None and row.read_only:
            self._tasks.start(self._lock_again(vm_id, agent), name=f"lock the workspace of {vm_id}")

    async def _lock_again(self, vm_id: str, agent: Agent) -> None:
        async with self._locks[vm_id]:
            row = self._rows.find(vm_id)
            if row is not None and row.read_only:
                await guest.lock(Shell(agent, vm_id, self._stall_s), row.guest_path)

    def subject(self, request: Any) -> str:
        """Raises `not_found`, `ambiguous`."""
        return self._vms.resolve(request.vm).name

    async def plan(self, request: WorkspacePlanning) -> WorkspacePlan:
        vm = require_running(self._vms.resolve(request.vm)) if request.vm is not None else None
        row = self._rows.find(vm.id) if vm is not None else None
        asked = _settle(request, row)
        repository = await inspect(asked.path)
        wanted = _below_root(asked, repository)
        guest_path = pick_guest_path(repository.root.name, asked.guest_path)
        async with AsyncExitStack() as stack:
            staged = await stage_repository(stack, self._scratch, repository, wanted)
            if vm is None:
                steps = await plan_alone(staged, guest_path)
            else:
                async with self._locks[vm.id]:
                    steps = await plan_steps(self._order(vm, row, staged, guest_path, force=True), staged)
            return await describe_plan(staged, steps, wanted, guest_path, measure=request.measure)

    async def prepare(self, request: WorkspacePrepare, progress: Progress) -> Prepared:
        vm = require_running(self._vms.resolve(request.vm))
        name_object(progress, vm.id, vm.name)
        async with self._locks[vm.id], AsyncExitStack() as stack:
            stack.enter_context(self._vms.using(vm.id))
            return await self._prepare(vm, request, progress, stack)

    async def _prepare(
        self, vm: VmRecord, request: WorkspacePrepare, progress: Progress, stack: AsyncExitStack
    ) -> Prepared:
        began = monotonic()
        row = self._rows.find(vm.id)
        asked = _settle(request, row)
        with stage(progress, "read repository"):
            repository = await inspect(asked.path)
            wanted = _below_root(asked, repository)
            guest_path = pick_guest_path(repository.root.name, asked.guest_path)
            staged = await stage_repository(stack, self._scratch, repository, wanted)
        order = self._order(vm, row, staged, guest_path, force=request.force)
        with stage(progress, "look into the guest"):
            steps = await plan_steps(order, staged)
        losses = list_losses(steps)
        if row is not None and row.guest_path != guest_path:
            losses += await _list_left(order.shell, row)
        if losses and not request.force:
            raise conflict(f"{vm.name} has work that would be lost: {losses[0]}", hint=_hint_return(vm.name))
        async with _writable(order.shell, row):
            sent = await send(order, steps, _render_identity(repository), progress)
            workspace = _render_row(vm, repository, staged, wanted, order, row)
            if staged.is_plain:
                workspace = msgspec.structs.replace(workspace, base_tree=staged.tree)
            elif sent.changed or not workspace.base_tree:
                with stage(progress, "remember"):
                    tree = await record_base(order.shell, workspace)
                workspace = msgspec.structs.replace(workspace, base_tree=tree)
            if request.read_only:
                await guest.lock(order.shell, guest_path)
                workspace = msgspec.structs.replace(workspace, read_only=True)
        workspace = _keep_tools(workspace, self._rows.find(vm.id))
        self._rows.save(workspace)
        thrown = [f"thrown away: {loss}" for loss in losses]
        return Prepared(
            workspace=workspace,
            changed=sent.changed,
            commits=sent.commits,
            files=len(staged.overlay.changes),
            sent_bytes=sent.sent_bytes,
            took_ms=round((monotonic() - began) * 1000),
            warnings=[*thrown, *(warning for each in staged.all for warning in each.warnings)],
        )

    async def status(self, request: WorkspaceStatus) -> WorkspaceState:
        vm = self._vms.resolve(request.vm)
        row = self._rows.find(vm.id)
        if row is None:
            raise not_found(f"{vm.name} has no workspace", hint=f"banger workspace prepare {vm.name} ./repo")
        state = WorkspaceState(vm=vm.name, workspace=row, reachable=False)
        if request.quick:
            head = await find_commit(GitPlace(Path(row.host_root)), "HEAD") or ""
            return msgspec.structs.replace(
                state, host_commit=head, host_moved=head not in ("", row.head_commit)
            )
        state = await self._add_guest(vm, row, state)
        return await self._add_host(row, state)

    async def _add_guest(self, vm: VmRecord, row: Workspace, state: WorkspaceState) -> WorkspaceState:
        """Looking takes the lock of the guest's index, and removes one that nobody holds: never beside a prepare."""
        if self._locks[vm.id].locked():
            return msgspec.structs.replace(state, note="it is being prepared")
        try:
            shell = self._open_shell(require_running(vm))
            async with self._locks[vm.id]:
                seen = await guest.look(shell, row.guest_path, row.branch)
                new = await guest.list_new(shell, row.guest_path) if seen.kind == "ours" else []
        except Problem as problem:
            hint = f" ({problem.hint})" if problem.hint else ""
            return msgspec.structs.replace(state, note=f"{problem.brief}{hint}")
        if seen.kind != "ours":
            return msgspec.structs.replace(state, note=f"{row.guest_path} is no workspace any more")
        return msgspec.structs.replace(
            state,
            reachable=True,
            guest_commit=seen.head,
            guest_branch=seen.branch,
            guest_changes=await asyncio.to_thread(_show_changes, {*seen.work, *new}),
            guest_commits=len(seen.commits),
            note="a prepare was interrupted: prepare again" if seen.is_interrupted else "",
        )

    async def _add_host(self, row: Workspace, state: WorkspaceState) -> WorkspaceState:
        try:
            repository = await inspect(row.host_root)
            async with AsyncExitStack() as stack:
                staged = await stage_repository(stack, self._scratch, repository, _recall(row))
        except Problem as problem:
            note = "; ".join(each for each in (state.note, problem.brief) if each)
            return msgspec.structs.replace(state, note=note)
        return msgspec.structs.replace(
            state,
            host_commit=repository.head,
            host_moved=repository.head != row.head_commit,
            host_changed_files=len(staged.overlay.changes),
            host_differs=_digest(staged) != row.overlay_digest,
        )

    def _order(
        self, vm: VmRecord, row: Workspace | None, staged: Staged, guest_path: str, *, force: bool
    ) -> Order:
        is_settled = row is not None and row.branch == staged.branch and row.guest_path == guest_path
        source = _name_source(staged.repository)
        return Order(self._open_shell(vm), guest_path, source, is_settled, force)

    def _open_shell(self, vm: VmRecord) -> Shell:
        return Shell(self._vms.get_agent(vm), vm.name, self._stall_s)


def _show_changes(paths: set[bytes]) -> list[str]:
    """As many as a guest likes: not for the loop's thread."""
    return [show_path(path) for path in sorted(paths)]


@asynccontextmanager
async def _writable(shell: Shell, row: Workspace | None) -> AsyncIterator[None]:
    """One that is read-only is written to meanwhile, and is as it was when that fails."""
    if row is None or not row.read_only:
        yield
        return
    await guest.unlock(shell, row.guest_path)
    try:
        yield
    except BaseException:
        with suppress(Problem):
            await guest.lock(shell, row.guest_path)
        raise


async def _list_left(shell: Shell, row: Workspace) -> list[str]:
    """Work in the place that the VM's workspace leaves: export and pull would not find it there any more."""
    seen = await guest.look(shell, row.guest_path, row.branch)
    if seen.kind != "ours" or not (seen.work or seen.commits):
        return []
    return [f"{row.guest_path} has changes, and commands would begin elsewhere"]


def _hint_return(name: str) -> str:
    return (
        f"banger workspace export {name} -o work.patch, for commits: banger workspace pull {name}; or --force"
    )


def _keep_tools(workspace: Workspace, now: Workspace | None) -> Workspace:
    """Tools that were found for the same place stay known, also those that were installed meanwhile."""
    if now is None or now.guest_path != workspace.guest_path:
        return workspace
    return msgspec.structs.replace(workspace, environment=now.environment)


def _settle(request: WorkspacePlanning | WorkspacePrepare, row: Workspace | None) -> _Asked:
    """Without a path everything is as it was asked for before, apart from what is asked for now."""
    if request.full and request.depth is not None:
        raise bad_request("--full and --depth contradict each other", hint="leave one of them out")
    wanted = Wanted(
        mode="full" if request.full else "shallow",
        depth=request.depth or 1,
        untracked=request.untracked,
        include=tuple(request.include),
        branch=request.branch,
        commit=request.commit,
    )
    if request.path is not None:
        return _Asked(request.path, wanted, request.guest_path, ())
    if row is None:
        raise bad_request(
            "no repository is named, and the VM has none yet",
            hint=f"banger workspace prepare {request.vm} ./repo",
        )
    before = _recall(row)
    wanted = wanted._replace(
        mode="shallow" if request.depth else "full" if request.full else before.mode,
        depth=request.depth or before.depth,
        untracked=request.untracked or before.untracked,
        branch=request.branch or before.branch,
        commit=request.commit or before.commit,
    )
    path = f"{row.host_root}/{row.subdirectory}".rstrip("/")
    return _Asked(path, wanted, request.guest_path or row.guest_path, before.include)


def _recall(row: Workspace) -> Wanted:
    return Wanted(
        row.mode, row.depth, row.untracked, row.include, row.chosen_branch or None, row.begins_at or None
    )


def _below_root(asked: _Asked, repository: Repository) -> Wanted:
    """Names are given as seen from the directory that was named."""
    prefix = f"{repository.prefix}/" if repository.prefix else ""
    named = [normpath(prefix + name) if name else name for name in asked.wanted.include]
    return asked.wanted._replace(include=tuple(dict.fromkeys((*asked.known_include, *named))))


def _name_source(repository: Repository) -> str:
    """What a guest is told of where its workspace is from: enough to know it again, and no more."""
    return hashlib.sha256(str(repository.root).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _digest(staged: Staged) -> str:
    """One name for everything that goes."""
    if not staged.below:
        return staged.snapshot
    every = b"".join(each.path + b"\0" + each.snapshot.encode() + b"\0" for each in staged.all)
    return hashlib.sha256(every).hexdigest()


def _render_identity(repository: Repository) -> dict[str, str]:
    name, email = repository.identity
    return {key: value for key, value in (("user.name", name), ("user.email", email)) if value}


def _render_row(
    vm: VmRecord,
    repository: Repository,
    staged: Staged,
    wanted: Wanted,
    order: Order,
    before: Workspace | None,
) -> Workspace:
    kept = before if before is not None and before.guest_path == order.guest_path else None
    return Workspace(
        vm_id=vm.id,
        host_root=str(repository.root),
        guest_path=order.guest_path,
        mode=wanted.mode,
        subdirectory=repository.prefix,
        branch=staged.branch,
        chosen_branch=wanted.branch or "",
        head_commit=repository.head,
        base_commit=staged.base,
        base_tree=kept.base_tree if kept is not None else "",
        overlay_digest=_digest(staged),
        depth=wanted.depth,
        untracked=wanted.untracked,
        include=wanted.include,
        begins_at=wanted.commit or "",
        prepared_at=utc_now(),
    )
