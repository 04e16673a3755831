import pytest

from banger.base.problem import Code, Outcome, Problem
from banger.base.units import GIB, MIB
from banger.model.admission import DiskClaim, DiskRoom, MemoryRoom, check_disk, check_memory
from banger.model.policy import Limits

HOST = MemoryRoom(total_bytes=8 * GIB, available_bytes=6 * GIB)
DISK = DiskRoom("/var/vms", 21 * GIB)
LIMITS = Limits()


def refuse(check, *args) -> Problem:
    with pytest.raises(Problem) as caught:
        check(*args)
    assert caught.value.code is Code.NO_SPACE
    assert caught.value.outcome is Outcome.NOT_STARTED
    assert "\n" not in caught.value.brief + caught.value.hint
    return caught.value


def test_more_memory_than_the_host_has_is_refused_whatever_the_factor():
    problem = refuse(check_memory, 9 * GIB, 0, HOST, Limits(memory_overcommit=100))
    assert "9 GiB of memory are more than this host has (8 GiB)" in problem.brief


def test_memory_may_be_promised_twice_and_no_more():
    check_memory(4 * GIB, 12 * GIB, HOST, LIMITS)
    problem = refuse(check_memory, 4 * GIB, 12 * GIB + MIB, HOST, LIMITS)
    assert "running VMs have 12 GiB" in problem.brief
    assert "16 GiB (2 times the host's 8 GiB)" in problem.brief
    assert "memory_overcommit" in problem.hint


def test_without_overcommitting_what_runs_counts_in_full():
    check_memory(4 * GIB, 4 * GIB, HOST, Limits(memory_overcommit=1))
    refuse(check_memory, 4 * GIB, 4 * GIB + 1, HOST, Limits(memory_overcommit=1))


def test_a_quarter_of_the_memory_must_be_there_now():
    scarce = HOST._replace(available_bytes=GIB)
    check_memory(4 * GIB, 0, scarce, LIMITS)
    problem = refuse(check_memory, 5 * GIB, 0, scarce, LIMITS)
    assert "this host has 1 GiB available" in problem.brief


def test_one_vm_may_not_be_able_to_fill_the_disk():
    check_disk(DiskClaim(20 * GIB, 0), (), DISK, LIMITS)
    problem = refuse(check_disk, DiskClaim(20 * GIB + MIB, 0), (), DISK, LIMITS)
    assert "may grow by 20 GiB" in problem.brief
    assert "/var/vms has 21 GiB free, of which 1 GiB are kept in reserve" in problem.brief
    assert "banger vm prune" in problem.hint


def test_what_a_disk_has_already_is_not_asked_for_again():
    check_disk(DiskClaim(100 * GIB, 80 * GIB), (), DISK, LIMITS)
    assert DiskClaim(GIB, 2 * GIB).growth_bytes == 0


def test_together_disks_may_be_promised_so_many_times_what_is_free():
    limits = Limits(disk_overcommit=4)
    others = [DiskClaim(20 * GIB, GIB)] * 3  # 57 GiB
    check_disk(DiskClaim(20 * GIB, 0), others, DISK, limits)
    problem = refuse(check_disk, DiskClaim(20 * GIB, 0), [*others, DiskClaim(4 * GIB, 0)], DISK, limits)
    assert "may grow by 61 GiB" in problem.brief
    assert "80 GiB (4 times what is free" in problem.brief
    assert "disk_overcommit" in problem.hint


def test_a_disk_that_is_fuller_than_the_reserve_takes_nothing():
    refuse(check_disk, DiskClaim(MIB, 0), (), DiskRoom("/var/vms", GIB // 2), LIMITS)
    check_disk(DiskClaim(MIB, 0), (), DiskRoom("/var/vms", GIB // 2), Limits(disk_reserve_bytes=0))
