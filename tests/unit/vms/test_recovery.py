"""A daemon that died at any step: what the next one finds, and what somebody finds who asks while VMs run."""

import asyncio
import threading

import msgspec
import pytest
from tests.unit.hostnet.places import free_ports

from banger.api.system import DaemonReconcile
from banger.api.vm import VmCreate, VmDelete, VmExec, VmList, VmPublish, VmShow, VmStart, VmStop
from banger.base.problem import Problem, conflict, unavailable
from banger.base.progress import Silent
from banger.model.storage import StorageDriver
from banger.model.vm import VmState
from banger.services.vms.layout import Layout

QUIET = Silent()


async def run_one(world, **fields):
    """A VM that runs, and the daemon that started it gone."""
    async with world.open() as first:
        return (await first.create(VmCreate(name="web", **fields), QUIET)).vm


def change(world, **changes):
    (vm,) = world.store.vms.list()
    world.store.vms.save(msgspec.structs.replace(vm, **changes))


def show(vms):
    return vms.show(VmShow(vm="web")).vm


async def test_what_runs_is_taken_over_with_all_that_it_has(world):
    before = await run_one(world)
    async with world.open() as second:
        found = await second.recover()
        assert found.adopted == ["web"]
        assert show(second).runtime == before.runtime
        assert show(second).holds == before.holds
        await second.stop(VmStop(vm="web"), QUIET)
        assert show(second).holds == ()
    assert world.vmm.host.alive() == []


async def test_a_vm_of_a_version_without_holds_gets_those_that_it_has(world):
    await run_one(world)
    change(world, holds=())
    async with world.open() as second:
        await second.recover()
        assert [hold.step for hold in show(second).holds] == ["attach root", "network", "start vmm"]
        assert (await second.stop(VmStop(vm="web"), QUIET)).vm.state is VmState.STOPPED
    assert world.vmm.host.alive() == []


async def test_after_a_reboot_of_the_host_nothing_runs_and_nothing_is_wrong(world):
    """The pid of then may be anybody's now, even one that a VMM has."""
    before = await run_one(world)
    change(world, runtime=msgspec.structs.replace(before.runtime, host_boot="another boot"))
    world.vmm.evict = None  # set below: the fake's processes would not survive a reboot

    async def evict(place):
        world.vmm.host.kill(before.runtime.pid)

    async def kill(handle):
        pytest.fail("a process of another boot is nobody's to kill")

    world.vmm.evict, world.vmm.kill = evict, kill
    async with world.open() as second:
        found = await second.recover()
        assert found.stopped == ["web: the host has booted since"]
        vm = show(second)
        assert (vm.state, vm.error, vm.runtime, vm.holds) == (VmState.STOPPED, None, None, ())


@pytest.mark.parametrize("alive", [True, False])
async def test_a_stop_that_was_interrupted_is_finished(world, alive):
    before = await run_one(world)
    change(world, state=VmState.STOPPING)
    if not alive:
        world.vmm.host.kill(before.runtime.pid)
    async with world.open() as second:
        await second.recover()
        async with asyncio.timeout(5):
            while show(second).state is not VmState.STOPPED:
                await asyncio.sleep(0.001)
        assert (show(second).error, show(second).holds) == (None, ())
    assert world.vmm.host.alive() == []


async def test_a_start_that_was_interrupted_is_finished_when_its_guest_answers(world):
    before = await run_one(world)
    runtime = msgspec.structs.replace(before.runtime, boot_id="")
    change(world, state=VmState.STARTING, runtime=runtime)
    async with world.open() as second:
        await second.recover()
        vm = show(second)
        assert (vm.state, vm.runtime) == (VmState.RUNNING, before.runtime)


@pytest.mark.parametrize("booted", [True, False])
async def test_a_guest_that_has_no_time_for_us_runs_on_unless_nobody_ever_heard_of_it(
    world, booted, monkeypatch
):
    before = await run_one(world)
    if not booted:
        change(world, state=VmState.STARTING, runtime=msgspec.structs.replace(before.runtime, boot_id=""))
    monkeypatch.setattr("banger.services.vms.recovery._ADOPTION_S", 0.01)
    connect = world.vmm.connect_agent

    async def hang(handle):
        await asyncio.Event().wait()

    world.vmm.connect_agent = hang
    async with world.open() as second:
        await second.recover()
        if not booted:
            assert show(second).state is VmState.ERROR
            assert world.vmm.host.alive() == []
            return
        assert show(second).state is VmState.RUNNING
        with pytest.raises(Exception, match="not connected"):
            second.get_agent(show(second))
        world.vmm.connect_agent = connect
        await second._life.live.meet_again()
        assert (await second.get_agent(show(second)).health()) is not None


