"""The use cases of workspaces on their way out: export, diff and pull.

Owns the directory of quarantines. Whatever comes is the guest's word; only a pull changes something on the host, and
only refs below `refs/banger` and the objects that they need.
"""

from pathlib import Path
from typing import Any

from banger.api.workspaces import WorkspaceDiff, WorkspaceExport, WorkspacePull
from banger.base.problem import not_found
from banger.base.progress import Progress, name_object
from banger.guest.command import ExecRequest
from banger.model.returned import Returned
from banger.model.vm import VmRecord, require_running
from banger.model.workspace import Workspace
from banger.services.contract import CommandStream
from banger.services.workspaces.contract import Vms
from banger.services.workspaces.export import Bounds, plan_diff, plan_export, relay
from banger.services.workspaces.limited import Limits
from banger.services.workspaces.pull import Order, pull
from banger.services.workspaces.quarantine import sweep
from banger.services.workspaces.shell import STALL_S
from banger.store.contract import WorkspaceRepository


class OutgoingService:
    def __init__(
        self, vms: Vms, rows: WorkspaceRepository, quarantine: Path, *, stall_s: float = STALL_S
    ) -> None:
        """`stall_s` is how long a guest may say nothing."""
        self._vms = vms
        self._rows = rows
        self._quarantine = quarantine
        self._stall_s = stall_s

    def sweep(self) -> None:
        """What a daemon that died has left. Blocks."""
        sweep(self._quarantine)

    def subject(self, request: Any) -> str:
        """Raises `not_found`, `ambiguous`."""
        return self._vms.resolve(request.vm).name

    async def export(self, request: WorkspaceExport, stream: CommandStream) -> None:
        vm, workspace = self._find(request.vm)
        script = plan_export(workspace, request.base_commit, commits=request.commits)
        await self._relay(vm, workspace, script, request.max_size_bytes, stream)

    async def diff(self, request: WorkspaceDiff, stream: CommandStream) -> None:
        vm, workspace = self._find(request.vm)
        script = plan_diff(workspace, stat=request.stat, name_only=request.name_only)
        await self._relay(vm, workspace, script, None, stream)

    async def pull(self, request: WorkspacePull, progress: Progress) -> Returned:
        vm, workspace = self._find(request.vm)
        name_object(progress, vm.id, vm.name)
        limits = Limits(stall_s=self._stall_s)
        if request.max_size_bytes is not None:
            limits = limits.scaled(request.max_size_bytes)
        order = Order(vm.name, tuple(request.branches), request.force, limits)
        with self._vms.using(vm.id):
            agent = self._vms.get_agent(vm)
            return await pull(agent, workspace, order, self._quarantine, progress)

    async def _relay(
        self,
        vm: VmRecord,
        workspace: Workspace,
        script: ExecRequest,
        max_size_bytes: int | None,
        stream: CommandStream,
    ) -> None:
        bounds = Bounds(stall_s=self._stall_s, vm_name=vm.name)
        if max_size_bytes is not None:
            bounds = bounds._replace(size_bytes=max_size_bytes)
        with self._vms.using(vm.id):
            await relay(self._vms.get_agent(vm), workspace, script, stream, bounds)

    def _find(self, untrusted_reference: str) -> tuple[VmRecord, Workspace]:
        vm = self._vms.resolve(untrusted_reference)
        workspace = self._rows.find(vm.id)
        if workspace is None:
            raise not_found(f"{vm.name} has no workspace", hint=f"banger workspace prepare {vm.name} ./repo")
        return require_running(vm), workspace
