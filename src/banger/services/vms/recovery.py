"""The database says what should be, the host says what is: here the two are made one again.

At a daemon's start, after a predecessor that may have died at any step, and whenever somebody asks. Owns no state. Live
VMs are taken over, what is half-made or half-removed is undone or finished, what a VM still has is given back, and what
no VM owns goes. One VM's trouble never keeps another's from being mended.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, cast

import msgspec

from banger.api.system import Reconciled
from banger.base.clock import host_boot_id
from banger.base.problem import Code, Outcome, Problem
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.guest.link import Link
from banger.model.vm import LIVE, Hold, NetworkMode, VmRecord, VmRuntime, VmState
from banger.services.vms.leftovers import remove_leftovers
from banger.services.vms.lifecycle import Lifecycle
from banger.services.vms.live import LiveVm
from banger.services.vms.rows import Rows
from banger.services.vms.steps import AttachRoot, JoinNetwork, StartVmm, find_handle
from banger.services.vms.surroundings import Surroundings
from banger.vmm.contract import Forwarding, Handle, Liveness, Vmm

_log = logging.getLogger(__name__)
_ADOPTION_S = 5.0
_ADOPTION_ATTEMPTS = 4
_RETRY_S = 15.0
_PATIENCE_S = 2.0  # an agent that takes longer is met while the daemon serves
INTERRUPTED = Problem(
    Code.OPERATION_FAILED,
    "the VM or its VMM ended while no daemon was there to see it",
    outcome=Outcome.UNKNOWN,
)


class Recovery:
    def __init__(self, around: Surroundings, rows: Rows, life: Lifecycle, tasks: Supervisor) -> None:
        self._around = around
        self._rows = rows
        self._life = life
        self._tasks = tasks

    async def begin(self) -> Reconciled:
        """At the daemon's start, before anybody else is at work. The bridge is opened after it."""
        found = Reconciled()
        await asyncio.gather(*(self._guard(found, vm, self._begin(found, vm)) for vm in self._rows.list()))
        await self._sweep(found)
        return found

    async def reconcile(self) -> Reconciled:
        """While VMs run and others are at work: what somebody is changing right now is left to them."""
        found = Reconciled()
        for vm in self._rows.list():
            if self._rows.lock(vm.id).locked():
                found.left.append(f"{vm.name}: it is being changed right now")
            else:
                await self._guard(found, vm, self._reconcile(found, vm))
        await self._sweep(found)
        try:
            found.swept.extend(await self._around.networks.repair())
        except Problem as problem:
            found.left.append(f"network: {problem.brief}")
        return found

    async def keep_trying(self) -> None:
        """What could not be taken over, given back or removed: the helper, or the VMM, may answer now."""
        while True:
            await asyncio.sleep(_RETRY_S)
            try:
                left = [vm for vm in self._rows.list() if self._needs_mending(vm)]
            except Problem as problem:
                _log.warning("VMs cannot be looked after", extra={"why": problem.brief})
                continue
            for vm in left:
                if not self._rows.has_work(vm.id):
                    await self._guard(Reconciled(), vm, self._reconcile(Reconciled(), vm))

    def _needs_mending(self, vm: VmRecord) -> bool:
        if vm.removing or not vm.prepared:
            return True
        return vm.id not in self._life.live and (vm.state in LIVE or bool(vm.holds))

    async def _guard(self, found: Reconciled, vm: VmRecord, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._rows.lock(vm.id):
                await work
        except Problem as problem:
            _log.warning("a VM is left as it is", extra={"vm": vm.id, "why": problem.brief})
            found.left.append(f"{vm.name}: {problem.brief}")
        except Exception as error:  # noqa: BLE001 (the others must not pay for it, whatever it is)
            _log.exception("a VM is left as it is", extra={"vm": vm.id})
            found.left.append(f"{vm.name}: {error!r}")

    # One VM, under its lock

    async def _begin(self, found: Reconciled, vm: VmRecord) -> None:
        if vm.ends_with_command and vm.prepared and not vm.removing:
            await self._remove(found, vm, "its owner is gone")
            return
        await asyncio.to_thread(self._around.layouts.of(vm.id).remove_unfinished)
        await self._mend(found, vm)

    async def _reconcile(self, found: Reconciled, listed: VmRecord) -> None:
        vm = self._rows.find(listed.id)
        if vm is not None and self._needs_mending(vm):
            await self._mend(found, vm)

    async def _mend(self, found: Reconciled, vm: VmRecord) -> None:
        if vm.removing:
            await self._remove(found, vm, "its removal was interrupted")
        elif not vm.prepared:
            await self._remove(found, vm, "its making was interrupted")
        elif vm.state in LIVE:
            await self._take_over(found, vm)
        elif vm.holds:
            await self._life.holds.give_back_all(vm.id)
            self._rows.update(vm, runtime=None)
            found.swept.append(f"{vm.name}: {', '.join(hold.step for hold in reversed(vm.holds))}")

    async def _remove(self, found: Reconciled, vm: VmRecord, why: str) -> None:
        _log.info("removing a VM", extra={"vm": vm.id, "why": why})
        await self._life.remove(vm)
        found.removed.append(f"{vm.name}: {why}")

    async def _take_over(self, found: Reconciled, vm: VmRecord) -> None:
        """A VM that runs is never ended here, unless nobody has ever heard of its agent."""
        if vm.runtime is not None and vm.runtime.host_boot not in {"", host_boot_id()}:
            vm = self._rows.update(vm, state=VmState.STOPPED, runtime=None, error=None)
            found.stopped.append(f"{vm.name}: the host has booted since")
            await self._life.holds.give_back_all(vm.id)
        elif await self._adopt(vm):
            found.adopted.append(vm.name)
            if vm.state is VmState.STOPPING:
                self._tasks.start(self._finish_stop(vm.id), name=f"finish the stop of {vm.id}")
        elif vm.state is VmState.STOPPING:
            await self._life.kill(vm)
            found.stopped.append(f"{vm.name}: its stop was interrupted")
        else:
            await self._life.kill(vm, error=INTERRUPTED.as_data())
            found.stopped.append(f"{vm.name}: {INTERRUPTED.brief}")

    async def _finish_stop(self, vm_id: str) -> None:
        async with self._rows.locked_if_there(vm_id) as vm:
            if vm is not None and vm.state is VmState.STOPPING:
                await self._life.stop_quietly(vm)

    async def _adopt(self, vm: VmRecord) -> bool:
        """What it has is noted before its VMM is asked, so that nobody sweeps what a VM has that does not answer.
        Raises a Problem when it cannot be known now whether it runs: the VM is left as it is."""
        handle, runtime = find_handle(vm), vm.runtime
        if runtime is None or handle is None:
            return False
        if not vm.holds:
            vm = self._rows.update(vm, holds=_derive_holds(runtime))
        await self._life.holds.adopt(vm)
        vmm = self._around.backends.by_name(runtime.backend)
        if await vmm.adopt(handle) is Liveness.GONE:
            return False
        agent = None
        if not runtime.boot_id:
            agent = await self._meet_first(vm, vmm, handle)
            if agent is None:
                return False  # its start was interrupted, and nobody will ever hear of it
            runtime = msgspec.structs.replace(runtime, boot_id=agent.welcome.boot_id)
        state = VmState.STOPPING if vm.state is VmState.STOPPING else VmState.RUNNING
        vm = self._rows.update(vm, state=state, runtime=runtime)
        self._life.live.add(vm.id, LiveVm(vmm, handle, agent))
        if agent is None:
            meeting = self._tasks.start(self._life.live.meet(vm.id), name=f"meet the agent of {vm.id}")
            await asyncio.wait((meeting,), timeout=_PATIENCE_S)
        if runtime.network_mode is NetworkMode.USER:
            await _restore_forwards(vm, cast(Forwarding, vmm), handle)
        _log.info("took over a running VM", extra={"vm": vm.id, "pid": handle.pid})
        return True

    async def _meet_first(self, vm: VmRecord, vmm: Vmm, handle: Handle) -> Agent | None:
        """Of a guest that may still be booting. A virtio-serial port that was left in mid-conversation can swallow a
        greeting; the next one arrives."""
        for _ in range(_ADOPTION_ATTEMPTS):
            try:
                async with asyncio.timeout(_ADOPTION_S):
                    return Agent(await Link.open(*await vmm.connect_agent(handle)))
            except TimeoutError:
                continue
            except (Problem, OSError) as error:
                _log.warning("an agent does not answer", extra={"vm": vm.id, "why": str(error)})
                break
        return None

    # What no VM owns

    async def _sweep(self, found: Reconciled) -> None:
        found.swept.extend(await remove_leftovers(self._around.privileged, self._rows.has_owner))
        known = {vm.id for vm in self._rows.list()}
        for layout in self._around.layouts.find_strays(known):
            _log.info("removing what no VM owns", extra={"directory": str(layout.state)})
            try:
                await asyncio.to_thread(layout.remove)
                found.swept.append(f"directory {layout.state}")
            except OSError as error:
                found.left.append(f"directory {layout.state}: {error.strerror}")


async def _restore_forwards(vm: VmRecord, vmm: Forwarding, handle: Handle) -> None:
    """A port that the row knows and the VMM may not: somebody died between the two. One that it has is refused."""
    for port in vm.spec.publish:
        try:
            await vmm.add_forward(handle, port)
        except Problem as problem:
            _log.debug("a port is published already", extra={"vm": vm.id, "why": problem.brief})


def _derive_holds(runtime: VmRuntime) -> tuple[Hold, ...]:
    """Of a VM that was started before holds were written down."""
    return (
        Hold(step=AttachRoot.name),
        Hold(step=JoinNetwork.name),
        Hold(step=StartVmm.name, what={"backend": runtime.backend}),
    )
