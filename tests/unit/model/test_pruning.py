import pytest
from tests.unit.model.rows import make_vm

from banger.model.moment import Moment
from banger.model.pruning import judge_prune
from banger.model.vm import VmState

DAY = 86400.0
NOW = Moment(at="2026-01-11T00:00:00.000Z", host_boot="now", uptime_s=30 * DAY)


def used(days_ago: float) -> Moment:
    return Moment(at="2000-01-01T00:00:00Z", host_boot="now", uptime_s=(30 - days_ago) * DAY)


def judge(vm, labels=None, older_than_s=None):
    return judge_prune(vm, NOW, labels=labels or {}, older_than_s=older_than_s)


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.STARTING, VmState.STOPPING])
def test_a_vm_that_is_alive_stays(state):
    assert judge(make_vm(state=state)) == (False, f"it is {state.value}")


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (VmState.STOPPED, "it is stopped, used 3d ago"),
        (VmState.ERROR, "it ended unexpectedly, and was used 3d ago"),
    ],
)
def test_without_filters_all_others_go_and_are_told_for_how_long_nobody_used_them(state, why):
    assert judge(make_vm(state=state, touched=used(3))) == (True, why)


def test_a_vm_that_never_ran_goes_too():
    assert judge(make_vm(state=VmState.CREATED, touched=used(3))) == (
        True,
        "it was never started, and changed 3d ago",
    )


def test_every_label_must_fit():
    vm = make_vm(labels={"team": "web", "tier": "one"}, touched=used(1))
    assert judge(vm, {"team": "web", "tier": "one"}).goes
    assert judge(vm, {"team": "web", "tier": "two"}) == (False, "it has no label tier=two")
    assert not judge(make_vm(touched=used(1)), {"team": "web"}).goes


def test_what_was_used_lately_stays():
    assert judge(make_vm(touched=used(8)), older_than_s=7 * DAY).goes
    assert judge(make_vm(touched=used(6)), older_than_s=7 * DAY) == (False, "it was used 6d ago")


def test_an_older_row_is_as_old_as_its_last_change():
    vm = make_vm(updated_at="2026-01-01T00:00:00.000Z")
    assert judge(vm, older_than_s=10 * DAY).goes
    assert not judge(vm, older_than_s=11 * DAY).goes
