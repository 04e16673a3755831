"""Ends at the worst moment: a row that cannot be written, a VMM that cannot be ended, a look that comes too late."""

import asyncio
from contextlib import suppress

import msgspec
import pytest
from tests.unit.vms.bridged import Inheritance, create, find, open_again
from tests.unit.vms.conftest import open_networks

from banger.api.system import DaemonReconcile
from banger.api.vm import VmCreate, VmKill, VmSet, VmStart, VmStop
from banger.base.problem import Code, Outcome, Problem, conflict, unavailable
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.base.units import GIB
from banger.model.vm import VmState
from banger.privileged.fake import FakePrivileged
from banger.services.vms.service import VmService

QUIET = Silent()


def full(row):
    raise Problem(Code.NO_SPACE, "no space is left for the database")


@pytest.fixture
def rounds(vms, monkeypatch):
    """How often the end of a VMM was recorded."""
    seen = []
    record = vms._life.record_exit

    async def count(*arguments):
        seen.append(arguments)
        await record(*arguments)

    monkeypatch.setattr(vms._life, "record_exit", count)
    return seen


def row(world):
    (vm,) = world.store.vms.list()
    return vm


# A row that cannot be written


@pytest.mark.parametrize("way", ["kill from outside", "vm kill", "vm stop"])
async def test_a_vmm_that_ends_while_the_disk_is_full_is_left_alone_until_there_is_room(
    vms, world, rounds, monkeypatch, way
):
    vm = (await vms.create(VmCreate(name="web"), QUIET)).vm
    monkeypatch.setattr("banger.services.vms.recovery._RETRY_S", 0.01)
    with monkeypatch.context() as disk:
        disk.setattr(world.store.vms, "save", full)
        if way == "kill from outside":
            world.vmm.host.kill(vm.runtime.pid)
        else:
            with pytest.raises(Problem, match="no space"):
                await (
                    vms.kill(VmKill(vm="web"), QUIET)
                    if way == "vm kill"
                    else vms.stop(VmStop(vm="web"), QUIET)
                )
        await asyncio.sleep(0.1)
        assert len(rounds) <= 1
        assert world.vmm.host.alive() == []
    await vms.recover()
    async with asyncio.timeout(5):
        while row(world).holds or row(world).state in {VmState.RUNNING, VmState.STOPPING}:
            await asyncio.sleep(0.001)
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.state is VmState.RUNNING


async def test_a_work_disk_never_shrinks_whatever_its_row_knows(vms, world, monkeypatch):
    vm = (await vms.create(VmCreate(name="web", start=False, disk_size_bytes=GIB), QUIET)).vm
    disk = world.root / "vms" / vm.id / "work.img"
    with monkeypatch.context() as broken:
        broken.setattr(world.store.vms, "save", full)
        with pytest.raises(Problem, match="no space"):
            await vms.set(VmSet(vm="web", disk_size_bytes=4 * GIB))
    with pytest.raises(Problem, match="cannot shrink to 2 GiB") as caught:
        await vms.set(VmSet(vm="web", disk_size_bytes=2 * GIB))
    assert "4 GiB or more" in caught.value.hint
    assert disk.stat().st_size == 4 * GIB
    assert (await vms.set(VmSet(vm="web", disk_size_bytes=4 * GIB))).vm.spec.disk_size_bytes == 4 * GIB


# A VMM that cannot be ended or asked


async def test_an_end_that_cannot_be_concluded_is_tried_again_and_not_all_the_time(
    vms, world, rounds, monkeypatch
):
    monkeypatch.setattr("banger.services.vms.recovery._RETRY_S", 0.01)
    vm = (await vms.create(VmCreate(name="web"), QUIET)).vm
    await vms.recover()
    kill = world.vmm.kill

    async def refuse(handle):
        raise unavailable("the root helper does not run")

    world.vmm.kill = refuse
    world.vmm.host.kill(vm.runtime.pid)
    async with asyncio.timeout(5):
        while not rounds:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)
    assert len(rounds) == 1
    assert len(row(world).holds) == 3
    world.vmm.kill = kill
    async with asyncio.timeout(5):
        while row(world).holds:
            await asyncio.sleep(0.001)
    assert row(world).state is VmState.ERROR


