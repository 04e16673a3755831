"""A VM's state changes: start, stop, kill, removal. The caller holds the VM's lock.

Owns the table of live VMs and is the only writer of a record's state. Each change is written before what it
announces is done, so that whoever comes after a crash knows what to look for.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import msgspec

from banger.base.clock import monotonic
from banger.base.problem import Code, Problem, unavailable
from banger.base.progress import Progress, Silent, stage
from banger.base.tasks import Supervisor, in_thread
from banger.guest.agent import Agent
from banger.guest.link import Link
from banger.model.vm import LIVE, NetworkMode, VmRecord, VmState
from banger.services.vms.boot import guest_stages, wait_welcome, write_initramfs
from banger.services.vms.capabilities.contract import Capability, Started, Wants
from banger.services.vms.capabilities.registration import make_capabilities
from banger.services.vms.holds import Holds, Start
from banger.services.vms.live import LiveVm, LiveVms, OnExit
from banger.services.vms.plan import compose_boot_config, compose_machine, require_files, require_image
from banger.services.vms.room import Room
from banger.services.vms.rows import Rows
from banger.services.vms.steps import AttachRoot, JoinNetwork, StartVmm
from banger.services.vms.surroundings import Surroundings
from banger.services.vms.timing import Stopwatch
from banger.vmm import contract as vmm_contract
from banger.vmm.contract import Exit
from banger.vmm.exits import REBOOT, explain_end

_log = logging.getLogger(__name__)
_AGENT_ANSWER_S = 5.0
_PORT_ATTEMPTS = 4
STOP_S = 30.0


class Lifecycle:
    def __init__(
        self,
        around: Surroundings,
        rows: Rows,
        room: Room,
        tasks: Supervisor,
        on_exit: OnExit,
    ) -> None:
        self.live = LiveVms(tasks, on_exit)
        self.capabilities: tuple[Capability, ...] = make_capabilities(around)
        self._around = around
        self._rows = rows
        self._room = room
        self._root = AttachRoot(around.storage, around.layouts)
        self._network = JoinNetwork(around.networks)
        self._vmm = StartVmm(rows, around.backends, around.layouts)
        self.holds = Holds(rows, (self._root, self._network, self._vmm), tasks)

    # Start

    async def start(self, vm: VmRecord, progress: Progress) -> VmRecord:
        """Any failure undoes what was done, in reverse. What cannot be undone stays written down in the row."""
        watch = Stopwatch(progress, monotonic)
        before = vm.state
        with stage(watch, "preflight"):
            await self.holds.give_back_all(vm.id)  # what an earlier end could not give back
            start = await self._decide(vm, watch)
        self._room.admit_start(vm)
        start.vm = self._rows.update(
            start.vm, state=VmState.STARTING, error=None, stopped_because="", runtime=None
        )
        try:
            async with AsyncExitStack() as undo:
                await self.holds.take(self._root, start, undo, watch)
                await self._boot(start, undo, watch)
                with stage(watch, "boot guest"):
                    link = await wait_welcome(start.vmm, start.handle, self._around.layouts.of(vm.id))
                    undo.push_async_callback(link.aclose)
                started = self._settle(start, link, watch)
                undo.pop_all()
        except BaseException as error:
            self._record_failure(vm, before, error)
            raise
        return started

    async def wait_started(self, vm: VmRecord, progress: Progress, wants: Wants) -> None:
        """What capabilities have to do or to wait for in a guest that is up. Without the VM's lock: whoever wants to
        stop it meanwhile may."""
        watch = Stopwatch(progress, monotonic)
        for capability in self.capabilities:
            await capability.started(Started(vm, self.live.get_agent(vm), wants, watch))
        current = self._rows.find(vm.id)
        if watch.stages and current is not None and current.runtime == vm.runtime:
            self._rows.update(current, boot_stages=(*current.boot_stages, *watch.stages))

    def _record_failure(self, vm: VmRecord, before: VmState, error: BaseException) -> None:
        """What went wrong is what the caller hears, even if it cannot be written."""
        data = error.as_data() if isinstance(error, Problem) else None
        state = VmState.ERROR if data or self._vmm.is_held(vm.id) else before
        self._write_quietly(vm.id, state=state, error=data, runtime=self._vmm.find_runtime(vm.id))

    async def _decide(self, vm: VmRecord, watch: Stopwatch) -> Start:
        """Everything that can be refused before anything is taken."""
        around = self._around
        standing = await around.networks.choose()
        vmm = await around.backends.choose(vm, standing)
        require_files(vm, around.layouts.of(vm.id))
        require_image(vm, around.storage.get(vm.root_driver), around.layouts.of(vm.id))
        kernel = await around.kernels.ensure(watch, vm.spec.kernel)
        warnings = await in_thread(self._look_ahead, vm)
        if warnings != vm.warnings:
            vm = self._rows.update(vm, warnings=warnings)
        return Start(self._reserve_address(vm, standing.mode), vmm, kernel, standing.mode)

    def _look_ahead(self, vm: VmRecord) -> tuple[str, ...]:
        """Blocks."""
        return tuple(line for capability in self.capabilities for line in capability.preflight(vm))

    def _reserve_address(self, vm: VmRecord, mode: NetworkMode) -> VmRecord:
        """Written before anything uses it; nothing else runs between the look at the others' and the writing."""
        if mode is NetworkMode.USER:
            return vm
        used = {other.address for other in self._rows.list() if other.id != vm.id}
        own = "" if vm.address in used else vm.address
        address = self._around.networks.reserve_address(own, used)
        return self._rows.update(vm, address=address) if address != vm.address else vm

    async def _boot(self, start: Start, undo: AsyncExitStack, watch: Stopwatch) -> None:
        """In user mode the VMM listens itself: an SSH port that is snatched away in between is tried anew."""
        for attempt in range(_PORT_ATTEMPTS):
            try:
                async with AsyncExitStack() as place:
                    await self.holds.take(self._network, start, place, watch)
                    with stage(watch, "configure guest"):
                        await self._configure(start)
                    await self.holds.take(self._vmm, start, place, watch)
                    undo.push_async_exit(place.pop_all())
                return
            except Problem as problem:
                snatched = problem.code is Code.CONFLICT and start.mode is NetworkMode.USER
                if not snatched or attempt + 1 == _PORT_ATTEMPTS:
                    raise
                start.ssh_port = 0

    async def _configure(self, start: Start) -> None:
        layout = self._around.layouts.of(start.vm.id)
        start.machine = compose_machine(start, layout, self.capabilities)
        config = await in_thread(compose_boot_config, start, layout, self.capabilities)
        base = start.kernel.directory / start.kernel.manifest.base_initramfs
        await in_thread(write_initramfs, base, config, layout)

    def _settle(self, start: Start, link: Link, watch: Stopwatch) -> VmRecord:
        runtime = start.vm.runtime
        assert runtime is not None
        in_user_mode = runtime.network_mode is NetworkMode.USER
        settled = self._rows.touch(
            start.vm,
            state=VmState.RUNNING,
            runtime=msgspec.structs.replace(runtime, boot_id=link.welcome.boot_id),
            boot_stages=tuple(watch.stages),
            guest_stages=guest_stages(link.welcome),
            ssh_port=runtime.ssh_port if in_user_mode else start.vm.ssh_port,
        )
        self.live.add(settled.id, LiveVm(start.vmm, start.handle, Agent(link)))
        return settled

    # End

    async def stop(self, vm: VmRecord, progress: Progress, *, deadline_s: float) -> VmRecord:
        """The agent syncs and ends the guest; whatever it does, the VMM is gone after the deadline."""
        self._write_quietly(vm.id, state=VmState.STOPPING)
        live = await self.live.take(vm.id)
        if live is None:
            return await self.kill(vm)
        with stage(progress, "power off"):
            try:
                async with asyncio.timeout(min(_AGENT_ANSWER_S, deadline_s)):
                    await _ask_to_end(live, grace_s=deadline_s / 2)
            except (Problem, TimeoutError) as error:
                _log.info("the agent did not take the power-off", extra={"vm": vm.id, "why": repr(error)})
            with self._still_live(vm.id, live):
                await live.vmm.stop(live.handle, deadline_s=deadline_s)
            await live.hang_up()
        self._vmm.forget(vm.id)
        return await self._rest(vm)

    async def kill(self, vm: VmRecord, *, error: dict[str, Any] | None = None) -> VmRecord:
        """Told beforehand, so that a daemon that comes after us knows that the end was meant."""
        live = await self.live.take(vm.id)
        if live is None and vm.state not in LIVE and not vm.holds:
            return vm
        if error is None and vm.state in LIVE:
            self._write_quietly(vm.id, state=VmState.STOPPING)
        if live is None:
            return await self._rest(vm, error=error)
        with self._still_live(vm.id, live):
            vm = await self._rest(vm, error=error)
        await live.hang_up()
        return vm

    async def stop_quietly(self, vm: VmRecord) -> None:
        """For who has nobody to tell."""
        await self.stop(vm, Silent(), deadline_s=STOP_S)

    @contextmanager
    def _still_live(self, vm_id: str, live: LiveVm) -> Iterator[None]:
        """A VMM that could not be ended keeps what it has on the host until the next try, or its end. What failed may
        also have come after that end."""
        try:
            yield
        except Problem:
            if self._vmm.is_known(vm_id):
                self.live.add(vm_id, live)
                self._write_quietly(vm_id, state=VmState.RUNNING)
            raise

    def _write_quietly(self, vm_id: str, **changes: Any) -> None:
        """For what must not hide the failure that is under way."""
        vm = self._rows.find(vm_id)
        try:
            if vm is not None:
                self._rows.update(vm, **changes)
        except Problem as problem:
            _log.warning("not written down", extra={"vm": vm_id, "why": problem.brief})

    async def record_exit(self, vm: VmRecord, exit_: Exit) -> None:
        """A VMM ended that nobody asked to end: the guest powered off, or something killed it."""
        live = await self.live.take(vm.id)
        if live is None:
            return
        await live.hang_up()
        failure = Problem(Code.OPERATION_FAILED, exit_.reason, hint=f"banger vm logs {vm.name}")
        because = explain_end(exit_)
        if exit_.reason == REBOOT:
            because += f" (banger vm start {vm.name})"
        await self._rest(vm, error=None if exit_.clean else failure.as_data(), because=because)

    async def _rest(
        self, vm: VmRecord, *, error: dict[str, Any] | None = None, because: str = ""
    ) -> VmRecord:
        """What cannot be given back now stays written down, and is tried again at the next start or reconcile."""
        try:
            await self.holds.give_back_all(vm.id)
        except Problem as problem:
            _log.warning("something may be left of a VM", extra={"vm": vm.id, "why": problem.brief})
            if self._vmm.is_held(vm.id):
                raise  # it may run
        state = VmState.ERROR if error else VmState.STOPPED
        why = {"stopped_because": because} if because else {}
        return self._rows.update(vm, state=state, runtime=None, error=error, **why)

    async def remove(self, vm: VmRecord) -> None:
        """Everything of the VM, the row last, so that an interrupted removal can be found and finished."""
        if self._rows.find(vm.id) is None:
            return
        vm = self._rows.update(vm, removing=True)
        await self.kill(vm)
        await self.holds.give_back_all(vm.id)
        for capability in self.capabilities:
            await capability.cleanup(vm)
        await asyncio.to_thread(self._around.layouts.of(vm.id).remove)
        self._rows.delete(vm.id)


async def _ask_to_end(live: LiveVm, *, grace_s: float) -> None:
    """By a power-off where that ends the VMM. A reset ends each of them, as they are told not to reboot."""
    agent = live.get_agent()
    if agent is None:
        raise unavailable("the agent is not connected")
    try:
        powers_off = vmm_contract.Capability.POWER_OFF in await live.vmm.capabilities()
    except Problem:  # it runs, but could not be started any more
        powers_off = False
    await (agent.power_off if powers_off else agent.reboot)(grace_s=grace_s)
