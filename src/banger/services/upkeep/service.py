"""Looks after the VMs from time to time.

Owns when it has looked last, and which VMs it is at work on. It changes nothing by itself: everything goes through
the VMs' own life cycle, which asks for the verdict again when it holds the VM's lock: whoever had it before may have
wanted the VM. Each end is an operation. What fails is tried again at the next look, and no VM waits for another.
"""

import asyncio
import logging
from collections.abc import Callable

from banger.base.problem import Problem
from banger.base.progress import Progress
from banger.base.tasks import Supervisor
from banger.model.moment import Moment, surely_elapsed_s
from banger.model.vm import VmRecord, VmState
from banger.services.contract import End, Perform
from banger.services.moment import read_moment
from banger.services.upkeep.contract import Activity, Vms
from banger.services.upkeep.rules import judge_idle, judge_ttl

INTERVAL_S = 30.0
_ANSWER_S = 10.0
_SLEPT_S = 300.0  # between two looks only if the host was asleep or the daemon was stopped

_log = logging.getLogger(__name__)


class Upkeep:
    """`open` once the VMs are recovered. It ends with its supervisor."""

    def __init__(
        self,
        vms: Vms,
        activity: Activity,
        tasks: Supervisor,
        perform: Perform,
        *,
        stale_after_s: float | None,
        now: Callable[[], Moment] = read_moment,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Without `stale_after_s` nobody is asked what goes on in the VMs, and only times to live count."""
        self._vms = vms
        self._activity = activity
        self._tasks = tasks
        self._perform = perform
        self._stale_after_s = stale_after_s
        self._now = now
        self._interval_s = interval_s
        self._at_work: set[str] = set()
        self._looked = self._watched_since = now()

    def open(self) -> None:
        self._tasks.start(self._watch(), name="upkeep")

    async def _watch(self) -> None:
        """Each look is a task of its own: one that fails is logged, and does not end the watch."""
        while True:
            self._tasks.start(self.look(), name="look after the VMs")
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Begins what is due; waits for none of it."""
        now = self._now()
        if surely_elapsed_s(self._looked, now) > max(_SLEPT_S, 2 * self._interval_s):
            self._watched_since = now
        self._looked = now
        for vm in self._vms.list_rows():
            if vm.id in self._at_work or not (vm.ttl or self._watches(vm)):
                continue
            self._at_work.add(vm.id)
            self._tasks.start(self._look_after(vm, now), name=f"look after {vm.id}")

    def _watches(self, vm: VmRecord) -> bool:
        return self._stale_after_s is not None and vm.state is VmState.RUNNING

    async def _look_after(self, vm: VmRecord, now: Moment) -> None:
        try:
            if (end := judge_ttl(vm, now)) is not None:
                await self._end(vm, "vm.delete" if end.delete else "vm.stop", self._judge_ttl)
            elif await self._is_idle(vm, now):
                await self._end(vm, "vm.stop", self._judge_idle)
        except Problem as problem:
            why = problem.brief
            _log.warning("a VM could not be looked after; next time again", extra={"vm": vm.id, "why": why})
        finally:
            self._at_work.discard(vm.id)

    async def _end(self, vm: VmRecord, kind: str, judge: Callable[[VmRecord], End | None]) -> None:
        async def work(progress: Progress) -> None:
            await self._vms.end_if(vm.id, judge, progress)

        await self._perform(kind, vm.name, work)

    async def _is_idle(self, vm: VmRecord, now: Moment) -> bool:
        """A VM that is busy counts as used, so that its time begins when that ends. One whose agent does not answer
        is left alone: it may be busier than any."""
        if self._stale_after_s is None or vm.state is not VmState.RUNNING:
            return False
        try:
            async with asyncio.timeout(_ANSWER_S):
                is_busy = await self._activity.is_busy(vm)
        except (Problem, TimeoutError) as error:
            _log.debug("a VM does not say whether it is busy", extra={"vm": vm.id, "why": str(error)})
            return False
        if is_busy:
            self._vms.touch(vm.id)
            return False
        current = next((each for each in self._vms.list_rows() if each.id == vm.id), None)
        return (
            current is not None
            and judge_idle(current, now, self._stale_after_s, self._watched_since) is not None
        )

    def _judge_ttl(self, vm: VmRecord) -> End | None:
        return _tell(vm, judge_ttl(vm, self._now()))

    def _judge_idle(self, vm: VmRecord) -> End | None:
        assert self._stale_after_s is not None
        return _tell(vm, judge_idle(vm, self._now(), self._stale_after_s, self._watched_since))


def _tell(vm: VmRecord, end: End | None) -> End | None:
    if end is not None:
        verb = "deleting" if end.delete else "stopping"
        _log.info(f"{verb} a VM", extra={"vm": vm.id, "vm_name": vm.name, "why": end.reason})
    return end
