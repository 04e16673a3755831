"""Samples and what is said of them. Counts, not times."""

import asyncio

import msgspec
import pytest
from tests.unit.usage.places import START_TIME, make_vm

from banger.api.usage import VmStats
from banger.base.problem import Problem
from banger.model.vm import NetworkMode, VmState
from banger.privileged.contract.machines import JAIL_CGROUPS
from banger.privileged.helper.cgroups import PARENT, ROOT
from banger.services.usage import sampling
from banger.services.usage.host import Counters, parse_cpu
from banger.services.usage.sampling import History, Sample

ALL = VmStats()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sampling, "SHORTEST_INTERVAL_S", 0.01)
    monkeypatch.setattr(sampling, "GUEST_DEADLINE_S", 0.5)


def sample(taken_s, cpu_s):
    return Sample(taken_s, 1, START_TIME, Counters(cpu_s=cpu_s))


async def test_a_vm_in_user_mode_is_told_with_its_guests_own_packets(usage, vms, host):
    await vms.add(make_vm(pid=100))
    host.spend(100, 250)
    host.remember(100, 2048)
    host.move_blocks(100, 4096, 8192)
    (vm,) = (await usage.stats(ALL)).vms
    assert (vm.name, vm.state, vm.vcpus, vm.memory_mib) == ("web", VmState.RUNNING, 2, 512)
    assert (vm.cpu_percent, vm.cpu_s, vm.memory_bytes) == (0.0, 2.5, 2 << 20)
    assert (vm.received_bytes, vm.sent_bytes) == (1000, 2000)
    assert (vm.block_read_bytes, vm.block_written_bytes, vm.disk_bytes) == (4096, 8192, 100_000)


async def test_a_jailed_vm_on_the_bridge_is_told_without_root_and_without_its_guest(usage, vms, host):
    vm = await vms.add(make_vm(pid=101, mode=NetworkMode.BRIDGE, jail=True))
    host.spend(101, 1)
    host.remember(101, 9)  # of a process of somebody else's, which the kernel would not show
    host.fill_cgroup(vm.id, 4 << 20, 1 << 20)
    host.count_packets("bng-00000065", received=11, sent=22)
    (told,) = (await usage.stats(ALL)).vms
    assert told.memory_bytes == 5 << 20
    assert (told.received_bytes, told.sent_bytes) == (11, 22)
    assert (told.block_read_bytes, told.block_written_bytes) == (None, None)
    assert vms.asked == []


def test_jails_cgroups_are_where_the_helper_makes_them():
    assert f"{ROOT}/{PARENT}" == JAIL_CGROUPS


async def test_what_cannot_be_known_is_none_and_never_zero(usage, vms, host):
    await vms.add(make_vm(pid=100), guest=False)
    host.spend(100, 1)
    (vm,) = (await usage.stats(ALL)).vms
    assert vm.cpu_s == 0.01
    unknown = (vm.memory_bytes, vm.received_bytes, vm.sent_bytes, vm.block_read_bytes, vm.block_written_bytes)
    assert unknown == (None,) * 5


@pytest.mark.parametrize("other", [{"start_time": START_TIME + 1}, {"state": "Z"}])
async def test_a_process_that_has_the_pid_by_now_is_not_measured(usage, vms, host, other):
    await vms.add(make_vm(pid=100), guest=False)
    host.spend(100, 100, **other)
    host.remember(100, 4)
    host.move_blocks(100, 1, 2)
    (vm,) = (await usage.stats(ALL)).vms
    assert (vm.cpu_percent, vm.cpu_s, vm.memory_bytes, vm.block_read_bytes) == (None,) * 4


def test_processor_time_is_that_of_one_cpu_over_the_interval():
    assert History(sample(10.0, 1.0), sample(12.0, 4.0)).cpu_percent == 150.0
    assert History(sample(10.0, None), sample(12.0, 4.0)).cpu_percent is None
    assert History(None, sample(12.0, 4.0)).cpu_percent is None


async def test_a_poll_right_behind_an_answer_leaves_something_to_compare_with(
    usage, sampler, vms, host, monkeypatch
):
    monkeypatch.setattr(sampling, "SHORTEST_INTERVAL_S", 0.2)
    monkeypatch.setattr(sampling, "FRESH_S", 0.0)
    await vms.add(make_vm(pid=100), guest=False)
    host.spend(100, 100)
    await usage.stats(ALL)
    polling = asyncio.create_task(sampler.poll(0.001))
    await asyncio.sleep(0.03)
    host.spend(100, 120)
    (vm,) = (await usage.stats(ALL)).vms
    polling.cancel()
    assert vm.memory_bytes is None
    assert vm.cpu_s == 1.2
    assert 0 < vm.cpu_percent <= 100


def test_a_command_may_be_called_anything():
    stat = "7 (x) R 1 (y\n) S " + " ".join(["0"] * 10 + ["150", "50"] + ["0"] * 6 + ["99", "0"])
    assert parse_cpu(stat, 99) == 2.0
    assert parse_cpu("", 99) is None
    assert parse_cpu("7 (x) S 1 2", 99) is None


async def test_the_first_question_takes_two_samples_and_the_next_none(usage, vms, host):
    await vms.add(make_vm(pid=100), guest=False)
    host.spend(100, 1)
    await usage.stats(ALL)
    assert host.files.reads == 1 + 3
    await usage.stats(ALL)
    await usage.stats(VmStats(vms=["web"]))
    assert host.files.reads == 1 + 3


