"""The running VMs: their handles, their agents' links and the watchers of their exits.

Owns the table of live VMs; nobody else holds a `LiveVm` longer than one call. A watcher tells the service
when a VMM ends that nobody asked to end. Locks: none; all on the event loop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

from banger.base.problem import Problem, unavailable
from banger.base.tasks import Supervisor
from banger.base.units import MIB
from banger.guest.agent import Agent
from banger.guest.link import Link
from banger.model.vm import VmRecord
from banger.services.vms.layout import Layouts
from banger.vmm.contract import Exit, Forwarding, Handle, Vmm
from banger.vmm.logs import bound_log

_log = logging.getLogger(__name__)
_LINK_CHECK_S = 5.0
_GREETING_S = 5.0
_LOG_CHECK_S = 30.0
_LOG_LIMIT_BYTES = 8 * MIB

OnExit = Callable[[str, Exit], Awaitable[None]]
OnAgent = Callable[[str, Agent], None]


class LiveVm:
    """A VMM that runs, and the agent in its guest as long as it is there to be talked to."""

    def __init__(self, vmm: Vmm, handle: Handle, agent: Agent | None) -> None:
        self.vmm = vmm
        self.handle = handle
        self.agent = agent
        self.watcher: asyncio.Task[None] | None = None

    def get_agent(self) -> Agent | None:
        return None if self.agent is None or self.agent.link.is_closed else self.agent

    async def hang_up(self) -> None:
        if self.agent is not None:
            await self.agent.link.aclose()


class LiveVms:
    def __init__(self, tasks: Supervisor, on_exit: OnExit) -> None:
        self._tasks = tasks
        self._on_exit = on_exit
        self._on_agent: list[OnAgent] = []
        self._live: dict[str, LiveVm] = {}

    def __contains__(self, vm_id: str) -> bool:
        return vm_id in self._live

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._live))

    def add(self, vm_id: str, live: LiveVm) -> None:
        """From here on the exit of the VMM is noticed."""
        assert vm_id not in self._live
        self._live[vm_id] = live
        live.watcher = self._tasks.start(self._watch(vm_id, live), name=f"watch {vm_id}")
        self._tell(vm_id, live)

    def on_agent(self, met: OnAgent) -> None:
        """`met` is told of each agent that there is, and of each new connection to one."""
        self._on_agent.append(met)
        for vm_id, live in self._live.items():
            if (agent := live.get_agent()) is not None:
                met(vm_id, agent)

    def _tell(self, vm_id: str, live: LiveVm) -> None:
        if (agent := live.get_agent()) is not None:
            for met in self._on_agent:
                try:
                    met(vm_id, agent)
                except Problem as problem:  # theirs: neither a start nor what keeps the links fails with it
                    why = problem.brief
                    _log.warning("a guest's agent is met in vain", extra={"vm": vm_id, "why": why})

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable` when the link is down though the VM runs."""
        live = self._live.get(vm.id)
        agent = live.get_agent() if live is not None else None
        if agent is None:
            raise unavailable(f"the agent in {vm.name} is not connected", hint=f"banger vm restart {vm.name}")
        return agent

    def get_forwarding(self, vm: VmRecord) -> tuple[Forwarding, Handle]:
        """Of a VM in user mode: whose VMM can be told of ports while it runs."""
        live = self._live.get(vm.id)
        if live is None:
            raise unavailable(f"{vm.name} is not under control", hint=f"banger vm restart {vm.name}")
        return cast(Forwarding, live.vmm), live.handle

    async def take(self, vm_id: str) -> LiveVm | None:
        """Out of the table, and no longer watched: the caller decides what becomes of it."""
        live = self._live.pop(vm_id, None)
        if live is not None and live.watcher is not None and live.watcher is not asyncio.current_task():
            live.watcher.cancel()
            await asyncio.wait((live.watcher,))
        return live

    async def meet_again(self) -> None:
        """Agents that were lost, or never answered this daemon: their guests run, and may have time for us now."""
        for vm_id, live in tuple(self._live.items()):
            if live.get_agent() is None:
                await self.meet(vm_id)

    async def meet(self, vm_id: str) -> None:
        """Once more; nothing happens when it does not answer."""
        live = self._live.get(vm_id)
        if live is None:
            return
        try:
            async with asyncio.timeout(_GREETING_S):
                link = await Link.open(*await live.vmm.connect_agent(live.handle))
        except (Problem, OSError, TimeoutError):
            return
        if self._live.get(vm_id) is live and live.get_agent() is None:
            live.agent = Agent(link)
            _log.info("met a guest's agent", extra={"vm": vm_id})
            self._tell(vm_id, live)
        else:
            await link.aclose()

    async def _watch(self, vm_id: str, live: LiveVm) -> None:
        exit_ = await live.vmm.wait_exit(live.handle)
        _log.info("vmm ended", extra={"vm": vm_id, "clean": exit_.clean, "reason": exit_.reason})
        await self._on_exit(vm_id, exit_)


async def keep_links(live: LiveVms) -> None:
    while True:
        await asyncio.sleep(_LINK_CHECK_S)
        await live.meet_again()


async def bound_logs(live: LiveVms, layouts: Layouts) -> None:
    """A guest may write to its console without end; the disk is not for that. A file that cannot be bounded now is
    tried again, and hinders no other."""
    while True:
        await asyncio.sleep(_LOG_CHECK_S)
        for vm_id in live:
            for source in ("serial", "vmm"):
                log = layouts.of(vm_id).log(source)
                try:
                    await asyncio.to_thread(bound_log, log, limit_bytes=_LOG_LIMIT_BYTES)
                except OSError as error:
                    _log.warning("a log is not bounded", extra={"vm": vm_id, "why": str(error)})
