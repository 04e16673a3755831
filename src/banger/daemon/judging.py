"""What came of operations whose daemon died while they ran, told from what is there now."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from banger.api.vm import VmDetails
from banger.base.problem import Problem
from banger.model.image import ImageManifest
from banger.model.kernel import KernelManifest
from banger.model.operation import (
    Operation,
    OperationState,
    Resolution,
    judge_making,
    judge_vm_operation,
)
from banger.model.vm import LIVE, VmRecord, VmState

_log = logging.getLogger(__name__)
_ON_THE_WAY = frozenset({VmState.STARTING, VmState.STOPPING})


class Judging:
    """Judges after reconciliation: only then does a VM's row say what the VM is."""

    def __init__(
        self,
        list_rows: Callable[[], Sequence[VmRecord]],
        is_changing: Callable[[str], bool],
        describe: Callable[[VmRecord], Awaitable[VmDetails]],
        show_image: Callable[[str], Awaitable[ImageManifest]],
        show_kernel: Callable[[str], Awaitable[KernelManifest]],
    ) -> None:
        self._list_rows = list_rows
        self._is_changing = is_changing
        self._describe = describe
        self._show_made: Mapping[str, Callable[[str], Awaitable[ImageManifest | KernelManifest]]] = {
            "image.build": show_image,
            "kernel.pull": show_kernel,
        }

    async def judge(self, operations: Sequence[Operation]) -> Mapping[str, Resolution]:
        """By operation id; those that cannot be judged are left out."""
        resolutions = {}
        for operation in operations:
            try:
                resolution = await self._judge(operation)
            except (Problem, OSError) as error:  # no reason not to start, and none to hide the others
                extra = {"op": operation.id, "subject": operation.subject, "why": str(error)}
                _log.warning("what came of an operation cannot be told", extra=extra)
                continue
            if resolution is not None:
                resolutions[operation.id] = resolution
        return resolutions

    async def _judge(self, operation: Operation) -> Resolution | None:
        if operation.kind in self._show_made:
            return await self._judge_making(operation)
        return await self._judge_vm(operation)

    async def _judge_vm(self, operation: Operation) -> Resolution | None:
        vm = _find_vm(operation, self._list_rows())
        if vm is not None and (vm.state in _ON_THE_WAY or self._is_changing(vm.id)):
            return None  # what recovery could not end yet, or still does
        resolution = judge_vm_operation(operation, vm, live=vm is not None and vm.state in LIVE)
        if resolution is None or vm is None or resolution.state is not OperationState.SUCCEEDED:
            return resolution
        return resolution._replace(result=msgspec.to_builtins(await self._describe(vm)))

    async def _judge_making(self, operation: Operation) -> Resolution | None:
        try:
            manifest = await self._show_made[operation.kind](operation.subject)
        except Problem:  # not there, or not whole
            return judge_making(operation, None)
        resolution = judge_making(operation, manifest.created_at)
        if resolution is None or resolution.state is not OperationState.SUCCEEDED:
            return resolution
        return resolution._replace(result=msgspec.to_builtins(manifest))


def _find_vm(operation: Operation, rows: Sequence[VmRecord]) -> VmRecord | None:
    """By the id where it was recorded, for a name may have gone to another VM meanwhile."""
    if operation.object_id:
        return next((vm for vm in rows if vm.id == operation.object_id), None)
    return next((vm for vm in rows if vm.name == operation.subject), None)