async def test_a_stop_that_failed_leaves_a_vm_that_runs(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)

    async def fail(handle, *, deadline_s):
        raise Problem(Code.OPERATION_FAILED, "the VMM does not listen")

    world.guests[0].is_silent = True
    world.vmm.stop = fail
    with pytest.raises(Problem):
        await vms.stop(VmStop(vm="web", timeout_s=0.1), QUIET)
    assert row(world).state is VmState.RUNNING
    assert len(world.vmm.host.alive()) == 1


async def test_at_a_shutdown_one_that_cannot_be_ended_keeps_no_other_running(vms, world):
    for name in ("one", "two", "three"):
        await vms.create(VmCreate(name=name), QUIET)
    bad = find(vms, "one").runtime.pid
    kill = world.vmm.kill

    async def refuse(handle):
        if handle.pid == bad:
            raise Problem(Code.OPERATION_FAILED, "still there")
        return await kill(handle)

    async def wait_for_ever(handle, *, deadline_s):
        await asyncio.Event().wait()

    world.vmm.kill, world.vmm.stop = refuse, wait_for_ever
    hurry = asyncio.Event()
    hurry.set()
    await vms.stop_all(hurry)
    assert [handle.pid for handle in world.vmm.host.alive()] == [bad]
    world.vmm.kill = kill


async def test_a_vmm_of_which_the_row_knows_an_earlier_one_is_found_by_its_place(world):
    """What was given back late must not stand for what was started since."""
    written = {}
    start = world.vmm.start

    async def remember(machine, place, tap=None):
        handle = await start(machine, place, tap)
        written["at the kill"] = row(world)
        return handle

    async with world.open() as first:
        await first.create(VmCreate(name="web"), QUIET)
        world.store.vms.save(msgspec.structs.replace(row(world), state=VmState.ERROR))
        live = await first._life.live.take(row(world).id)
        await live.hang_up()
        await first.reconcile(DaemonReconcile())
        assert (row(world).runtime, row(world).holds) == (None, ())
        world.vmm.start = remember
        await first.start(VmStart(vm="web"), QUIET)
    world.store.vms.save(written["at the kill"])
    async with world.open() as second:
        await second.recover()
        assert row(world).state is VmState.ERROR
    assert world.vmm.host.alive() == []


async def test_after_a_reboot_nothing_is_shown_as_running_even_if_nothing_can_be_given_back(world):
    async with world.open() as first:
        before = (await first.create(VmCreate(name="web"), QUIET)).vm
    other_boot = msgspec.structs.replace(before.runtime, host_boot="another boot")
    world.store.vms.save(msgspec.structs.replace(row(world), runtime=other_boot))
    evict = world.vmm.evict

    async def refuse(place):
        raise unavailable("the root helper does not run")

    world.vmm.evict = refuse
    async with world.open() as second:
        assert (await second.recover()).left
        assert (row(world).state, row(world).runtime) == (VmState.STOPPED, None)
        assert row(world).holds
    world.vmm.evict = evict
    async with world.open() as third:
        await third.recover()
    assert row(world).holds == ()


async def test_a_guest_that_does_not_answer_holds_up_no_daemon(world, monkeypatch):
    async with world.open() as first:
        for name in ("web", "silent"):
            await first.create(VmCreate(name=name), QUIET)
        silent = find(first, "silent").runtime.pid
    monkeypatch.setattr("banger.services.vms.recovery._PATIENCE_S", 0.05)
    connect = world.vmm.connect_agent

    async def hang(handle):
        if handle.pid == silent:
            await asyncio.Event().wait()
        return await connect(handle)

    world.vmm.connect_agent = hang
    async with world.open() as second:
        async with asyncio.timeout(2):
            assert sorted((await second.recover()).adopted) == ["silent", "web"]
        async with asyncio.timeout(5):
            while not answers(second, "web"):
                await asyncio.sleep(0.001)


