"""The use cases of VMs: what the API's methods on them do, each in terms of this package's rooms.

Owns nothing itself. The order of locks: a VM's first, and nothing coarser is ever taken under it (`model.ranks`); names
are reserved by the store's unique index.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from banger.api.method import Nothing
from banger.api.system import DaemonReconcile, Reconciled
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
    VmRename,
    VmRestart,
    VmSet,
    VmShow,
    VmSsh,
    VmStart,
    VmStop,
    VmSummaries,
    VmUnpublish,
)
from banger.base.problem import conflict
from banger.base.progress import Progress, name_object, stage
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.model.admission import DiskClaim
from banger.model.moment import settle_ttl
from banger.model.names import validate_name
from banger.model.ports import parse_publish
from banger.model.vm import LIVE, VmRecord, require_running, require_startable
from banger.services.contract import CommandStream, End
from banger.services.moment import read_moment
from banger.services.vms import changes, views
from banger.services.vms.capabilities.contract import Capability, Wants
from banger.services.vms.capabilities.ssh import wait_ssh
from banger.services.vms.creation import Creation
from banger.services.vms.departure import Departure
from banger.services.vms.execute import plan_command, run_command, settle_place
from banger.services.vms.lifecycle import STOP_S, Lifecycle
from banger.services.vms.live import OnAgent, bound_logs, keep_links
from banger.services.vms.pruning import prune
from banger.services.vms.recovery import Recovery
from banger.services.vms.room import Room
from banger.services.vms.roots import watch_roots
from banger.services.vms.rows import Rows
from banger.services.vms.surroundings import Surroundings
from banger.vmm.contract import Exit


class VmService:
    """`recover` first, `close` last."""

    def __init__(self, around: Surroundings, tasks: Supervisor) -> None:
        self._around = around
        self._tasks = tasks
        self._rows = Rows(around.vms, around.entropy)
        self._room = Room(around)
        self._life = Lifecycle(around, self._rows, self._room, tasks, self._on_exit)
        self._creation = Creation(around, self._rows, self._room, self._life, tasks)
        self._recovery = Recovery(around, self._rows, self._life, tasks)
        self._departure = Departure(around, self._rows, self._life, tasks, self.is_streaming)
        self._streams: dict[str, int] = {}
        tasks.start(bound_logs(self._life.live, around.layouts), name="bound logs")
        tasks.start(keep_links(self._life.live), name="keep links to agents")
        tasks.start(watch_roots(around.storage, self._departure.end_full), name="watch root disks")

    # For services beside this one

    @property
    def capabilities(self) -> Sequence[Capability]:
        return self._life.capabilities

    def list_rows(self) -> Sequence[VmRecord]:
        return self._rows.list()

    def resolve(self, untrusted_reference: str) -> VmRecord:
        """Raises `not_found`, `ambiguous`."""
        return self._rows.resolve(untrusted_reference)

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable`."""
        return self._life.live.get_agent(vm)

    def on_agent(self, met: OnAgent) -> None:
        """`met` is told of each agent that there is, and of each new connection to one."""
        self._life.live.on_agent(met)

    def touch(self, vm_id: str) -> None:
        """It has been used, now."""
        self._rows.note_use(vm_id)
        self._departure.note_use(vm_id)

    @contextmanager
    def using(self, vm_id: str) -> Iterator[None]:
        """It is used as long as the block lasts: nobody takes it for idle, or for abandoned."""
        self.touch(vm_id)
        self._streams[vm_id] = self._streams.get(vm_id, 0) + 1
        try:
            yield
        finally:
            self._end_stream(vm_id)

    def arrange(self, vm: VmRecord, request: ExecRequest) -> ExecRequest:
        """What somebody wants to run in it, as it is run there: in its workspace, unless the request says where."""
        for capability in self._life.capabilities:
            request = capability.command(vm, request)
        return request

    def is_changing(self, vm_id: str) -> bool:
        """Whether somebody is at work on it right now."""
        return self._rows.has_work(vm_id)

    def is_streaming(self, vm_id: str) -> bool:
        """Whether something goes on in it that somebody waits for: a command, or what uses it."""
        return self._streams.get(vm_id, 0) > 0

    def measure_claim(self, vm: VmRecord) -> DiskClaim:
        return self._room.measure_claim(vm)

    # Reading

    def list_vms(self, request: VmList) -> VmSummaries:
        wanted = request.labels.items()
        vms = (vm for vm in self._rows.list() if request.all or vm.state in LIVE)
        return VmSummaries(vms=[views.summarize(vm) for vm in vms if wanted <= vm.labels.items()])

    def show(self, request: VmShow) -> VmDetails:
        return self._describe(self._rows.resolve(request.vm))

    async def logs(self, request: VmLogs) -> LogText:
        vm = self._rows.resolve(request.vm)
        layout = self._around.layouts.of(vm.id)
        return await asyncio.to_thread(views.read_log, vm, layout, request.source, request.tail_lines)

    def subject(self, request: Any) -> str:
        """The name that an operation on an existing VM is listed under. Raises `not_found`, `ambiguous`."""
        return self._rows.resolve(request.vm).name

    def subject_of_create(self, request: VmCreate) -> str:
        if request.name is not None:
            validate_name(request.name)
        return request.name or "a new VM"

    def count(self) -> tuple[int, int]:
        vms = self._rows.list()
        return len(vms), sum(vm.state in LIVE for vm in vms)

    # Changing. What cannot be taken back goes on when the caller leaves.

    async def create(self, request: VmCreate, progress: Progress) -> VmDetails:
        vm = await self._creation.create(request, progress)
        if vm.ends_with_command:
            self._departure.expect_command(vm.id)
        return self._describe(vm)

    async def start(self, request: VmStart, progress: Progress) -> VmDetails:
        async with self._rows.locked(request.vm) as vm:
            name_object(progress, vm.id, vm.name)
            require_startable(vm)
            if (ttl := settle_ttl(vm.ttl, request.ttl_s, read_moment())) is not None:
                vm = self._rows.update(vm, ttl=ttl)
            changes.refuse_taken(vm.spec.publish, self._rows.others(vm.id))
            started = await self._life.start(vm, progress)
        wants = Wants(request.wait_ssh, request.wait_opencode)
        try:
            await self._life.wait_started(started, progress, wants)
        except asyncio.CancelledError:
            await self._tasks.finish(self._take_back(started), name=f"take back the start of {started.id}")
            raise
        return self._describe(self._rows.find(started.id) or started)

    async def _take_back(self, started: VmRecord) -> None:
        """Unless somebody else has stopped or started it since."""
        async with self._rows.locked_if_there(started.id) as vm:
            if vm is not None and vm.runtime == started.runtime:
                await self._life.kill(vm)

    async def stop(self, request: VmStop, progress: Progress) -> VmDetails:
        """A guest that was asked to power off cannot be asked back."""
        return await self._tasks.finish(self._stop(request, progress), name=f"stop {request.vm}")

    async def _stop(self, request: VmStop, progress: Progress) -> VmDetails:
        async with self._rows.locked(request.vm) as vm:
            name_object(progress, vm.id, vm.name)
            if vm.state in LIVE:
                vm = await self._life.stop(vm, progress, deadline_s=request.timeout_s)
                vm = self._rows.update(vm, stopped_because=request.reason)
            return self._describe(vm)

    async def restart(self, request: VmRestart, progress: Progress) -> VmDetails:
        await self.stop(VmStop(vm=request.vm, timeout_s=request.timeout_s), progress)
        return await self.start(VmStart(vm=request.vm), progress)

    async def kill(self, request: VmKill, progress: Progress) -> VmDetails:
        return await self._tasks.finish(self._kill(request, progress), name=f"kill {request.vm}")

    async def _kill(self, request: VmKill, progress: Progress) -> VmDetails:
        async with self._rows.locked(request.vm) as vm:
            name_object(progress, vm.id, vm.name)
            with stage(progress, "kill"):
                return self._describe(await self._life.kill(vm))

    async def delete(self, request: VmDelete, progress: Progress) -> Nothing:
        return await self._tasks.finish(self._delete(request, progress), name=f"delete {request.vm}")

    async def _delete(self, request: VmDelete, progress: Progress) -> Nothing:
        async with self._rows.locked(request.vm) as vm:
            name_object(progress, vm.id, vm.name)
            if vm.state in LIVE and not request.force:
                raise conflict(f"{vm.name} is {vm.state.value}", hint=f"banger vm delete --force {vm.name}")
            with stage(progress, "delete"):
                await self._life.remove(vm)
        return Nothing()

    async def end_if(self, vm_id: str, judge: Callable[[VmRecord], End | None], progress: Progress) -> None:
        """Stops or deletes a VM if that is the verdict on it as it is once its lock is held."""
        await self._tasks.finish(self._end_if(vm_id, judge, progress), name=f"end {vm_id}")

    async def _end_if(self, vm_id: str, judge: Callable[[VmRecord], End | None], progress: Progress) -> None:
        async with self._rows.locked_if_there(vm_id) as vm:
            if vm is None or (end := judge(vm)) is None:
                progress.tell("nothing was to be done any more")
                return
            name_object(progress, vm.id, vm.name)
            try:
                if end.delete:
                    with stage(progress, "delete"):
                        await self._life.remove(vm)
                elif vm.state in LIVE:
                    vm = await self._life.stop(vm, progress, deadline_s=STOP_S)
                    self._rows.update(vm, stopped_because=end.reason)
            finally:
                progress.tell(end.reason)  # last: with a stage ends what was told in it

    async def prune(self, request: VmPrune) -> Pruned:
        work = prune(request, self._rows, self._life, self._describe)
        return await self._tasks.finish(work, name="prune")

    async def set(self, request: VmSet) -> VmDetails:
        return await self._tasks.finish(self._set(request), name=f"set {request.vm}")

    async def _set(self, request: VmSet) -> VmDetails:
        changes.require_change(request)
        async with self._rows.locked(request.vm) as vm:
            spec = changes.settle_spec(vm, request)
            labels, ttl = changes.settle_labels(vm, request), changes.settle_ttl(vm, request, read_moment())
            self._room.admit_change(vm, spec)
            for capability in self._life.capabilities:
                await capability.change(vm, spec)
            return self._describe(self._rows.update(vm, spec=spec, labels=labels, ttl=ttl))

    async def rename(self, request: VmRename) -> VmDetails:
        return await self._tasks.finish(self._rename(request), name=f"rename {request.vm}")

    async def _rename(self, request: VmRename) -> VmDetails:
        async with self._rows.locked(request.vm) as vm:
            name = self._rows.pick_name(request.name, apart_from=vm.id)
            renamed = self._rows.update(vm, name=name)
            if vm.state in LIVE:
                self._around.networks.rename(vm.id, name)
            return self._describe(renamed)

    async def publish(self, request: VmPublish) -> VmDetails:
        return await self._tasks.finish(self._publish(request), name=f"publish {request.vm}")

    async def _publish(self, request: VmPublish) -> VmDetails:
        port = parse_publish(request.port)
        async with self._rows.locked(request.vm) as vm:
            spec = changes.settle_publish(vm, port)
            if spec == vm.spec:
                return self._describe(vm)
            changes.refuse_taken((port,), self._rows.others(vm.id))
            published = self._rows.update(vm, spec=spec)
            try:
                await changes.publish(vm, port, self._around.networks, self._life.live)
            except BaseException:
                self._rows.update(vm, spec=vm.spec)
                raise
            return self._describe(published)

    async def unpublish(self, request: VmUnpublish) -> VmDetails:
        return await self._tasks.finish(self._unpublish(request), name=f"unpublish {request.vm}")

    async def _unpublish(self, request: VmUnpublish) -> VmDetails:
        port = parse_publish(request.port)
        async with self._rows.locked(request.vm) as vm:
            spec = await changes.unpublish(vm, port, self._around.networks, self._life.live)
            return self._describe(self._rows.update(vm, spec=spec))

    # In the guest

    async def ssh(self, request: VmSsh) -> SshTarget:
        vm = require_running(self._rows.resolve(request.vm))
        await wait_ssh(self.get_agent(vm), vm, timeout_s=request.timeout_s)
        self.touch(vm.id)
        return views.ssh_target(vm, self._around.layouts.of(vm.id), self._around.owner_key_path)

    async def execute(self, request: VmExec, stream: CommandStream) -> None:
        plan = plan_command(request)
        vm = require_running(self._rows.resolve(request.vm))
        agent = self.get_agent(vm)
        if vm.ends_with_command:
            self._departure.note_command(vm.id)
        try:
            with self.using(vm.id):
                end = await run_command(agent, settle_place(request, self.arrange(vm, plan)), stream)
        finally:
            if request.delete_after:
                await self._tasks.finish(self._departure.remove_quietly(vm.id), name=f"delete {vm.id}")
        await stream.finish(status=end.status, signal=end.signal)

    def _end_stream(self, vm_id: str) -> None:
        """Its end is activity, too."""
        self._streams[vm_id] -= 1
        if not self._streams[vm_id]:
            del self._streams[vm_id]
        self.touch(vm_id)

    # The daemon's beginning and end

    async def recover(self) -> Reconciled:
        """What could not be mended is tried again from time to time."""
        found = await self._recovery.begin()
        self._tasks.start(self._recovery.keep_trying(), name="mend what was left")
        return found

    async def reconcile(self, request: DaemonReconcile) -> Reconciled:
        return await self._tasks.finish(self._recovery.reconcile(), name="reconcile")

    async def stop_all(self, hurry: asyncio.Event) -> None:
        await self._departure.stop_all(hurry)

    async def close(self) -> None:
        """Lets go of the agents. VMs that still run go on, and can be taken over by a later daemon."""
        for vm_id in self._life.live:
            live = await self._life.live.take(vm_id)
            if live is not None:
                await live.hang_up()

    # Parts

    def _describe(self, vm: VmRecord) -> VmDetails:
        posture = self._around.backends.explain(vm)
        driver = self._around.storage.get(vm.root_driver)
        layout = self._around.layouts.of(vm.id)
        return views.describe(vm, layout, driver, posture, self._around.owner_key_path, read_moment())

    async def _on_exit(self, vm_id: str, exit_: Exit) -> None:
        await self._departure.record_exit(vm_id, exit_)
