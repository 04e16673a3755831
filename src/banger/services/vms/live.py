"""The running VMs: their handles, their agents' links and the watchers of their exits.

Owns the table of live VMs; nobody else holds a `LiveVm` longer than one call. A watcher tells the service
when a VMM ends that nobody asked to end. Locks: none; all on the event loop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import cast

from banger.base.problem import unavailable
from banger.base.tasks import Supervisor
from banger.base.units import MIB
from banger.guest.agent import Agent
from banger.model.vm import VmRecord
from banger.services.vms.layout import Layouts
from banger.vmm.contract import Exit, Forwarding, Handle, Vmm
from banger.vmm.logs import bound_log

_log = logging.getLogger(__name__)
_LOG_CHECK_S = 30.0
_LOG_LIMIT_BYTES = 8 * MIB

OnExit = Callable[[str, Exit], Awaitable[None]]


class LiveVm:
    """A VMM that runs, the agent in its guest, and what the VM holds on the host as long as it runs."""

    def __init__(self, vmm: Vmm, handle: Handle, agent: Agent, holding: AsyncExitStack) -> None:
        self.vmm = vmm
        self.handle = handle
        self.agent = agent
        self.watcher: asyncio.Task[None] | None = None
        self._holding = holding

    async def let_go(self) -> None:
        """After the VMM's end: the link is closed and what the VM held is given back."""
        await self.agent.link.aclose()
        await self._holding.aclose()


class LiveVms:
    def __init__(self, tasks: Supervisor, on_exit: OnExit) -> None:
        self._tasks = tasks
        self._on_exit = on_exit
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

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable` when the link is down though the VM runs."""
        live = self._live.get(vm.id)
        if live is None or live.agent.link.is_closed:
            raise unavailable(f"the agent in {vm.name} is not connected", hint=f"banger vm restart {vm.name}")
        return live.agent

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

    async def _watch(self, vm_id: str, live: LiveVm) -> None:
        exit_ = await live.vmm.wait_exit(live.handle)
        _log.info("vmm ended", extra={"vm": vm_id, "clean": exit_.clean, "reason": exit_.reason})
        await self._on_exit(vm_id, exit_)


async def bound_logs(live: LiveVms, layouts: Layouts) -> None:
    """A guest may write to its console without end; the disk is not for that."""
    while True:
        await asyncio.sleep(_LOG_CHECK_S)
        for vm_id in live:
            for source in ("serial", "vmm"):
                log = layouts.of(vm_id).log(source)
                await asyncio.to_thread(bound_log, log, limit_bytes=_LOG_LIMIT_BYTES)