def answers(vms, name):
    with suppress(Problem):
        return bool(vms.get_agent(find(vms, name)))
    return False


# A port that is snatched away


@pytest.mark.parametrize("attempts", [2, 99])
async def test_a_port_that_is_tried_anew_leaves_one_hold_of_each_kind(vms, world, attempts):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    start, tries = world.vmm.start, []

    async def refuse(machine, place, tap=None):
        tries.append(machine)
        if len(tries) < attempts:
            raise conflict("the port is taken")
        return await start(machine, place, tap)

    world.vmm.start = refuse
    if attempts == 2:
        await vms.start(VmStart(vm="web"), QUIET)
        assert [hold.step for hold in row(world).holds] == ["attach root", "network", "start vmm"]
    else:
        with pytest.raises(Problem):
            await vms.start(VmStart(vm="web"), QUIET)
        assert row(world).holds == ()


# Waiting beyond the start


async def test_a_vm_whose_start_waits_for_ssh_can_be_killed_meanwhile(vms, world):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    world.guests.clear()
    starting = asyncio.create_task(vms.start(VmStart(vm="web", wait_ssh=True), QUIET))
    while not world.guests:
        await asyncio.sleep(0)
    world.guests[0].listeners = ()
    while row(world).state is not VmState.RUNNING:
        await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        assert (await vms.kill(VmKill(vm="web"), QUIET)).vm.state is VmState.STOPPED
    with pytest.raises(Problem):
        await starting


async def test_a_start_that_is_cancelled_while_it_waits_is_taken_back(vms, world):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    starting = asyncio.create_task(vms.start(VmStart(vm="web", wait_ssh=True), QUIET))
    while not world.guests:
        await asyncio.sleep(0)
    world.guests[0].listeners = ()
    while row(world).state is not VmState.RUNNING:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with asyncio.timeout(5):
        while row(world).state is not VmState.STOPPED:
            await asyncio.sleep(0.001)
    assert row(world).holds == ()


# On the bridge


async def test_a_vm_that_is_taken_over_late_keeps_its_place(world, monkeypatch):
    root = FakePrivileged()
    inherited = Inheritance(world.vmm)
    monkeypatch.setattr("banger.services.vms.recovery._RETRY_S", 0.05)
    async with open_again(world, root) as first:
        await first._around.networks.settle()
        vm = await create(first, "web", nat=True)
    inherited.forget_daemon()
    adopt = world.vmm.adopt

    async def refuse(handle):
        raise unavailable("QEMU is alive and does not answer")

    world.vmm.adopt = refuse
    async with open_again(world, root) as second:
        await second._around.networks.settle()
        assert vm.runtime.tap in root.taps
        assert list(root.guests) == [vm.runtime.tap]
        world.vmm.adopt = adopt
        async with asyncio.timeout(5):
            while vm.id not in second._life.live:
                await asyncio.sleep(0.01)
        assert list(root.guests) == [vm.runtime.tap]
        await second.stop(VmStop(vm="web"), QUIET)
        assert root.guests == {}


async def test_nat_of_which_nobody_knows_is_made_what_the_row_says(world, monkeypatch):
    root = FakePrivileged()
    async with Supervisor() as tasks:
        networks = open_networks(root, tasks)
        vms = VmService(world.around._replace(networks=networks), tasks)
        networks.open()
        await create(vms, "web")
        call = root.call

        async def late(request, descriptors=()):
            reply = await call(request, descriptors)
            if request.method == "admit_guest":
                raise Problem(Code.UNAVAILABLE, "no answer", outcome=Outcome.UNKNOWN)
            return reply

        with monkeypatch.context() as slow:
            slow.setattr(root, "call", late)
            with pytest.raises(Problem, match="no answer"):
                await vms.set(VmSet(vm="web", nat=True))
        await networks.bridge.repair()
        assert not find(vms, "web").spec.nat
        assert [guest.nat for guest in root.guests.values()] == [False]
        await vms.kill(VmKill(vm="web"), QUIET)
        await vms.close()
        await networks.close()