async def test_a_vmm_that_cannot_be_asked_now_is_left_alone_and_taken_over_later(world, monkeypatch):
    await run_one(world)
    monkeypatch.setattr("banger.services.vms.recovery._RETRY_S", 0.01)
    adopt = world.vmm.adopt

    async def refuse(handle):
        raise unavailable("the helper does not run")

    world.vmm.adopt = refuse
    async with world.open() as second:
        found = await second.recover()
        assert found.left == ["web: the helper does not run"]
        assert show(second).state is VmState.RUNNING
        assert len(world.vmm.host.alive()) == 1
        world.vmm.adopt = adopt
        async with asyncio.timeout(5):
            while show(second).id not in second._life.live:
                await asyncio.sleep(0.01)


async def test_what_a_stopped_vm_still_has_is_given_back(world):
    async with world.open() as first:
        await first.create(VmCreate(name="web"), QUIET)
        held = show(first).holds
        await first.stop(VmStop(vm="web"), QUIET)
    change(world, holds=held)
    async with world.open() as second:
        found = await second.recover()
        assert found.swept == ["web: start vmm, network, attach root"]
        assert show(second).holds == ()


async def test_files_beside_the_database_that_are_damaged_or_gone_stop_nobody(world):
    async with world.open() as first:
        for name in ("gone", "file", "web"):
            await first.create(VmCreate(name=name, start=False), QUIET)
    rows = {vm.name: vm for vm in world.store.vms.list()}
    for name in ("gone", "file"):
        directory = world.root / "vms" / rows[name].id
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
    (world.root / "vms" / rows["file"].id).write_text("no directory")
    (world.root / "vms" / "0123456789ab").write_text("no directory, and nobody's")
    async with world.open() as second:
        await second.recover()
        assert len(second.list_vms(VmList(all=True)).vms) == 3
        assert (await second.start(VmStart(vm="web"), QUIET)).vm.state is VmState.RUNNING
        for name in ("gone", "file"):
            with pytest.raises(Problem, match=f"the files of {name} are gone"):
                await second.start(VmStart(vm=name), QUIET)
            assert world.store.vms.find(rows[name].id).state is VmState.CREATED
            await second.delete(VmDelete(vm=name), QUIET)
        assert [vm.name for vm in world.store.vms.list()] == ["web"]


async def test_a_file_that_was_being_written_goes_and_the_others_stay(world):
    async with world.open() as first:
        vm = (await first.create(VmCreate(name="web", start=False), QUIET)).vm
    directory = world.root / "vms" / vm.id
    before = sorted(directory.iterdir())
    (directory / ".initramfs.cpio.0123abcd.tmp").write_bytes(b"half of a key")
    async with world.open() as second:
        await second.recover()
    assert sorted(directory.iterdir()) == before


