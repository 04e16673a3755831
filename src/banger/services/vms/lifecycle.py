"""A VM's state changes: start, stop, kill, removal, adoption. The caller holds the VM's lock.

Owns the table of live VMs and is the only writer of a record's state. Each change is written before what it
announces is done, so that whoever comes after a crash knows what to look for.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from banger.api.vm import Posture
from banger.base.clock import Entropy, monotonic, utc_now
from banger.base.problem import Code, Outcome, Problem
from banger.base.progress import Progress, stage
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.guest.link import Link
from banger.guest.sshkeys import KeyPair
from banger.model.config import Config
from banger.model.machine import Disk
from banger.model.sizing import HostSize
from banger.model.vm import LIVE, NetworkMode, VmRecord, VmRuntime, VmState
from banger.network.user import SSH_PORT
from banger.privileged.contract.base import Privileged
from banger.services.hostnet.contract import Lease, Standing, Wish
from banger.services.hostnet.service import HostNetwork
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService, StoredKernel
from banger.services.vms.boot import Booted, BootPlan, Record, boot, guest_stages
from banger.services.vms.layout import Layout, Layouts
from banger.services.vms.live import LiveVm, LiveVms, OnExit
from banger.services.vms.plan import GuestKeys, compose_boot_config, compose_machine, locate_root
from banger.services.vms.timing import Stopwatch
from banger.storage.choose import Storage
from banger.storage.contract import Root, RootDriver
from banger.store.contract import VmRepository
from banger.vmm.contract import Capability, Exit, Handle, Liveness, Vmm

_log = logging.getLogger(__name__)
_AGENT_ANSWER_S = 5.0
_ADOPTION_S = 5.0
_ADOPTION_ATTEMPTS = 4
_PORT_ATTEMPTS = 4
_SSH_S = 60.0


class Backends(Protocol):
    """Which VMM boots a VM here and what its root disk is, and what there is to say about it."""

    async def choose_driver(self, network: Standing) -> RootDriver:
        """Of a new VM's root disk. Raises `unavailable` where no VMM could run it."""

    async def choose(self, vm: VmRecord, network: Standing) -> Vmm:
        """One that can read the VM's root disk and be on this network. Raises `unavailable`."""

    def by_name(self, name: str) -> Vmm: ...

    def list(self) -> Sequence[Vmm]:
        """All of them, whatever this host can run."""

    def explain(self, vm: VmRecord) -> Posture: ...


class Surroundings(NamedTuple):
    """What the service works with. Adapters come in here and nowhere else. `privileged` is the way to root, if any."""

    vms: VmRepository
    images: ImageService
    kernels: KernelService
    backends: Backends
    networks: HostNetwork
    storage: Storage
    privileged: Privileged | None
    config: Config
    host: HostSize
    layouts: Layouts
    owner_key_path: Path
    owner_key: Callable[[], KeyPair]
    entropy: Entropy = Entropy()


class _Material(NamedTuple):
    """What a start has decided on before it asks for a network."""

    vmm: Vmm
    kernel: StoredKernel
    root: Disk
    mode: NetworkMode


