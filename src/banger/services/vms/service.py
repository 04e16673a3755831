"""The life cycle of VMs.

Owns the records' state changes, one lock for each VM and the table of live ones. Lock order: a VM's lock
is taken first and nothing coarser is ever taken under it; names are reserved by the store's unique index.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from banger.api.method import Nothing
from banger.api.vm import (
    LogText,
    Pruned,
    SshTarget,
    VmCreate,
    VmDelete,
    VmDetails,
    VmExec,
    VmKill,
    VmList,
    VmLogs,
    VmPrune,
    VmPublish,
    VmRestart,
    VmSet,
    VmShow,
    VmSsh,
    VmStart,
    VmStop,
    VmSummaries,
    VmUnpublish,
)
from banger.base.clock import utc_now
from banger.base.problem import Code, Outcome, Problem, conflict
from banger.base.progress import Progress, Silent, stage
from banger.base.tasks import Supervisor
from banger.model.names import ID_LENGTH, Named, compose_name, resolve_reference, validate_name
from banger.model.ports import parse_publish
from banger.model.vm import (
    LIVE,
    VmRecord,
    VmState,
    require_running,
    require_startable,
)
from banger.services.contract import CommandStream
from banger.services.vms import changes, preparation, views
from banger.services.vms.execute import plan_command, run_command
from banger.services.vms.layout import Layout
from banger.services.vms.leftovers import remove_leftovers
from banger.services.vms.lifecycle import Lifecycle, Surroundings, wait_ssh
from banger.services.vms.live import bound_logs
from banger.services.vms.plan import locate_root
from banger.services.vms.roots import watch_roots
from banger.storage.contract import RootDriver
from banger.vmm.contract import Exit

_log = logging.getLogger(__name__)

_INTERRUPTED = Problem(
    Code.UNAVAILABLE, "the VM went down while no daemon was running", hint="banger vm start NAME"
)
_EPHEMERAL_GRACE_S = 30.0


class VmService:
    """Handlers of the daemon call the public methods by request. `recover` first, `close` last."""

    def __init__(self, around: Surroundings, tasks: Supervisor) -> None:
        self._around = around
        self._tasks = tasks
        self._life = Lifecycle(around, tasks, self._on_exit)
        self._locks: dict[str, asyncio.Lock] = {}
        self._used: set[str] = set()
        tasks.start(bound_logs(self._life.live, around.layouts), name="bound logs")
        tasks.start(watch_roots(around.storage, self._end_full), name="watch root disks")

    # Reading

    def list_vms(self, request: VmList) -> VmSummaries:
        vms = (vm for vm in self._around.vms.list() if request.all or vm.state in LIVE)
        return VmSummaries(vms=[views.summarize(vm) for vm in vms])

    def show(self, request: VmShow) -> VmDetails:
        return self._describe(self._resolve(request.vm))

    async def logs(self, request: VmLogs) -> LogText:
        vm = self._resolve(request.vm)
        return await asyncio.to_thread(
            views.read_log, vm, self._layout(vm), request.source, request.tail_lines
        )

    def subject(self, request: Any) -> str:
        """The name that an operation on an existing VM is listed under. Raises `not_found`, `ambiguous`."""
        return self._resolve(request.vm).name

    def subject_of_create(self, request: VmCreate) -> str:
        if request.name is not None:
            validate_name(request.name)
        return request.name or "a new VM"

    def count(self) -> tuple[int, int]:
        vms = self._around.vms.list()
        return len(vms), sum(vm.state in LIVE for vm in vms)

    # Changing

    async def create(self, request: VmCreate, progress: Progress) -> VmDetails:
        """Refused specifications leave no row; any later failure leaves none either."""
        around = self._around
        name = self._pick_name(request.name)
        spec = preparation.settle_spec(request, around.config, around.host)
        preparation.check_host_room(spec, around.layouts.state, around.host)
        if request.start:
            preparation.check_ports(spec)  # refused now, not after minutes of making an image
        standing = await (around.networks.choose() if request.start else around.networks.settle())
        driver = await around.backends.choose_driver(standing)
        image, image_directory = await around.images.ensure(progress, spec.image)
        kernel_name = spec.kernel or image.kernel or around.config.default_kernel
        await around.kernels.ensure(progress, kernel_name)
        preparation.check_disk_sizes(spec, image, image_directory)
        preparation.check_root_room(driver, image_directory, around.layouts.state)
        vm = preparation.compose_record(
            around.entropy.hexadecimal(ID_LENGTH),
            name,
            msgspec.structs.replace(spec, kernel=kernel_name),
            request,
            preparation.Ground(image, image_directory, driver),
        )
        around.vms.insert(vm)
        async with self._lock(vm):
            try:
                with stage(progress, "prepare disks"):
                    layout = self._layout(vm)
                    await preparation.prepare_disks(vm, layout, driver, image)
                    vm = self._life.update(vm, prepared=True)
                if request.start:
                    vm = await self._life.start(vm, progress, until_ssh=request.wait_ssh)
            except BaseException:
                await self._tasks.finish(self._life.remove(vm), name=f"undo {vm.id}")
                raise
        if vm.ephemeral:
            self._tasks.start(self._expect_command(vm.id), name=f"expect {vm.id}")
        return self._describe(vm)

    async def start(self, request: VmStart, progress: Progress) -> VmDetails:
        async with self._locked(request.vm) as vm:
            require_startable(vm)
            return self._describe(await self._life.start(vm, progress, until_ssh=request.wait_ssh))

    async def stop(self, request: VmStop, progress: Progress) -> VmDetails:
        """Goes on when the caller leaves: a guest that was asked to power off cannot be asked back."""
        return await self._tasks.finish(self._do_stop(request, progress), name=f"stop {request.vm}")

    async def _do_stop(self, request: VmStop, progress: Progress) -> VmDetails:
        async with self._locked(request.vm) as vm:
            if vm.state in LIVE:
                vm = await self._life.stop(vm, progress, deadline_s=request.timeout_s)
            return self._describe(vm)

    async def restart(self, request: VmRestart, progress: Progress) -> VmDetails:
        await self.stop(VmStop(vm=request.vm, timeout_s=request.timeout_s), progress)
        return await self.start(VmStart(vm=request.vm), progress)

    async def kill(self, request: VmKill, progress: Progress) -> VmDetails:
        return await self._tasks.finish(self._do_kill(request, progress), name=f"kill {request.vm}")

    async def _do_kill(self, request: VmKill, progress: Progress) -> VmDetails:
        async with self._locked(request.vm) as vm:
            with stage(progress, "kill"):
                return self._describe(await self._life.kill(vm))

    async def delete(self, request: VmDelete, progress: Progress) -> Nothing:
        return await self._tasks.finish(self._do_delete(request, progress), name=f"delete {request.vm}")

    async def _do_delete(self, request: VmDelete, progress: Progress) -> Nothing:
        async with self._locked(request.vm) as vm:
            if vm.state in LIVE and not request.force:
                raise conflict(f"{vm.name} is {vm.state.value}", hint=f"banger vm delete --force {vm.name}")
            with stage(progress, "delete"):
                await self._life.remove(vm)
        self._locks.pop(vm.id, None)
        return Nothing()

    async def prune(self, request: VmPrune) -> Pruned:
        return await self._tasks.finish(self._do_prune(request), name="prune")

    async def _do_prune(self, request: VmPrune) -> Pruned:
        gone: list[str] = []
        freed = 0
        for listed in self._around.vms.list():
            if self._lock(listed).locked():
                continue  # somebody is at work on it
            async with self._lock(listed):
                vm = self._around.vms.find(listed.id)
                if vm is None or vm.state in LIVE:
                    continue
                use = self._describe(vm).disk_use
                gone.append(vm.name)
                freed += use.root_bytes + use.work_bytes
                if not request.dry_run:
                    await self._life.remove(vm)
        return Pruned(vms=gone, freed_bytes=freed, dry_run=request.dry_run)

    async def set(self, request: VmSet) -> VmDetails:
        return await self._tasks.finish(self._do_set(request), name=f"set {request.vm}")

    async def _do_set(self, request: VmSet) -> VmDetails:
        async with self._locked(request.vm) as vm:
            spec = changes.settle_sizes(vm, request)
            grown = changes.select_growth(vm.spec, spec)
            preparation.check_host_room(grown, self._around.layouts.state, self._around.host)
            await changes.grow_work_disk(vm, spec, self._layout(vm))
            if request.nat is not None:
                await changes.set_nat(vm, request.nat, self._around.networks)
                spec = msgspec.structs.replace(spec, nat=request.nat)
            return self._describe(self._life.update(vm, spec=spec))

    async def publish(self, request: VmPublish) -> VmDetails:
        return await self._tasks.finish(self._do_publish(request), name=f"publish {request.vm}")

    async def _do_publish(self, request: VmPublish) -> VmDetails:
        port = parse_publish(request.port)
        async with self._locked(request.vm) as vm:
            spec = await changes.publish(vm, port, self._around.networks, self._life.live)
            return self._describe(self._life.update(vm, spec=spec))

    async def unpublish(self, request: VmUnpublish) -> VmDetails:
        return await self._tasks.finish(self._do_unpublish(request), name=f"unpublish {request.vm}")

    async def _do_unpublish(self, request: VmUnpublish) -> VmDetails:
        port = parse_publish(request.port)
        async with self._locked(request.vm) as vm:
            spec = await changes.unpublish(vm, port, self._around.networks, self._life.live)
            return self._describe(self._life.update(vm, spec=spec))

    # In the guest

    async def ssh(self, request: VmSsh) -> SshTarget:
        vm = require_running(self._resolve(request.vm))
        await wait_ssh(self._life.live.get_agent(vm), vm, timeout_s=request.timeout_s)
        self._touch(vm)
        return views.ssh_target(vm, self._layout(vm), self._around.owner_key_path)

    async def execute(self, request: VmExec, stream: CommandStream) -> None:
        plan = plan_command(request)
        vm = require_running(self._resolve(request.vm))
        agent = self._life.live.get_agent(vm)
        self._touch(vm)
        if vm.ephemeral:
            self._used.add(vm.id)
        try:
            end = await run_command(agent, plan, stream)
        finally:
            if request.delete_after:
                await self._tasks.finish(self._delete_quietly(vm.id), name=f"delete {vm.id}")
        await stream.finish(status=end.status, signal=end.signal)

    # The daemon's beginning and end

    async def recover(self) -> None:
        """After a daemon that did not shut down: live VMs are taken over, what cannot be is put to rest."""
        for vm in self._around.vms.list():
            try:
                await self._recover(vm)
            except Problem as problem:  # the others must not pay for it, and it can be tried again
                _log.warning("a VM is left as it is", extra={"vm": vm.id, "why": problem.brief})
        await remove_leftovers(self._around.privileged, frozenset(self._life.live))
        known = {vm.id for vm in self._around.vms.list()}
        for layout in self._around.layouts.find_strays(known):
            _log.info("removing what no VM owns", extra={"directory": str(layout.state)})
            await asyncio.to_thread(layout.remove)

    async def _recover(self, vm: VmRecord) -> None:
        if vm.ephemeral or not vm.prepared or vm.removing:
            await self._delete_quietly(vm.id)
        elif vm.state in LIVE:
            async with self._lock(vm):
                if not await self._life.adopt(vm):
                    await self._life.kill(vm, error=_INTERRUPTED.as_data())

    async def stop_all(self, hurry: asyncio.Event) -> None:
        """Every running VM is powered off, all at once; `hurry` kills what is left."""
        stopping = [
            self._tasks.start(self._stop_for_shutdown(vm_id), name=f"stop {vm_id}")
            for vm_id in self._life.live
        ]
        hurried = self._tasks.start(hurry.wait(), name="hurry")
        while pending := {task for task in stopping if not task.done()}:
            await asyncio.wait((*pending, hurried), return_when=asyncio.FIRST_COMPLETED)
            if hurried.done():
                break
        for task in (*stopping, hurried):
            task.cancel()
        await asyncio.wait((*stopping, hurried))
        for vm in self._around.vms.list():
            if vm.state in LIVE:
                await self._life.kill(vm)

    async def close(self) -> None:
        """Lets go of the agents. VMs that still run go on, and can be taken over by a later daemon."""
        for vm_id in self._life.live:
            live = await self._life.live.take(vm_id)
            if live is not None:
                await live.agent.link.aclose()

    async def _stop_for_shutdown(self, vm_id: str) -> None:
        vm = self._around.vms.find(vm_id)
        if vm is None:
            return
        async with self._lock(vm):
            vm = self._around.vms.find(vm_id)
            if vm is not None and vm.ephemeral:
                await self._life.remove(vm)
            elif vm is not None and vm.state is VmState.RUNNING:
                await self._life.stop(vm, Silent(), deadline_s=30)

    async def _expect_command(self, vm_id: str) -> None:
        """A VM made for one command goes when whoever asked for it never came back with the command."""
        await asyncio.sleep(_EPHEMERAL_GRACE_S)
        if vm_id not in self._used:
            await self._delete_quietly(vm_id)
        self._used.discard(vm_id)

    async def _end_full(self, vm_id: str, driver: RootDriver) -> None:
        """A root disk that the host has given up fails at every access: its VM is ended, and says why."""
        vm = self._around.vms.find(vm_id)
        if vm is None:
            return
        async with self._lock(vm):
            if vm_id in self._life.live:
                problem = driver.explain_full(locate_root(vm, self._layout(vm)))
                _log.warning("a root disk is full", extra={"vm": vm_id, "why": problem.brief})
                await self._life.kill(vm, error=problem.as_data())

    async def _delete_quietly(self, vm_id: str) -> None:
        vm = self._around.vms.find(vm_id)
        if vm is None:
            return
        async with self._lock(vm):
            await self._life.remove(vm)

    # Parts

    def _pick_name(self, untrusted_name: str | None) -> str:
        taken = {vm.name for vm in self._around.vms.list()}
        if untrusted_name is not None:
            name = validate_name(untrusted_name)
            if name in taken:
                raise Problem(
                    Code.ALREADY_EXISTS,
                    f"there is a VM {name!r} already",
                    hint=f"choose another --name, or banger vm delete {name}",
                    outcome=Outcome.NOT_STARTED,
                )
            return name
        while (name := compose_name(self._around.entropy.number())) in taken:
            pass
        return name

    def _resolve(self, untrusted_reference: str) -> VmRecord:
        vms = {vm.id: vm for vm in self._around.vms.list()}
        return vms[resolve_reference(untrusted_reference, (Named(vm.id, vm.name) for vm in vms.values()))]

    @asynccontextmanager
    async def _locked(self, untrusted_reference: str) -> AsyncIterator[VmRecord]:
        """The VM under its lock, as it is once the lock is held."""
        vm = self._resolve(untrusted_reference)
        async with self._lock(vm):
            yield self._resolve(vm.id)

    def _lock(self, vm: VmRecord) -> asyncio.Lock:
        return self._locks.setdefault(vm.id, asyncio.Lock())

    def _layout(self, vm: VmRecord) -> Layout:
        return self._around.layouts.of(vm.id)

    def _describe(self, vm: VmRecord) -> VmDetails:
        posture = self._around.backends.explain(vm)
        driver = self._around.storage.get(vm.root_driver)
        return views.describe(vm, self._layout(vm), driver, posture, self._around.owner_key_path)

    def _touch(self, vm: VmRecord) -> None:
        """What counts as activity: commands and logins."""
        self._life.update(vm, last_touched_at=utc_now())

    async def _on_exit(self, vm_id: str, exit_: Exit) -> None:
        vm = self._around.vms.find(vm_id)
        if vm is not None:
            async with self._lock(vm):
                await self._life.record_exit(vm, exit_)
