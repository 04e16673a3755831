"""What a VM has of the host, step by step: written down before it is taken, given back by the very same step.

Owns the column `holds` of the rows. One undo serves a start that fails, a stop, a removal and the next daemon, which
knows nothing but the row. Strictly in reverse: what was taken before something that cannot be given back stays, too,
because that may still use it.
"""

import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import ClassVar

from banger.base.problem import Problem
from banger.base.progress import Progress, stage
from banger.base.tasks import Supervisor
from banger.model.machine import Disk, Machine
from banger.model.vm import Hold, NetworkMode, VmRecord
from banger.services.hostnet.contract import Lease
from banger.services.kernels.service import StoredKernel
from banger.services.vms.rows import Rows
from banger.vmm.contract import Handle, Vmm

_log = logging.getLogger(__name__)


class Start:
    """One start of a VM on its way: what was decided, and what each step has got so far."""

    root: Disk
    lease: Lease
    machine: Machine
    handle: Handle

    def __init__(self, vm: VmRecord, vmm: Vmm, kernel: StoredKernel, mode: NetworkMode) -> None:
        self.vm = vm
        self.vmm = vmm
        self.kernel = kernel
        self.mode = mode
        self.ssh_port = vm.ssh_port


class Step:
    """A named part of a start, and the way back. `name` is its stage's and its hold's."""

    name: ClassVar[str]

    def describe(self, start: Start) -> dict[str, str]:
        """What `undo` needs beside the row, known before anything is done."""
        return {}

    async def do(self, start: Start) -> None:
        raise NotImplementedError

    async def adopt(self, vm: VmRecord) -> None:
        """Of a VM that may run since before this daemon: from here on `undo` gives back what it has. Idempotent."""

    async def undo(self, vm: VmRecord, what: dict[str, str]) -> None:
        """Idempotent, and right whether `do` was never reached, broke off or was done by an earlier daemon. Raises a
        Problem when it cannot be done now; then it is tried again."""
        raise NotImplementedError


class Holds:
    def __init__(self, rows: Rows, steps: Iterable[Step], tasks: Supervisor) -> None:
        self._rows = rows
        self._steps = {step.name: step for step in steps}
        self._tasks = tasks

    async def take(self, step: Step, start: Start, undo: AsyncExitStack, progress: Progress) -> None:
        with stage(progress, step.name):
            hold = Hold(step=step.name, what=step.describe(start))
            start.vm = self._rows.update(start.vm, holds=(*self._list(start.vm.id), hold))
            undo.push_async_callback(self._give_back_last, start.vm.id, step.name)
            await step.do(start)

    async def adopt(self, vm: VmRecord) -> None:
        """Idempotent."""
        for hold in vm.holds:
            await self._steps[hold.step].adopt(vm)

    async def give_back_all(self, vm_id: str) -> None:
        """Goes on when the caller is cancelled. Raises the Problem of the first that cannot be given back now."""
        await self._tasks.finish(self._give_back_all(vm_id), name=f"give back what {vm_id} has")

    async def _give_back_all(self, vm_id: str) -> None:
        for hold in reversed(self._list(vm_id)):
            await self._give_back(vm_id, hold)

    async def _give_back_last(self, vm_id: str, step: str) -> None:
        """As the undo of one step of a start: whatever follows it has been given back, or both stay."""
        holds = self._list(vm_id)
        if not holds or holds[-1].step != step:
            return
        try:
            await self._tasks.finish(self._give_back(vm_id, holds[-1]), name=f"undo {step} of {vm_id}")
        except Problem as problem:
            _log.warning("not undone yet", extra={"vm": vm_id, "step": step, "why": problem.brief})

    async def _give_back(self, vm_id: str, hold: Hold) -> None:
        """A row that cannot be written, for want of room, is no reason to keep what the host has: it is given back
        once more some day."""
        vm = self._rows.find(vm_id)
        if vm is None:
            return
        await self._steps[hold.step].undo(vm, hold.what)
        try:
            self._rows.update(vm, holds=tuple(other for other in self._list(vm_id) if other != hold))
        except Problem as problem:
            _log.warning("given back, and not written down", extra={"vm": vm_id, "why": problem.brief})

    def _list(self, vm_id: str) -> tuple[Hold, ...]:
        """As the row is now, not as somebody remembers it."""
        vm = self._rows.find(vm_id)
        return vm.holds if vm is not None else ()
