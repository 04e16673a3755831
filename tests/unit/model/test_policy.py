import pytest
from tests.unit.model.rows import SPEC, make_spec, make_vm

from banger.base.problem import Code, Outcome, Problem
from banger.base.units import GIB
from banger.model.policy import (
    Limits,
    Totals,
    check_disks,
    check_growth,
    check_new,
    check_running,
    check_vm,
    sum_others,
)
from banger.model.vm import VmState

NONE = Limits()


def refuse(check, *args) -> Problem:
    with pytest.raises(Problem) as caught:
        check(*args)
    assert caught.value.outcome is Outcome.NOT_STARTED
    return caught.value


def test_without_limits_everything_passes():
    check_vm(make_spec(vcpus=32, memory_mib=1024**2), NONE)
    check_new(SPEC, Totals(10_000, 10_000, 10_000, 1 << 50, 1 << 60), NONE)
    check_running(SPEC, Totals(10_000, 10_000, 10_000, 1 << 50, 1 << 60), NONE)


TOO_SMALL = [
    (Limits(vcpus_per_vm=1), ("2 vCPUs", "limits.vcpus_per_vm is 1")),
    (Limits(memory_per_vm_bytes=GIB // 2), ("1 GiB of memory", "limits.memory_per_vm is 512 MiB")),
    (Limits(disk_per_vm_bytes=15 * GIB), ("root disk of 8 GiB", "limits.disk_per_vm is 15 GiB together")),
]


@pytest.mark.parametrize(("limits", "words"), TOO_SMALL)
def test_a_vm_that_is_too_big_is_told_the_number_the_limit_and_the_key(limits, words):
    problem = refuse(check_vm, SPEC, limits)
    assert problem.code is Code.BAD_REQUEST
    assert all(word in problem.brief for word in words)
    assert "[limits] in config.toml" in problem.hint


@pytest.mark.parametrize("limits", [row[0] for row in TOO_SMALL])
def test_only_what_grows_is_held_to_a_limit_that_was_lowered(limits):
    check_growth(SPEC, SPEC, limits)
    check_growth(SPEC, make_spec(vcpus=1, memory_mib=768), limits)
    grown = make_spec(vcpus=3, memory_mib=2048, disk_size_bytes=9 * GIB)
    assert refuse(check_growth, SPEC, grown, limits).code is Code.BAD_REQUEST


def test_a_limit_may_be_reached():
    check_vm(SPEC, Limits(vcpus_per_vm=2, memory_per_vm_bytes=GIB, disk_per_vm_bytes=16 * GIB))
    others = Totals(vms=2, running=1, vcpus=4, memory_bytes=GIB, disk_bytes=16 * GIB)
    limits = Limits(
        vms=3, running_vms=2, vcpus_total=6, memory_total_bytes=2 * GIB, disk_total_bytes=32 * GIB
    )
    check_new(SPEC, others, limits)
    check_running(SPEC, others, limits)


@pytest.mark.parametrize(
    ("check", "limits", "words"),
    [
        (check_new, Limits(vms=3), ("3 VMs", "limits.vms is 3")),
        (check_new, Limits(disk_total_bytes=20 * GIB), ("16 GiB", "10 GiB", "limits.disk_total, 20 GiB")),
        (check_running, Limits(running_vms=2), ("2 VMs run", "limits.running_vms is 2")),
        (check_running, Limits(vcpus_total=5), ("2 vCPUs", "4 of running VMs", "limits.vcpus_total, 5")),
        (
            check_running,
            Limits(memory_total_bytes=3 * GIB),
            ("1 GiB", "2.5 GiB", "limits.memory_total, 3 GiB"),
        ),
    ],
)
def test_what_all_have_together_is_told_with_what_is_in_use(check, limits, words):
    others = Totals(vms=3, running=2, vcpus=4, memory_bytes=5 * GIB // 2, disk_bytes=10 * GIB)
    problem = refuse(check, SPEC, others, limits)
    assert problem.code is Code.CONFLICT
    assert all(word in problem.brief for word in words)
    assert "\n" not in problem.brief + problem.hint


def test_disks_alone_keep_within_their_total():
    check_disks(GIB, Totals(disk_bytes=GIB), Limits(disk_total_bytes=2 * GIB))
    refuse(check_disks, GIB + 1, Totals(disk_bytes=GIB), Limits(disk_total_bytes=2 * GIB))


def test_only_running_vms_have_cpus_and_memory_and_all_have_disks():
    rows = [
        make_vm("up", VmState.RUNNING),
        make_vm("coming", VmState.STARTING),
        make_vm("down", VmState.STOPPED),
        make_vm("me", VmState.RUNNING),
    ]
    totals = sum_others(rows, but=make_vm("me").id)
    assert totals == Totals(vms=3, running=2, vcpus=4, memory_bytes=2 * GIB, disk_bytes=48 * GIB)


def test_a_vm_that_is_there_is_changed_by_another_command():
    spec, limits = make_spec(memory_mib=4096, vcpus=4), Limits(memory_per_vm_bytes=2 * GIB)
    with pytest.raises(Problem) as refused:
        check_vm(spec, limits, name="web")
    assert refused.value.hint.startswith("banger vm set web --memory 2G, or raise memory_per_vm")
    with pytest.raises(Problem) as refused:
        check_vm(spec, limits)
    assert refused.value.hint.startswith("use --memory 2G, or")
