"""Coding agents: the handlers of `agent.*`.

Owns nothing. Knows of each agent how it is started and what it needs; it is started as a session, by whoever has the
secrets it needs, so that none of them passes through an operation.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from banger.api.agents import (
    AgentDetails,
    AgentList,
    AgentPrepare,
    AgentReady,
    Agents,
    AgentServes,
    AgentShow,
    AgentWait,
)
from banger.base.problem import Code, Problem, conflict, not_found, unavailable
from banger.base.progress import Progress, name_object, stage
from banger.base.tasks import first_of
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.guest.sessions import FROM_NOW
from banger.model.agents import BUILT_IN, AgentKeys, get_agent_keys, render_serve, settle_agents
from banger.model.vm import VmRecord, require_running
from banger.pinned.catalog import Pinned, get_pinned
from banger.pinned.obtain import get_kept
from banger.services.agents.contract import Vms
from banger.services.programs.placing import Placed, find_placed, put_pinned

_INSTALL_S = 1200.0
_LOOK_S = 15.0
_TAIL_LINES = 5
_KEPT_BYTES = 64 * 1024


class AgentService:
    """`programs` is where this host keeps pinned programs."""

    def __init__(self, vms: Vms, configured: Mapping[str, AgentKeys], programs: Path) -> None:
        self._vms = vms
        self._configured = configured
        self._agents = settle_agents(configured)
        self._programs = programs

    @property
    def names(self) -> Sequence[str]:
        return list(self._agents)

    async def list_agents(self, request: AgentList) -> Agents:
        vm = require_running(self._vms.resolve(request.vm)) if request.vm is not None else None
        described = []
        for name, keys in self._agents.items():
            installed = None if vm is None else await self._look(vm, keys)
            described.append(self._describe(name, keys, installed))
        return Agents(agents=described)

    def show(self, request: AgentShow) -> AgentDetails:
        return self._describe(request.agent, get_agent_keys(self._agents, request.agent), None)

    def subject(self, request: AgentPrepare | AgentWait) -> str:
        """Raises `not_found`, `ambiguous`."""
        get_agent_keys(self._agents, request.agent)
        return f"{request.agent} in {self._vms.resolve(request.vm).name}"

    async def prepare(self, request: AgentPrepare, progress: Progress) -> AgentReady:
        keys = get_agent_keys(self._agents, request.agent)
        vm = require_running(self._vms.resolve(request.vm))
        name_object(progress, vm.id, vm.name)
        with self._vms.using(vm.id):
            return await self._prepare(vm, request.agent, keys, progress)

    async def _prepare(self, vm: VmRecord, name: str, keys: AgentKeys, progress: Progress) -> AgentReady:
        guest = self._vms.get_agent(vm)
        put = await self._ensure_program(guest, vm, keys, progress)
        if not put and not await self._has_command(guest, vm, keys):
            if not keys.install:
                raise not_found(
                    f"{vm.name} has no command {keys.command[0]!r}",
                    hint=f"name what installs it: install = […] under [agents.{name}] in config.toml",
                )
            with stage(progress, f"install {name}"):
                await self._install(guest, vm, name, keys)
            put = True
        return AgentReady(agent=name, put=put)

    async def _ensure_program(self, guest: Agent, vm: VmRecord, keys: AgentKeys, progress: Progress) -> bool:
        """Whether it was put there. One that the image has, or the user, stays."""
        if keys.program is None:
            return False
        pinned = get_pinned(keys.program)
        placed = await find_placed(guest, pinned)
        if placed is Placed.WHOLE or (placed is Placed.NEVER and await self._has_command(guest, vm, keys)):
            return False
        await put_pinned(guest, pinned, self._programs, progress)
        return True

    async def wait(self, request: AgentWait, progress: Progress) -> AgentServes:
        """Until it listens, or its session has ended, or the time is over."""
        keys = get_agent_keys(self._agents, request.agent)
        vm = require_running(self._vms.resolve(request.vm))
        if keys.port is None:
            raise conflict(
                f"{request.agent} has no port",
                hint=f"add port = 4096, or the like, to [agents.{request.agent}] in config.toml",
            )
        guest = self._vms.get_agent(vm)
        with self._vms.using(vm.id), stage(progress, f"wait for {request.agent}"):
            await _wait_port(guest, keys.port, request)
        return AgentServes(agent=request.agent, port=keys.port)

    def _describe(self, name: str, keys: AgentKeys, installed: bool | None) -> AgentDetails:
        pinned = _find_pinned(keys)
        return AgentDetails(
            name=name,
            origin=self._explain_origin(name),
            command=list(keys.command),
            serve=list(render_serve(keys)),
            port=keys.port,
            program=keys.program,
            version=pinned.version if pinned else None,
            fetched=pinned is not None and get_kept(self._programs, pinned).exists(),
            install=list(keys.install),
            env=list(keys.env),
            env_file=keys.env_file,
            installed=installed,
        )

    def _explain_origin(
        self, name: str
    ) -> Literal["built in", "config.toml", "built in, changed in config.toml"]:
        if name not in BUILT_IN:
            return "config.toml"
        return "built in, changed in config.toml" if name in self._configured else "built in"

    async def _look(self, vm: VmRecord, keys: AgentKeys) -> bool:
        return await self._has_command(self._vms.get_agent(vm), vm, keys)

    async def _has_command(self, guest: Agent, vm: VmRecord, keys: AgentKeys) -> bool:
        """Where the agent will look for it, through whatever it will be started by."""
        ask = ExecRequest(argv=("sh", "-c", 'command -v "$0" >/dev/null', keys.command[0]))
        try:
            async with asyncio.timeout(_LOOK_S):
                status, _ = await _run(guest, self._vms.arrange(vm, ask))
        except TimeoutError as error:
            raise unavailable(
                f"{vm.name} does not tell within {_LOOK_S:g} s whether it has {keys.command[0]!r}",
                hint=f"banger vm health {vm.name}",
            ) from error
        return status == 0

    async def _install(self, guest: Agent, vm: VmRecord, name: str, keys: AgentKeys) -> None:
        """What it says is shown when it fails, and not kept."""
        request = self._vms.arrange(vm, ExecRequest(argv=keys.install, merge_stderr=True))
        try:
            async with asyncio.timeout(_INSTALL_S):
                status, output = await _run(guest, request)
        except TimeoutError as error:
            raise Problem(
                Code.OPERATION_FAILED, f"installing {name} in {vm.name} takes longer than {_INSTALL_S:.0f} s"
            ) from error
        tail = "\n".join(output.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])
        if status != 0:
            raise Problem(
                Code.OPERATION_FAILED,
                f"installing {name} in {vm.name} failed with status {status}",
                detail=tail or None,
                hint="it may need the network: banger vm run --nat",
            )
        if not await self._has_command(guest, vm, keys):
            raise Problem(
                Code.OPERATION_FAILED,
                f"{name} was installed in {vm.name}, and there is no command {keys.command[0]!r}",
                detail=tail or None,
                hint=f"correct command or install of [agents.{name}] in config.toml",
            )


async def _run(guest: Agent, request: ExecRequest) -> tuple[int, bytes]:
    """The status, and the end of the output."""
    kept = bytearray()
    async with guest.exec(request) as command:
        async for _, data in command:
            kept += data
            del kept[:-_KEPT_BYTES]
        return (await command.wait()).shell_status, bytes(kept)


async def _wait_port(guest: Agent, port: int, request: AgentWait) -> None:
    """Raises `unavailable` when the session ends, or the time, before anything listens."""
    hint = f"banger session logs {request.session}"
    listens = guest.wait_port(port, timeout_s=request.timeout_s)
    number, listening = await first_of(listens, _wait_session(guest, request.session))
    if listening:
        return
    if number:
        raise Problem(Code.UNAVAILABLE, f"{request.agent} has ended without serving", hint=hint)
    raise Problem(
        Code.UNAVAILABLE,
        f"{request.agent} does not listen on port {port} after {request.timeout_s:.0f} s",
        hint=hint,
    )


async def _wait_session(guest: Agent, session_id: str) -> bool:
    async with guest.sessions.read(session_id, since=FROM_NOW, follow=True) as records:
        async for _ in records:
            pass
    return False


def _find_pinned(keys: AgentKeys) -> Pinned | None:
    if keys.program is None:
        return None
    try:
        return get_pinned(keys.program)
    except Problem:
        return None
