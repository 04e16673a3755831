"""VMs that go without being asked to: those made for one command, those whose root disk is lost, all at a shutdown.

Owns which VMs made for one command still wait for it.
"""

import asyncio
import logging
from collections.abc import Callable

from banger.base.problem import Problem
from banger.base.tasks import Supervisor
from banger.model.vm import LIVE, VmState
from banger.services.vms.lifecycle import Lifecycle
from banger.services.vms.plan import locate_root
from banger.services.vms.rows import Rows
from banger.services.vms.surroundings import Surroundings
from banger.storage.contract import RootDriver
from banger.vmm.contract import Exit

_log = logging.getLogger(__name__)
_EPHEMERAL_GRACE_S = 60.0


class Departure:
    def __init__(
        self,
        around: Surroundings,
        rows: Rows,
        life: Lifecycle,
        tasks: Supervisor,
        is_used: Callable[[str], bool],
    ) -> None:
        self._around = around
        self._rows = rows
        self._life = life
        self._tasks = tasks
        self._is_used = is_used
        self._expected: dict[str, float] = {}  # until when, on the loop's clock

    def expect_command(self, vm_id: str) -> None:
        """A VM made for one command goes when whoever asked for it never comes back with the command."""
        self._expected[vm_id] = asyncio.get_running_loop().time() + _EPHEMERAL_GRACE_S
        self._tasks.start(self._await_command(vm_id), name=f"expect {vm_id}")

    def note_use(self, vm_id: str) -> None:
        """Whoever asked for it is getting it ready: the wait begins anew."""
        if vm_id in self._expected:
            self._expected[vm_id] = asyncio.get_running_loop().time() + _EPHEMERAL_GRACE_S

    def note_command(self, vm_id: str) -> None:
        self._expected.pop(vm_id, None)

    async def _await_command(self, vm_id: str) -> None:
        """While it is used it stays; the end of its use is use, too."""
        while (due := self._expected.get(vm_id)) is not None:
            left_s = due - asyncio.get_running_loop().time()
            if left_s <= 0 and not self._is_used(vm_id):
                del self._expected[vm_id]
                await self.remove_quietly(vm_id)
                return
            await asyncio.sleep(left_s if left_s > 0 else _EPHEMERAL_GRACE_S)

    async def remove_quietly(self, vm_id: str) -> None:
        async with self._rows.locked_if_there(vm_id) as vm:
            if vm is not None:
                await self._life.remove(vm)

    async def record_exit(self, vm_id: str, exit_: Exit) -> None:
        async with self._rows.locked_if_there(vm_id) as vm:
            if vm is not None:
                await self._life.record_exit(vm, exit_)

    async def end_full(self, vm_id: str, driver: RootDriver) -> None:
        """A root disk that the host has given up fails at every access: its VM is ended, and says why."""
        async with self._rows.locked_if_there(vm_id) as vm:
            if vm is not None and vm_id in self._life.live:
                problem = driver.explain_full(locate_root(vm, self._around.layouts.of(vm_id)))
                _log.warning("a root disk is full", extra={"vm": vm_id, "why": problem.brief})
                await self._life.kill(vm, error=problem.as_data())

    async def stop_all(self, hurry: asyncio.Event) -> None:
        """Every running VM is powered off, all at once; `hurry` kills what is left."""
        stopping = [self._tasks.start(self._stop(vm_id), name=f"stop {vm_id}") for vm_id in self._life.live]
        hurried = self._tasks.start(hurry.wait(), name="hurry")
        while pending := {task for task in stopping if not task.done()}:
            await asyncio.wait((*pending, hurried), return_when=asyncio.FIRST_COMPLETED)
            if hurried.done():
                break
        for task in (*stopping, hurried):
            task.cancel()
        await asyncio.wait((*stopping, hurried))
        await asyncio.gather(*(self._kill(vm.id) for vm in self._rows.list() if vm.state in LIVE))

    async def _kill(self, vm_id: str) -> None:
        """One that cannot be ended keeps none of the others running."""
        try:
            async with self._rows.locked_if_there(vm_id) as vm:
                if vm is not None and vm.state in LIVE:
                    await self._life.kill(vm)
        except Problem as problem:
            _log.warning("a VM runs on", extra={"vm": vm_id, "why": problem.brief})

    async def _stop(self, vm_id: str) -> None:
        async with self._rows.locked_if_there(vm_id) as vm:
            if vm is not None and vm.ends_with_command:
                await self._life.remove(vm)
            elif vm is not None and vm.state is VmState.RUNNING:
                await self._life.stop_quietly(vm)