async def test_reconciling_while_all_is_well_changes_nothing(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    before = world.store.vms.list()
    found = await vms.reconcile(DaemonReconcile())
    assert not any(msgspec.structs.astuple(found))
    assert world.store.vms.list() == before


async def test_reconciling_leaves_alone_what_somebody_is_changing(vms, world):
    world.vmm.faults.hang_start = True
    creating = asyncio.create_task(vms.create(VmCreate(name="web"), QUIET))
    while not any(hold.step == "start vmm" for vm in world.store.vms.list() for hold in vm.holds):
        await asyncio.sleep(0)
    found = await vms.reconcile(DaemonReconcile())
    assert found.left == ["web: it is being changed right now"]
    assert (world.root / "vms" / show(vms).id).exists()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert world.leftovers() == []


async def test_reconciling_removes_what_no_vm_owns_and_says_so(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    stray = world.root / "vms" / "0123456789ab"
    stray.mkdir()
    found = await vms.reconcile(DaemonReconcile())
    assert found.swept == [f"directory {stray}"]
    assert not stray.exists()


class Caller:
    """Of a command that nobody gives input."""

    def __init__(self):
        self.output = b""

    async def accept(self, **about): ...

    async def inputs(self):
        return
        yield

    async def write(self, stream, data):
        self.output += data

    async def finish(self, *, status=None, signal=None): ...


async def test_a_link_that_was_cut_is_made_again(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    await vms.get_agent(show(vms)).link.aclose()
    with pytest.raises(Exception, match="not connected"):
        vms.get_agent(show(vms))
    await vms._life.live.meet_again()
    caller = Caller()
    await vms.execute(VmExec(vm="web", argv=["echo", "here"]), caller)
    assert caller.output == b"here\n"


async def test_who_follows_guests_hears_of_each_connection_and_of_those_there_are(vms, world):
    met, late = [], []
    vms.on_agent(lambda vm_id, agent: met.append((vm_id, agent)))
    await vms.create(VmCreate(name="web"), QUIET)
    await vms.get_agent(show(vms)).link.aclose()
    await vms._life.live.meet_again()
    assert [vm_id for vm_id, _ in met] == [show(vms).id] * 2
    assert met[0][1] is not met[1][1]
    vms.on_agent(lambda vm_id, agent: late.append((vm_id, agent)))
    assert late == met[1:]


async def test_who_follows_guests_and_fails_spoils_neither_a_start_nor_the_links(vms, world):
    def fail(vm_id, agent):
        raise unavailable("the database cannot be used")

    met = []
    vms.on_agent(fail)
    vms.on_agent(lambda vm_id, agent: met.append(vm_id))
    await vms.create(VmCreate(name="web"), QUIET)
    await vms.get_agent(show(vms)).link.aclose()
    await vms._life.live.meet_again()
    assert not vms.get_agent(show(vms)).link.is_closed
    assert met == [show(vms).id] * 2


async def test_a_removal_that_could_not_be_finished_is_told_refuses_a_start_and_is_finished_later(
    vms, world, monkeypatch
):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    monkeypatch.setattr("banger.services.vms.recovery._RETRY_S", 0.01)
    await vms.recover()
    remove = Layout.remove

    def refuse(layout):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Layout, "remove", refuse)
    with pytest.raises(OSError, match="Input/output"):
        await vms.delete(VmDelete(vm="web"), QUIET)
    with pytest.raises(Problem, match="being removed"):
        await vms.start(VmStart(vm="web"), QUIET)
    monkeypatch.setattr(Layout, "remove", remove)
    async with asyncio.timeout(5):
        while world.store.vms.list():
            await asyncio.sleep(0.01)
    assert world.leftovers() == []


async def test_a_bug_in_one_vm_s_recovery_is_logged_and_the_others_are_taken_over(world, monkeypatch, caplog):
    async with world.open() as first:
        for name in ("web", "odd"):
            await first.create(VmCreate(name=name), QUIET)
    adopt = world.vmm.adopt

    async def stumble(handle):
        if "odd" in {vm.name for vm in world.store.vms.list() if vm.runtime.pid == handle.pid}:
            raise AssertionError("never")
        return await adopt(handle)

    world.vmm.adopt = stumble
    async with world.open() as second:
        found = await second.recover()
        assert found.adopted == ["web"]
        assert "odd" in found.left[0]
    assert "left as it is" in caplog.text


async def test_a_port_of_the_row_that_the_vmm_does_not_forward_is_forwarded(world):
    (port,) = free_ports(1)
    async with world.open() as first:
        vm = (await first.create(VmCreate(name="web", publish=[port]), QUIET)).vm
    process = world.vmm.host.processes[vm.runtime.pid, vm.runtime.start_time]
    process.forwards.clear()
    async with world.open() as second:
        await second.recover()
    assert [forward.host_port for forward in process.forwards] == [int(port.partition(":")[0])]


async def test_a_port_that_cannot_be_published_is_not_in_the_row(vms, world):
    (port,) = free_ports(1)
    await vms.create(VmCreate(name="web"), QUIET)

    async def refuse(handle, forward):
        raise conflict("it is taken")

    world.vmm.add_forward = refuse
    with pytest.raises(Problem, match="it is taken"):
        await vms.publish(VmPublish(vm="web", port=port))
    assert show(vms).spec.publish == ()


async def test_a_creation_that_is_cancelled_while_files_are_written_leaves_none(vms, world, monkeypatch):
    """The thread that writes cannot be cancelled: what it does is undone after it."""
    writing, go_on = threading.Event(), threading.Event()
    create = world.around.storage.get(StorageDriver.QCOW2).create

    def slow(root):
        writing.set()
        go_on.wait(5)
        create(root)

    monkeypatch.setattr(world.around.storage.get(StorageDriver.QCOW2), "create", slow)
    creating = asyncio.create_task(vms.create(VmCreate(name="web"), QUIET))
    while not writing.is_set():
        await asyncio.sleep(0.001)
    creating.cancel()
    await asyncio.sleep(0.01)
    creating.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert world.leftovers() == []