class Lifecycle:
    def __init__(self, around: Surroundings, tasks: Supervisor, on_exit: OnExit) -> None:
        self.live = LiveVms(tasks, on_exit)
        self._around = around

    async def start(self, vm: VmRecord, progress: Progress, *, until_ssh: bool) -> VmRecord:
        around = self._around
        watch = Stopwatch(progress, monotonic)
        before = vm
        with stage(watch, "preflight"):
            standing = await around.networks.choose()
            vmm = await around.backends.choose(vm, standing)
            _require_image(vm)
            kernel = await around.kernels.ensure(watch, vm.spec.kernel)
            vm = self._reserve_address(vm, standing.mode)
        vm = self.update(vm, state=VmState.STARTING, error=None, runtime=None)

        def record(runtime: VmRuntime) -> None:
            nonlocal vm
            vm = self.update(vm, runtime=runtime)

        try:
            async with AsyncExitStack() as holding:
                with stage(watch, "attach root"):
                    driver, place = self._root(vm)
                    root = await holding.enter_async_context(driver.attach(place))
                material = _Material(vmm, kernel, root, standing.mode)
                booted = await self._boot(vm, material, holding, record, watch)
                vm = self._settle(vm, booted, holding.pop_all(), watch)
        except BaseException as error:
            data = error.as_data() if isinstance(error, Problem) else None
            state = VmState.ERROR if data else before.state
            self.update(vm, state=state, runtime=None, error=data)
            raise
        if until_ssh:
            with stage(watch, "wait for ssh"):
                await wait_ssh(booted.agent, vm, timeout_s=_SSH_S)
            vm = self.update(vm, boot_stages=tuple(watch.stages))
        return vm

    def _reserve_address(self, vm: VmRecord, mode: NetworkMode) -> VmRecord:
        """Written before anything uses it; nothing else runs between the look at the others' and the writing."""
        if mode is NetworkMode.USER:
            return vm
        used = {other.address for other in self._around.vms.list() if other.id != vm.id}
        own = "" if vm.address in used else vm.address
        address = self._around.networks.reserve_address(own, used)
        return self.update(vm, address=address) if address != vm.address else vm

    async def _boot(
        self,
        vm: VmRecord,
        material: "_Material",
        holding: AsyncExitStack,
        record: Record,
        watch: Stopwatch,
    ) -> Booted:
        """In user mode the VMM listens itself: an SSH port that is snatched away in between is tried anew."""
        mode = material.mode
        wish = compose_wish(vm)
        for attempt in range(_PORT_ATTEMPTS):
            with stage(watch, "network"):
                lease = await holding.enter_async_context(self._around.networks.lease(wish, mode))
            plan = await self._plan(vm, material, lease)
            try:
                return await boot(plan, material.vmm, record, watch)
            except Problem as problem:
                snatched = problem.code is Code.CONFLICT and mode is NetworkMode.USER
                if not snatched or attempt + 1 == _PORT_ATTEMPTS:
                    raise
                wish = wish._replace(ssh_port=0)
        raise AssertionError("unreachable")

    def _settle(self, vm: VmRecord, booted: Booted, holding: AsyncExitStack, watch: Stopwatch) -> VmRecord:
        self.live.add(vm.id, LiveVm(booted.vmm, booted.handle, booted.agent, holding))
        in_user_mode = booted.runtime.network_mode is NetworkMode.USER
        return self.update(
            vm,
            state=VmState.RUNNING,
            runtime=booted.runtime,
            boot_stages=tuple(watch.stages),
            guest_stages=guest_stages(booted.welcome),
            ssh_port=booted.runtime.ssh_port if in_user_mode else vm.ssh_port,
            last_touched_at=utc_now(),
        )

    async def stop(self, vm: VmRecord, progress: Progress, *, deadline_s: float) -> VmRecord:
        """The agent syncs and ends the guest; whatever it does, the VMM is gone after the deadline."""
        vm = self.update(vm, state=VmState.STOPPING)
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
            await live.let_go()
        return self._rest(vm)

    @contextmanager
    def _still_live(self, vm_id: str, live: LiveVm) -> Iterator[None]:
        """A VMM that could not be ended keeps what it holds on the host until the next try, or its end."""
        try:
            yield
        except Problem:
            self.live.add(vm_id, live)
            raise

    async def kill(self, vm: VmRecord, *, error: dict[str, Any] | None = None) -> VmRecord:
        live = await self.live.take(vm.id)
        if live is not None:
            with self._still_live(vm.id, live):
                await live.vmm.kill(live.handle)
            await live.let_go()
        elif vm.runtime is not None:
            await self._around.backends.by_name(vm.runtime.backend).kill(_handle(vm.runtime))
            await self._release_root(vm)
        elif vm.state is VmState.STARTING:
            await self._evict(vm)
            await self._release_root(vm)
        elif vm.state not in LIVE:
            return vm
        return self._rest(vm, error=error)

    async def _evict(self, vm: VmRecord) -> None:
        """Nobody has written down which VMM it was. One that cannot be asked has nothing that runs, or what is left
        of it is found by the next daemon."""
        for vmm in self._around.backends.list():
            try:
                await vmm.evict(self._layout(vm).place)
            except Problem as problem:
                _log.warning("a VMM may be left", extra={"vm": vm.id, "vmm": vmm.name, "why": problem.brief})

    async def _release_root(self, vm: VmRecord) -> None:
        """What is left is found at the VM's next start or by the next daemon."""
        driver, _ = self._root(vm)
        try:
            await driver.release(vm.id)
        except Problem as problem:
            _log.warning("a root disk may be left attached", extra={"vm": vm.id, "why": problem.brief})

    async def remove(self, vm: VmRecord) -> None:
        """Everything of the VM, the row last, so that an interrupted removal can be found and finished."""
        current = self._around.vms.find(vm.id)
        if current is None:
            return
        await self.kill(self.update(vm, removing=True))
        await self._release_root(vm)
        await asyncio.to_thread(self._layout(vm).remove)
        self._around.vms.delete(vm.id)

    def _rest(self, vm: VmRecord, *, error: dict[str, Any] | None = None) -> VmRecord:
        state = VmState.ERROR if error else VmState.STOPPED
        return self.update(vm, state=state, runtime=None, error=error)

    async def adopt(self, vm: VmRecord) -> bool:
        if vm.runtime is None:
            return False
        vmm = self._around.backends.by_name(vm.runtime.backend)
        handle = _handle(vm.runtime)
        try:
            if await vmm.adopt(handle) is Liveness.GONE:
                return False
            link = await self._meet_again(vmm, handle)
        except (Problem, OSError, TimeoutError) as error:
            _log.warning("a VM could not be taken over", extra={"vm": vm.id, "why": repr(error)})
            return False
        holding = AsyncExitStack()
        driver, place = self._root(vm)
        await holding.enter_async_context(driver.adopt(place))
        await holding.enter_async_context(self._around.networks.adopt(compose_wish(vm), vm.runtime))
        self.live.add(vm.id, LiveVm(vmm, handle, Agent(link), holding))
        self.update(vm, state=VmState.RUNNING)
        _log.info("took over a running VM", extra={"vm": vm.id, "pid": handle.pid})
        return True

    async def _meet_again(self, vmm: Vmm, handle: Handle) -> Link:
        """A virtio-serial port that was left in mid-conversation can swallow a greeting; the next one arrives."""
        for attempt in range(_ADOPTION_ATTEMPTS):
            try:
                async with asyncio.timeout(_ADOPTION_S):
                    return await Link.open(*await vmm.connect_agent(handle))
            except TimeoutError:
                if attempt + 1 == _ADOPTION_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def record_exit(self, vm: VmRecord, exit_: Exit) -> None:
        """A VMM ended that nobody asked to end: the guest powered off, or something killed it."""
        live = await self.live.take(vm.id)
        if live is None:
            return
        await live.vmm.kill(live.handle)
        await live.let_go()
        failure = Problem(Code.OPERATION_FAILED, exit_.reason, hint=f"banger vm logs {vm.name}")
        self._rest(vm, error=None if exit_.clean else failure.as_data())

    async def _plan(self, vm: VmRecord, material: "_Material", lease: Lease) -> BootPlan:
        around = self._around
        layout = self._layout(vm)
        kernel = material.kernel
        keys = GuestKeys(
            host_private=layout.host_key.read_bytes(),
            host_public=layout.host_key.with_suffix(".pub").read_text("ascii").strip(),
            authorized=(await asyncio.to_thread(around.owner_key)).public,
        )
        machine = compose_machine(vm, layout, material.root, kernel.manifest, kernel.directory, lease.network)
        return BootPlan(
            machine=machine,
            guest=compose_boot_config(vm, material.vmm.view_guest(machine), lease, keys),
            kernel=kernel.manifest,
            kernel_directory=kernel.directory,
            layout=layout,
            lease=lease,
        )

    def _layout(self, vm: VmRecord) -> Layout:
        return self._around.layouts.of(vm.id)

    def _root(self, vm: VmRecord) -> tuple[RootDriver, Root]:
        return self._around.storage.get(vm.root_driver), locate_root(vm, self._layout(vm))

    def update(self, vm: VmRecord, **changes: Any) -> VmRecord:
        """Applies the changes to the row as it is now, not as the caller remembers it."""
        current = self._around.vms.find(vm.id)
        assert current is not None, vm.id
        changed = msgspec.structs.replace(current, updated_at=utc_now(), **changes)
        self._around.vms.save(changed)
        return changed


