import msgspec
import pytest
from tests.unit.model.rows import make_vm

from banger.base.problem import Problem
from banger.model.storage import StorageDriver
from banger.model.vm import VmRecord, VmSpec, VmState, require_running, require_startable


def test_a_row_of_before_there_were_drivers_stands_on_qcow2():
    spec = VmSpec(
        image="i", kernel="k", vcpus=1, memory_mib=512, disk_size_bytes=1, system_overlay_size_bytes=1
    )
    at = "2026-01-01T00:00:00.000Z"
    vm = VmRecord(
        id="0123456789ab",
        name="web",
        spec=spec,
        state=VmState.STOPPED,
        created_at=at,
        updated_at=at,
        last_touched_at=at,
        root_driver=StorageDriver.COPY,
    )
    row = msgspec.json.decode(msgspec.json.encode(vm))
    assert row.pop("root_driver") == "copy"
    assert msgspec.convert(row, VmRecord).root_driver is StorageDriver.QCOW2


@pytest.mark.parametrize(
    ("changes", "brief", "hint"),
    [
        ({"state": VmState.CREATED}, "web has never been started", "banger vm start web"),
        ({"state": VmState.STOPPED}, "web is stopped", "banger vm start web"),
        ({"state": VmState.STOPPING}, "web is stopping", "banger operation list --running"),
        (
            {"state": VmState.ERROR, "error": {"message": "kernel panic"}},
            "web ended unexpectedly: kernel panic",
            "banger vm logs --source vmm web",
        ),
    ],
)
def test_who_needs_a_running_vm_is_told_what_it_is_instead(changes, brief, hint):
    with pytest.raises(Problem) as refused:
        require_running(make_vm(**changes))
    assert (refused.value.brief, refused.value.hint) == (brief, hint)


@pytest.mark.parametrize("require", [require_running, require_startable])
@pytest.mark.parametrize("state", [VmState.STARTING, VmState.STOPPING])
def test_who_meets_a_passing_state_is_led_to_what_makes_it_pass(require, state):
    with pytest.raises(Problem, match=f"web is {state.value}") as caught:
        require(make_vm(state=state))
    assert caught.value.hint == "banger operation list --running"
