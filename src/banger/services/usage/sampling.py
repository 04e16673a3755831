"""Samples of all running VMs: taken together, at most two of each VM kept.

Owns the samples and the lock under which they are taken: whoever wants fresh ones while others take some waits for
those. The host's files are read in one thread for all VMs. Only processor time wants a past, so the poll reads nothing
else: to add up a VMM's memory the kernel walks all of its pages, and a guest that is asked wakes up. Refuses to
measure what does not run.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from banger.base.problem import Problem
from banger.guest.agent import Agent
from banger.model.vm import LIVE, NetworkMode, VmRecord, VmRuntime
from banger.services.usage.host import Counters, HostFiles
from banger.services.vms.layout import Layouts
from banger.services.vms.plan import locate_root
from banger.storage.choose import Storage
from banger.storage.extents import measure_own_bytes

FRESH_S = 1.0
SHORTEST_INTERVAL_S = 0.2  # the kernel counts processor time in steps of 10 ms
GUEST_DEADLINE_S = 1.0


class Vms(Protocol):
    """What is asked of the service that owns the VMs."""

    def list_rows(self) -> Sequence[VmRecord]: ...

    def resolve(self, untrusted_reference: str) -> VmRecord: ...

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable`."""


class Sample(NamedTuple):
    """`taken_s` is of the monotonic clock. One that is not whole knows of processor time only."""

    taken_s: float
    pid: int
    start_time: int
    counters: Counters
    disk_bytes: int | None = None
    is_whole: bool = False


class History(NamedTuple):
    """Both of the same process."""

    previous: Sample | None
    last: Sample

    @property
    def cpu_percent(self) -> float | None:
        """Of one CPU of the host, between the two."""
        if self.previous is None:
            return None
        before, now = self.previous.counters.cpu_s, self.last.counters.cpu_s
        if before is None or now is None:
            return None
        return round(100 * max(now - before, 0.0) / (self.last.taken_s - self.previous.taken_s), 1)


class Sampler:
    """`disks` tells what only this VM has on the host's disk; None when that cannot be told."""

    def __init__(
        self,
        vms: Vms,
        disks: Callable[[VmRecord], int | None],
        *,
        files: HostFiles | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vms = vms
        self._disks = disks
        self._files = files or HostFiles()
        self._clock = clock
        self._lock = asyncio.Lock()
        self._histories: dict[str, History] = {}
        self._taken_s = 0.0  # when the last ones were complete

    async def poll(self, interval_s: float) -> None:
        """For ever; nothing is read while no VM runs."""
        while True:
            await asyncio.sleep(interval_s)
            async with self._lock:
                await self._take(whole=False)

    async def ensure_fresh(self, wanted: Sequence[VmRecord]) -> dict[str, History]:
        """Samples not older than a second with one before them, by the ids of those of the wanted VMs that run."""
        ids = {vm.id for vm in wanted}
        async with self._lock:
            if stale := [vm for vm in self._list_live() if vm.id in ids and not self._is_fresh(vm)]:
                if any(self._find(vm) is None for vm in stale):
                    await self._take(whole=False)
                known = [history for vm in stale if (history := self._find(vm)) is not None]
                await asyncio.sleep(self._wait_s(known))
                await self._take(whole=True)
            return {vm_id: history for vm_id, history in self._histories.items() if vm_id in ids}

    def measure_disks(self, vm: VmRecord) -> int | None:
        """Blocks."""
        return self._disks(vm)

    def _find(self, vm: VmRecord) -> History | None:
        """Of the process that is the VM's VMM now."""
        history, runtime = self._histories.get(vm.id), vm.runtime
        if history is None or runtime is None:
            return None
        is_same = (history.last.pid, history.last.start_time) == (runtime.pid, runtime.start_time)
        return history if is_same else None

    def _is_fresh(self, vm: VmRecord) -> bool:
        """A second counts from when the last samples were whole: a guest that is slow to answer makes nobody ask
        again at once."""
        history = self._find(vm)
        is_whole = history is not None and history.previous is not None and history.last.is_whole
        return is_whole and self._clock() - self._taken_s < FRESH_S

    def _wait_s(self, histories: Sequence[History]) -> float:
        """Until those that have one sample can have a second one that says something."""
        lonely = [history.last.taken_s for history in histories if history.previous is None]
        return max([0.0, *(taken_s + SHORTEST_INTERVAL_S - self._clock() for taken_s in lonely)])

    def _list_live(self) -> list[VmRecord]:
        return [vm for vm in self._vms.list_rows() if vm.state in LIVE and vm.runtime is not None]

    async def _take(self, *, whole: bool) -> None:
        """Of all that run; those that do not are forgotten."""
        live = self._list_live()
        if not live:
            self._histories.clear()
            return
        samples = await asyncio.to_thread(self._measure, live, whole)
        if whole:
            async with asyncio.TaskGroup() as group:
                asking = {vm.id: group.create_task(self._ask_guest(vm, samples[vm.id])) for vm in live}
            samples = {vm_id: task.result() for vm_id, task in asking.items()}
        self._histories = {vm_id: self._append(vm_id, sample) for vm_id, sample in samples.items()}
        self._taken_s = self._clock()

    def _measure(self, vms: Sequence[VmRecord], whole: bool) -> dict[str, Sample]:
        measure = self._measure_whole if whole else self._measure_time
        return {vm.id: measure(vm, vm.runtime) for vm in vms if vm.runtime is not None}

    def _measure_time(self, _vm: VmRecord, runtime: VmRuntime) -> Sample:
        counters = Counters(cpu_s=self._files.measure_cpu(runtime))
        return Sample(self._clock(), runtime.pid, runtime.start_time, counters)

    def _measure_whole(self, vm: VmRecord, runtime: VmRuntime) -> Sample:
        disk_bytes = self._disks(vm)
        counters = self._files.measure(runtime)
        return Sample(
            self._clock(), runtime.pid, runtime.start_time, counters, disk_bytes=disk_bytes, is_whole=True
        )

    async def _ask_guest(self, vm: VmRecord, sample: Sample) -> Sample:
        """In user mode only the guest counts its packets. One that does not answer leaves them unknown."""
        if vm.runtime is None or vm.runtime.network_mode is NetworkMode.BRIDGE:
            return sample
        try:
            async with asyncio.timeout(GUEST_DEADLINE_S):
                usage = await self._vms.get_agent(vm).usage()
        except (Problem, TimeoutError):
            return sample
        counters = sample.counters._replace(received_bytes=usage.received_bytes, sent_bytes=usage.sent_bytes)
        return sample._replace(counters=counters)

    def _append(self, vm_id: str, sample: Sample) -> History:
        """Two that are too close say nothing together: the newer one takes the other's place. Of polls the first stays,
        to be compared with."""
        history = self._histories.get(vm_id)
        if history is None or (history.last.pid, history.last.start_time) != (sample.pid, sample.start_time):
            return History(None, sample)
        if sample.taken_s - history.last.taken_s >= SHORTEST_INTERVAL_S:
            return History(history.last, sample)
        if history.previous is None and not sample.is_whole:
            return history
        return History(history.previous, sample)


def measure_disks(storage: Storage, layouts: Layouts, vm: VmRecord) -> int | None:
    """The root's layer and the work disk, without blocks that other files share. Blocks."""
    layout = layouts.of(vm.id)
    try:
        return storage.get(vm.root_driver).measure_bytes(locate_root(vm, layout)) + measure_own_bytes(
            layout.work_disk
        )
    except (Problem, OSError):
        return None