async def test_an_older_sample_is_followed_by_one_more(usage, vms, host, monkeypatch):
    await vms.add(make_vm(pid=100), guest=False)
    host.spend(100, 1)
    await usage.stats(ALL)
    monkeypatch.setattr(sampling, "FRESH_S", 0.05)
    await asyncio.sleep(0.06)
    await usage.stats(ALL)
    assert host.files.reads == 1 + 2 * 3


async def test_many_who_ask_at_once_share_the_samples(usage, vms, host):
    await vms.add(make_vm(pid=100))
    host.spend(100, 1)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(usage.stats(ALL))
    assert host.files.reads == 1 + 3
    assert vms.asked == ["web"]


async def test_a_poll_reads_one_file_for_each_vm_and_wakes_no_guest(sampler, vms, host):
    for pid in (100, 101):
        await vms.add(make_vm(f"user{pid}", pid=pid))
        host.spend(pid, 1)
    await vms.add(make_vm("jailed", pid=102, mode=NetworkMode.BRIDGE, jail=True))
    await vms.add(make_vm("stopped", pid=103, state=VmState.STOPPED))
    polling = asyncio.create_task(sampler.poll(0.02))
    while host.files.reads < 3:
        await asyncio.sleep(0.001)
    polling.cancel()
    await asyncio.sleep(0.05)
    assert host.files.reads % 3 == 0
    assert vms.asked == []


async def test_nothing_is_read_while_no_vm_runs(sampler, vms, host):
    await vms.add(make_vm(state=VmState.STOPPED))
    polling = asyncio.create_task(sampler.poll(0.001))
    await asyncio.sleep(0.05)
    polling.cancel()
    assert host.files.reads == 0


async def test_the_poll_is_what_the_first_question_compares_with(usage, sampler, vms, host):
    await vms.add(make_vm(pid=100), guest=False)
    host.spend(100, 1)
    polling = asyncio.create_task(sampler.poll(0.02))
    while host.files.reads < 2:  # and so the first has been kept
        await asyncio.sleep(0.001)
    polling.cancel()
    await asyncio.sleep(0.03)
    before = host.files.reads
    (vm,) = (await usage.stats(ALL)).vms
    assert vm.cpu_percent is not None
    assert host.files.reads == before + 3


async def test_a_vm_that_was_started_anew_begins_anew(usage, vms, host):
    vm = await vms.add(make_vm(pid=100), guest=False)
    host.spend(100, 500)
    assert (await usage.stats(ALL)).vms[0].cpu_s == 5.0
    vms.rows[0] = msgspec.structs.replace(vm, runtime=msgspec.structs.replace(vm.runtime, pid=200))
    host.spend(200, 1)
    (told,) = (await usage.stats(ALL)).vms
    assert (told.cpu_s, told.cpu_percent) == (0.01, 0.0)


async def test_named_vms_are_told_once_each_in_their_order_and_stopped_ones_with_their_disk(usage, vms, host):
    await vms.add(make_vm("web", pid=100), guest=False)
    await vms.add(make_vm("db", pid=101, state=VmState.STOPPED))
    host.spend(100, 1)
    told = (await usage.stats(VmStats(vms=["db", "web", "db"]))).vms
    assert [vm.name for vm in told] == ["db", "web"]
    assert (told[0].state, told[0].cpu_s, told[0].disk_bytes) == (VmState.STOPPED, None, 7)
    assert [vm.name for vm in (await usage.stats(ALL)).vms] == ["web"]


async def test_a_vm_that_is_not_there_is_an_error_and_nothing_is_measured(usage, vms, host):
    await vms.add(make_vm(pid=100))
    with pytest.raises(Problem, match="'nope'"):
        await usage.stats(VmStats(vms=["web", "nope"]))
    assert host.files.reads == 0


async def test_a_guest_that_does_not_answer_holds_nobody_up_and_its_packets_are_unknown(usage, vms, host):
    await vms.add(make_vm("mute", pid=100))
    await vms.add(make_vm("web", pid=101))
    vms.guests["mute"].is_silent = True
    for pid in (100, 101):
        host.spend(pid, 1)
    mute, web = (await usage.stats(ALL)).vms
    assert (mute.received_bytes, mute.cpu_s) == (None, 0.01)
    assert web.received_bytes == 1000


async def test_a_guest_slower_than_a_sample_is_fresh_is_asked_once(usage, vms, host, monkeypatch):
    monkeypatch.setattr(sampling, "FRESH_S", 0.1)
    await vms.add(make_vm("mute", pid=100))
    vms.guests["mute"].is_silent = True
    host.spend(100, 1)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(usage.stats(ALL))
    assert vms.asked == ["mute"]
    assert host.files.reads == 1 + 3


async def test_a_vm_that_stops_while_it_is_measured_is_left_out(usage, vms, host):
    await vms.add(make_vm("web", pid=100), guest=False)
    host.spend(100, 1)
    asking = asyncio.create_task(usage.stats(ALL))
    await asyncio.sleep(0)
    vms.stop("web")
    (vm,) = (await asking).vms
    assert vm.cpu_percent is None


async def test_no_vms_no_lines(usage):
    assert (await usage.stats(ALL)).vms == []
