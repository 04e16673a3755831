import pytest
from tests.unit.model.rows import make_vm

from banger.base.problem import Problem, unavailable
from banger.services.upkeep.activity import GuestActivity


@pytest.mark.parametrize(
    ("streaming", "connections", "busy"), [(False, 0, False), (False, 1, True), (True, 0, True)]
)
async def test_a_command_and_a_login_keep_a_vm_awake(streaming, connections, busy):
    async def count(vm):
        return connections

    assert await GuestActivity(lambda vm_id: streaming, count).is_busy(make_vm()) is busy


async def test_a_guest_that_does_not_answer_is_no_idle_one():
    async def count(vm):
        raise unavailable("the agent is silent")

    with pytest.raises(Problem):
        await GuestActivity(lambda vm_id: False, count).is_busy(make_vm())
    assert await GuestActivity(lambda vm_id: True, count).is_busy(make_vm())
