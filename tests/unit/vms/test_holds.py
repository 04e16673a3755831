"""What a VM has of the host is written before it is taken, and given back strictly in reverse."""

from contextlib import AsyncExitStack

import pytest
from tests.unit.vms.conftest import Recorder

from banger.api.vm import VmCreate, VmKill, VmStart, VmStop
from banger.base.problem import Code, Problem, conflict
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.model.vm import Hold, NetworkMode, VmState
from banger.services.vms.holds import Holds, Start, Step
from banger.services.vms.rows import Rows

QUIET = Silent()


class Scripted(Step):
    """`told` gets every call with what the row held at that time."""

    def __init__(self, name, rows, told):
        self.name = name
        self.rows = rows
        self.told = told
        self.refusal = None

    def describe(self, start):
        return {"of": self.name}

    async def do(self, start):
        self.note("do", start.vm)
        if self.refusal is not None:
            raise self.refusal

    async def undo(self, vm, what):
        self.note("undo", vm)
        assert what == {"of": self.name}
        if self.refusal is not None:
            raise self.refusal

    def note(self, verb, vm):
        self.told.append((verb, self.name, [hold.step for hold in self.rows.find(vm.id).holds]))


@pytest.fixture
async def vm(vms):
    return (await vms.create(VmCreate(name="web", start=False), QUIET)).vm


@pytest.fixture
async def stage(world, vm):
    """Two scripted steps, their holds, and what happened."""
    rows, told = Rows(world.store.vms, world.around.entropy), []
    steps = [Scripted(name, rows, told) for name in ("one", "two")]
    async with Supervisor() as tasks:
        yield Holds(rows, steps, tasks), steps, told, Start(vm, None, None, NetworkMode.USER)


async def take(holds, steps, start):
    async with AsyncExitStack() as undo:
        for step in steps:
            await holds.take(step, start, undo, Recorder())
        undo.pop_all()


async def test_each_is_written_before_it_is_taken_and_dropped_after_it_was_given_back(stage, world, vm):
    holds, steps, told, start = stage
    await take(holds, steps, start)
    await holds.give_back_all(vm.id)
    assert told == [
        ("do", "one", ["one"]),
        ("do", "two", ["one", "two"]),
        ("undo", "two", ["one", "two"]),
        ("undo", "one", ["one"]),
    ]
    assert world.store.vms.find(vm.id).holds == ()


async def test_a_step_that_fails_is_undone_with_those_before_it(stage, world, vm):
    holds, steps, told, start = stage
    failure = conflict("no")
    steps[1].do = lambda start: (_ for _ in ()).throw(failure)
    with pytest.raises(Problem) as caught:
        await take(holds, steps, start)
    assert caught.value is failure
    assert [entry[:2] for entry in told] == [("do", "one"), ("undo", "two"), ("undo", "one")]
    assert world.store.vms.find(vm.id).holds == ()


async def test_what_cannot_be_given_back_stays_with_all_that_it_may_use(stage, world, vm, caplog):
    holds, steps, told, start = stage
    steps[1].refusal = conflict("it is busy")
    with pytest.raises(Problem, match="busy"):
        await take(holds, steps, start)
    assert [entry[:2] for entry in told] == [("do", "one"), ("do", "two"), ("undo", "two")]
    assert [hold.step for hold in world.store.vms.find(vm.id).holds] == ["one", "two"]
    assert "not undone yet" in caplog.text
    with pytest.raises(Problem, match="busy"):
        await holds.give_back_all(vm.id)
    steps[1].refusal = None
    await holds.give_back_all(vm.id)
    assert world.store.vms.find(vm.id).holds == ()


async def test_a_disk_that_is_full_keeps_nobody_from_giving_back(stage, world, vm, monkeypatch):
    holds, steps, told, start = stage
    await take(holds, steps, start)
    full = Problem(Code.NO_SPACE, "the disk is full")

    def refuse(row):
        raise full

    monkeypatch.setattr(world.store.vms, "save", refuse)
    await holds.give_back_all(vm.id)
    assert [entry[:2] for entry in told[2:]] == [("undo", "two"), ("undo", "one")]
    monkeypatch.undo()
    await holds.give_back_all(vm.id)  # the row did not take it: once more, and idempotent
    assert world.store.vms.find(vm.id).holds == ()


async def test_a_running_vm_has_its_holds_in_the_order_of_their_taking_and_a_stopped_one_none(vms, world, vm):
    await vms.start(VmStart(vm="web"), QUIET)
    assert world.store.vms.find(vm.id).holds == (
        Hold(step="attach root"),
        Hold(step="network"),
        Hold(step="start vmm", what={"backend": "fake"}),
    )
    await vms.stop(VmStop(vm="web"), QUIET)
    assert world.store.vms.find(vm.id).holds == ()


async def test_a_vmm_that_cannot_be_ended_keeps_everything_and_is_asked_again(vms, world, vm):
    await vms.start(VmStart(vm="web"), QUIET)
    kill = world.vmm.kill

    async def refuse(handle):
        raise Problem(Code.OPERATION_FAILED, "it is still there")

    world.vmm.kill = refuse
    with pytest.raises(Problem, match="still there"):
        await vms.kill(VmKill(vm="web"), QUIET)
    row = world.store.vms.find(vm.id)
    assert (row.state, len(row.holds)) == (VmState.RUNNING, 3)
    world.vmm.kill = kill
    assert (await vms.kill(VmKill(vm="web"), QUIET)).vm.state is VmState.STOPPED
    assert world.store.vms.find(vm.id).holds == ()


async def test_a_start_first_gives_back_what_an_earlier_end_could_not(vms, world, vm):
    release, refusals = vms._life._root._storage.get(vm.root_driver).release, [conflict("it is busy")]

    async def refuse_once(vm_id):
        if refusals:
            raise refusals.pop()
        await release(vm_id)

    vms._life._root._storage.get(vm.root_driver).release = refuse_once
    await vms.start(VmStart(vm="web"), QUIET)
    assert (await vms.stop(VmStop(vm="web"), QUIET)).vm.state is VmState.STOPPED
    assert [hold.step for hold in world.store.vms.find(vm.id).holds] == ["attach root"]
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.state is VmState.RUNNING
    assert len(world.store.vms.find(vm.id).holds) == 3
