"""Times to live, reasons of ends, and VMs that are temporary, as the life cycle keeps them."""

import asyncio

import pytest

from banger.api.vm import VmCreate, VmPrune, VmRestart, VmSet, VmShow, VmStart, VmStop
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.model.vm import VmState


async def create(vms, **wanted):
    return (await vms.create(VmCreate(name="web", memory_mib=256, **wanted), Silent())).vm


async def test_each_start_counts_anew(vms):
    first = (await create(vms, ttl_s=60)).ttl
    await vms.stop(VmStop(vm="web"), Silent())
    again = (await vms.start(VmStart(vm="web"), Silent())).vm.ttl
    assert again.seconds == 60
    assert again.since.uptime_s > first.since.uptime_s
    await vms.restart(VmRestart(vm="web"), Silent())
    assert vms.show(VmShow(vm="web")).vm.ttl.since.uptime_s > again.since.uptime_s
    await vms.stop(VmStop(vm="web"), Silent())
    assert (await vms.start(VmStart(vm="web", ttl_s=7), Silent())).vm.ttl.seconds == 7


async def test_what_is_left_is_told_while_it_runs(vms):
    await create(vms, ttl_s=3600)
    assert 3500 < vms.show(VmShow(vm="web")).ttl_left_s <= 3600
    await vms.stop(VmStop(vm="web"), Silent())
    assert vms.show(VmShow(vm="web")).ttl_left_s is None


async def test_a_time_to_live_is_given_and_taken_while_it_runs(vms):
    await create(vms)
    assert (await vms.set(VmSet(vm="web", ttl_s=90))).vm.ttl.seconds == 90
    with pytest.raises(Problem) as caught:
        await vms.set(VmSet(vm="web", ttl_s=5, no_ttl=True))
    assert caught.value.code is Code.BAD_REQUEST
    assert vms.show(VmShow(vm="web")).vm.ttl.seconds == 90
    assert (await vms.set(VmSet(vm="web", no_ttl=True))).vm.ttl is None


async def test_the_reason_of_a_stop_stays_until_the_next_start(vms):
    await create(vms)
    await vms.stop(VmStop(vm="web", reason="nobody has used it for 2h"), Silent())
    vm = vms.show(VmShow(vm="web")).vm
    assert (vm.state, vm.stopped_because) == (VmState.STOPPED, "nobody has used it for 2h")
    assert (await vms.start(VmStart(vm="web"), Silent())).vm.stopped_because == ""
    await vms.stop(VmStop(vm="web"), Silent())
    assert vms.show(VmShow(vm="web")).vm.stopped_because == ""


async def test_a_temporary_vm_with_a_time_to_live_waits_for_no_command(vms, world, monkeypatch):
    monkeypatch.setattr("banger.services.vms.departure._EPHEMERAL_GRACE_S", 0.01)
    await create(vms, ephemeral=True, ttl_s=3600)
    await asyncio.sleep(0.1)
    assert world.store.vms.list()[0].state is VmState.RUNNING


async def test_a_temporary_vm_with_a_time_to_live_survives_the_daemon(world):
    async with world.open() as before:
        boot_id = (await create(before, ephemeral=True, ttl_s=3600)).runtime.boot_id
    async with world.open() as after:
        await after.recover()
        vm = after.show(VmShow(vm="web")).vm
    assert (vm.state, vm.runtime.boot_id) == (VmState.RUNNING, boot_id)


async def test_prune_goes_by_labels_and_last_use(vms):
    for name, label in (("one", "web"), ("two", "db")):
        await vms.create(VmCreate(name=name, memory_mib=256, start=False, labels={"team": label}), Silent())
    assert (await vms.prune(VmPrune(older_than_s=3600))).vms == []
    pruned = await vms.prune(VmPrune(labels={"team": "web"}))
    assert pruned.vms == ["one"]
    assert {each.name: each.why for each in pruned.verdicts}["two"] == "it has no label team=web"
