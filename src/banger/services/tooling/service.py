"""The tools of workspaces: the handlers of `tooling.*`.

Owns the installation in one VM at a time. What is in a guest is told by the guest: a file beside the tools holds the
configuration that was installed whole. Cancelled, or out of time, mise ends; what it had finished stays.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from banger.api.tooling import InstalledTool, InstalledTools, PlannedTools, ToolingInstall, ToolingPlan
from banger.base.problem import Code, Problem, conflict, unavailable
from banger.base.progress import Progress, name_object, stage
from banger.base.units import render_duration
from banger.guest.agent import Agent
from banger.model.config_keys import ToolingKeys
from banger.model.tooling.plan import ToolPlan
from banger.model.vm import VmRecord, require_running
from banger.model.workspace import Workspace
from banger.pinned.catalog import get_pinned
from banger.services.programs.placing import Placed, find_placed, put_pinned
from banger.services.tooling import guest
from banger.services.tooling.contract import Vms, Workspaces
from banger.services.tooling.log import open_log
from banger.services.tooling.reading import Place, find_place, read_plan

_LOOK_S = 60.0
_MARK_BYTES = 64 * 1024


class ToolingService:
    """`programs` is where this host keeps pinned programs; `log_of` says where what mise says in a VM is kept."""

    def __init__(
        self,
        vms: Vms,
        workspaces: Workspaces,
        keys: ToolingKeys,
        programs: Path,
        log_of: Callable[[str], Path],
    ) -> None:
        self._vms = vms
        self._workspaces = workspaces
        self._keys = keys
        self._programs = programs
        self._log_of = log_of
        self._busy: set[str] = set()

    async def plan(self, request: ToolingPlan) -> PlannedTools:
        place = await asyncio.to_thread(find_place, request.path)
        plan = await asyncio.to_thread(read_plan, place)
        return PlannedTools(
            root=str(place.root),
            subdirectory=place.subdirectory,
            enabled=self._keys.enabled,
            tools=plan.tools,
            warnings=plan.warnings,
        )

    def subject(self, request: ToolingInstall) -> str:
        """Raises `not_found`, `ambiguous`."""
        return self._vms.resolve(request.vm).name

    async def install(self, request: ToolingInstall, progress: Progress) -> InstalledTools:
        vm = require_running(self._vms.resolve(request.vm))
        name_object(progress, vm.id, vm.name)
        workspace = self._get_workspace(vm)
        with self._alone(vm), self._vms.using(vm.id):
            with stage(progress, "plan tools"):
                plan = await asyncio.to_thread(
                    read_plan, Place(Path(workspace.host_root), workspace.subdirectory)
                )
            if not plan.tools:
                return self._describe(vm, plan, {}, changed=False)
            return await self._ensure(vm, workspace, plan, request, progress)

    async def _ensure(
        self, vm: VmRecord, workspace: Workspace, plan: ToolPlan, request: ToolingInstall, progress: Progress
    ) -> InstalledTools:
        agent = self._vms.get_agent(vm)
        config = guest.render_config(plan.tools, workspace.host_root)
        changed = await _read_mark(agent) != config
        if changed and not vm.spec.nat:
            raise refuse_without_nat(vm.name)
        mise = await self._ensure_mise(vm, agent, progress)
        # Always: it may still be that of an installation that failed, and mise would be asked about that one.
        await agent.file_write(guest.CONFIG, config.encode(), uid=0, gid=0, make_parents=True)
        if changed:
            timeout_s = request.timeout_s or self._keys.timeout_s
            with stage(progress, f"install {_list_names(plan)}"):
                await self._run_mise(vm, agent, mise, timeout_s, progress)
        with stage(progress, "find tools"):
            async with _limit(vm):
                versions = await guest.read_versions(agent, mise, plan.tools)
                environment = await guest.read_environment(agent, mise)
                if changed:
                    await guest.publish(agent, environment)
                    await agent.file_write(guest.INSTALLED, config.encode(), uid=0, gid=0)
        self._record(vm, environment)
        return self._describe(vm, plan, versions, changed=changed)

    async def _ensure_mise(self, vm: VmRecord, agent: Agent, progress: Progress) -> str:
        """Ours, unless the image has one of its own."""
        pinned = get_pinned("mise")
        placed = await find_placed(agent, pinned)
        if placed is Placed.NEVER:
            async with _limit(vm):
                found = await agent.run(("/bin/sh", "-c", "command -v mise"), cwd="/")
            own = found.stdout.decode("utf-8", "replace").strip()
            if found.status == 0 and own.startswith("/"):
                return own
        if placed is not Placed.WHOLE:
            await put_pinned(agent, pinned, self._programs, progress)
        return pinned.guest_path

    async def _run_mise(
        self, vm: VmRecord, agent: Agent, mise: str, timeout_s: float, progress: Progress
    ) -> None:
        path = self._log_of(vm.id)
        with open_log(path, progress) as log:
            try:
                async with (
                    asyncio.timeout(timeout_s),
                    agent.exec(guest.plan_install(self._keys.environment, mise)) as command,
                ):
                    async for _, data in command:
                        log.add(data)
                    status = (await command.wait()).shell_status
            except TimeoutError as error:
                log.end()
                raise _failed(
                    f"the tools of {vm.name} are not installed after {render_duration(timeout_s)}",
                    log.tail,
                    f"{_see(vm)}, or --bootstrap-timeout {render_duration(2 * timeout_s)}",
                ) from error
            log.end()
        if status != 0:
            raise _failed(
                f"mise cannot install the tools of {vm.name} (status {status})",
                log.tail,
                f"{_see(vm)}, then: banger tooling install {vm.name}",
            )

    def _get_workspace(self, vm: VmRecord) -> Workspace:
        workspace = self._workspaces.find(vm.id)
        if workspace is None:
            raise conflict(f"{vm.name} has no workspace", hint=f"banger workspace prepare {vm.name} PATH")
        return workspace

    def _record(self, vm: VmRecord, environment: Mapping[str, str]) -> None:
        """In the row as it is now: it may have been prepared anew meanwhile."""
        workspace = self._get_workspace(vm)
        if workspace.environment != environment:
            self._workspaces.save(msgspec.structs.replace(workspace, environment=dict(environment)))

    def _describe(
        self, vm: VmRecord, plan: ToolPlan, versions: Mapping[tuple[str, str], str], *, changed: bool
    ) -> InstalledTools:
        tools = [
            InstalledTool(
                name=tool.name,
                asked=tool.version,
                version=versions.get((tool.name, tool.version), ""),
                file=tool.file,
            )
            for tool in plan.tools
        ]
        log = self._log_of(vm.id)
        return InstalledTools(
            vm=vm.name,
            changed=changed,
            log=str(log) if log.exists() else "",
            tools=tuple(tools),
            warnings=plan.warnings,
        )

    @contextmanager
    def _alone(self, vm: VmRecord) -> Iterator[None]:
        if vm.id in self._busy:
            raise conflict(
                f"tools are being installed in {vm.name} already", hint="banger operation list --running"
            )
        self._busy.add(vm.id)
        try:
            yield
        finally:
            self._busy.discard(vm.id)


def refuse_without_nat(name: str) -> Problem:
    return unavailable(
        f"{name} has no way to the network, from which tools are installed",
        hint=f"banger vm stop {name}, banger vm set --nat {name}, banger vm start {name}; or vm run --no-bootstrap",
    )


async def _read_mark(agent: Agent) -> str:
    try:
        async with agent.file_read(guest.INSTALLED, length=_MARK_BYTES) as download:
            return b"".join([part async for part in download]).decode("utf-8", "replace")
    except Problem:
        return ""


@asynccontextmanager
async def _limit(vm: VmRecord) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_LOOK_S):
            yield
    except TimeoutError as error:
        raise _failed(
            f"{vm.name} does not tell which tools it has within {_LOOK_S:.0f} s",
            "",
            f"banger tooling install {vm.name}",
        ) from error


def _list_names(plan: ToolPlan) -> str:
    return ", ".join(dict.fromkeys(tool.name for tool in plan.tools))


def _see(vm: VmRecord) -> str:
    return f"banger vm logs --source tooling {vm.name}"


def _failed(brief: str, tail: str, hint: str) -> Problem:
    return Problem(Code.OPERATION_FAILED, brief, detail=tail or None, hint=hint)
