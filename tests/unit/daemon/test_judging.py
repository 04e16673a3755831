"""What came of operations that no daemon saw the end of."""

from daemon_harness import make_details, make_vm

from banger.base.problem import unavailable
from banger.daemon.judging import Judging
from banger.model.operation import Operation, OperationState
from banger.model.vm import VmState


def stop_of(name):
    return Operation(
        id=f"op-{name}",
        kind="vm.stop",
        subject=name,
        state=OperationState.UNKNOWN,
        started_at="2026-01-01T00:00:00.000Z",
    )


async def test_one_that_cannot_be_judged_stays_unknown_and_hides_no_other():
    """The daemon begins with this: it would not start at all."""
    faults = {"odd": NotADirectoryError(20, "Not a directory"), "far": unavailable("the helper is silent")}
    rows = [
        make_vm(name, f"{number:012x}", state=VmState.STOPPED)
        for number, name in enumerate(("odd", "far", "web"))
    ]

    async def describe(vm):
        if vm.name in faults:
            raise faults[vm.name]
        return make_details(vm.name)

    async def show(name):
        raise AssertionError(name)

    judging = Judging(lambda: rows, lambda vm_id: False, describe, show, show)
    resolutions = await judging.judge([stop_of(vm.name) for vm in rows])
    assert set(resolutions) == {"op-web"}
    assert resolutions["op-web"].state is OperationState.SUCCEEDED
