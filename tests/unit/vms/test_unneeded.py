"""VMs that are ended because nobody needs them: the verdict counts once their lock is held."""

import asyncio

import pytest

from banger.api.vm import VmCreate, VmDelete, VmSet, VmShow
from banger.base.progress import Silent
from banger.model.vm import VmState
from banger.services.contract import End

QUIET = Silent()
HOUR = 3600


def judge_by_ttl(vm):
    """As upkeep would, once a minute has passed."""
    return End(vm.ephemeral, "its time to live is over") if vm.ttl.seconds == 60 else None


@pytest.mark.parametrize("ephemeral", [True, False])
async def test_a_vm_whose_time_was_renewed_meanwhile_stays(vms, world, ephemeral):
    vm = (await vms.create(VmCreate(name="web", ephemeral=ephemeral, ttl_s=60), QUIET)).vm
    release = asyncio.Event()

    async def work():
        async with vms._rows.lock(vm.id):
            await release.wait()

    busy = asyncio.create_task(work())
    await asyncio.sleep(0)
    renewing = asyncio.create_task(vms.set(VmSet(vm="web", ttl_s=HOUR)))
    await asyncio.sleep(0)
    ending = asyncio.create_task(vms.end_if(vm.id, judge_by_ttl, QUIET))
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(busy, renewing, ending)
    assert vms.show(VmShow(vm="web")).vm.state is VmState.RUNNING


async def test_a_temporary_vm_goes_and_any_other_is_stopped_and_says_why(vms, world):
    for name, ephemeral in (("web", False), ("try", True)):
        vm = (await vms.create(VmCreate(name=name, ephemeral=ephemeral, ttl_s=60), QUIET)).vm
        await vms.end_if(vm.id, judge_by_ttl, QUIET)
    (left,) = world.store.vms.list()
    assert (left.name, left.state) == ("web", VmState.STOPPED)
    assert left.stopped_because == "its time to live is over"
    assert not world.vmm.host.alive()


async def test_a_vm_that_is_gone_is_not_judged(vms):
    await vms.end_if("0" * 12, judge_by_ttl, QUIET)


class Told(Silent):
    def __init__(self):
        self.lines = []

    def enter(self, stage):
        self.lines.append(stage)

    def tell(self, detail):
        self.lines.append(detail)


async def test_the_last_that_is_told_is_why(vms, world):
    why = "its time to live is over"
    for ephemeral, stages in ((False, ["power off"]), (True, ["delete"])):
        vm = (await vms.create(VmCreate(name="web", ephemeral=ephemeral, ttl_s=60), QUIET)).vm
        told = Told()
        await vms.end_if(vm.id, judge_by_ttl, told)
        assert told.lines == [*stages, why]
        if not ephemeral:
            await vms.delete(VmDelete(vm="web"), QUIET)