async def wait_ssh(agent: Agent, vm: VmRecord, *, timeout_s: float) -> None:
    """Returns when sshd listens in the guest. Raises `unavailable` when it does not in time."""
    if not await agent.wait_port(SSH_PORT, timeout_s=timeout_s):
        raise Problem(
            Code.UNAVAILABLE,
            f"nothing listens on the SSH port in {vm.name} after {timeout_s:.0f} s",
            hint=f"banger vm exec {vm.name} -- sh",
        )


async def _ask_to_end(live: LiveVm, *, grace_s: float) -> None:
    """By a power-off where that ends the VMM. A reset ends each of them, as they are told not to reboot."""
    try:
        powers_off = Capability.POWER_OFF in await live.vmm.capabilities()
    except Problem:  # it runs, but could not be started any more
        powers_off = False
    await (live.agent.power_off if powers_off else live.agent.reboot)(grace_s=grace_s)


def _require_image(vm: VmRecord) -> None:
    """The build that root stands on must still be there, whatever its name means today."""
    if not Path(vm.image_directory).is_dir():
        raise Problem(
            Code.NOT_FOUND,
            f"the image of {vm.name} is gone: {vm.image_directory}",
            hint=f"banger vm delete {vm.name}",
            outcome=Outcome.NOT_STARTED,
        )


def compose_wish(vm: VmRecord) -> Wish:
    """What the VM wants of the network."""
    return Wish(
        vm_id=vm.id,
        name=vm.name,
        nat=vm.spec.nat,
        publish=vm.spec.publish,
        address=vm.address,
        ssh_port=vm.ssh_port,
    )


def _handle(runtime: VmRuntime) -> Handle:
    return Handle(**{name: getattr(runtime, name) for name in Handle.__struct_fields__})
