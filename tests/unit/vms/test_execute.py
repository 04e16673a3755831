import asyncio

import pytest

from banger.api.vm import VmCreate, VmExec, VmShow
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.model.vm import VmState
from banger.services.contract import SendSignal, Stdin

QUIET = Silent()


class Caller:
    """A caller's end of a stream, in memory."""

    def __init__(self, *inputs) -> None:
        self.queue = asyncio.Queue()
        for item in inputs:
            self.queue.put_nowait(item)
        self.started = asyncio.Event()
        self.output = {1: b"", 2: b""}
        self.end = None

    async def accept(self, *, pid: int) -> None:
        self.started.set()

    async def inputs(self):
        while True:
            yield await self.queue.get()

    async def write(self, stream: int, data: bytes) -> None:
        self.output[stream] += bytes(data)

    async def finish(self, *, status=None, signal=None) -> None:
        self.end = (status, signal)


@pytest.fixture
async def vm(vms):
    return (await vms.create(VmCreate(name="web"), QUIET)).vm


async def test_streams_and_status_arrive_apart(vms, vm):
    caller = Caller()
    await vms.execute(VmExec(vm="web", argv=["sh", "-c", "echo out; echo err >&2; exit 42"]), caller)
    assert caller.output == {1: b"out\n", 2: b"err\n"}
    assert caller.end == (42, None)


async def test_stdin_flows_until_its_end(vms, vm):
    caller = Caller(Stdin(b"one "), Stdin(b"two"), Stdin(b""))
    await vms.execute(VmExec(vm="web", argv=["cat"], stdin=True), caller)
    assert caller.output[1] == b"one two"


async def test_signals_reach_the_command(vms, vm):
    caller = Caller()
    call = asyncio.create_task(vms.execute(VmExec(vm="web", argv=["sleep", "60"]), caller))
    await caller.started.wait()
    caller.queue.put_nowait(SendSignal(15))
    await call
    assert caller.end == (None, 15)


async def test_a_caller_that_leaves_takes_the_command_along(vms, vm, world):
    caller = Caller()
    call = asyncio.create_task(vms.execute(VmExec(vm="web", argv=["sleep", "60"]), caller))
    await caller.started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(5):
        while world.guests[0].closed_count == 0:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("leaves", [False, True])
async def test_delete_after_removes_the_vm_however_the_command_ends(vms, vm, world, leaves):
    caller = Caller()
    argv = ["sleep", "60"] if leaves else ["true"]
    call = asyncio.create_task(vms.execute(VmExec(vm="web", argv=argv, delete_after=True), caller))
    if leaves:
        await caller.started.wait()
        call.cancel()
    await asyncio.wait([call])
    async with asyncio.timeout(5):
        while world.leftovers():
            await asyncio.sleep(0.001)


async def test_a_vm_made_for_a_command_that_never_comes_is_deleted(vms, world, monkeypatch):
    monkeypatch.setattr("banger.services.vms.departure._EPHEMERAL_GRACE_S", 0.05)
    await vms.create(VmCreate(name="brief", ephemeral=True), QUIET)
    async with asyncio.timeout(5):
        while world.leftovers():
            await asyncio.sleep(0.01)


async def test_a_vm_made_for_a_command_outlives_the_grace_while_it_runs(vms, world, monkeypatch):
    monkeypatch.setattr("banger.services.vms.departure._EPHEMERAL_GRACE_S", 0.5)
    await vms.create(VmCreate(name="brief", ephemeral=True), QUIET)
    caller = Caller()
    await vms.execute(VmExec(vm="brief", argv=["sleep", "1"], delete_after=True), caller)
    assert caller.end == (0, None)
    assert world.leftovers() == []


async def test_a_vm_made_for_a_command_outlives_the_grace_while_it_is_made_ready(vms, world, monkeypatch):
    monkeypatch.setattr("banger.services.vms.departure._EPHEMERAL_GRACE_S", 0.5)
    await vms.create(VmCreate(name="brief", ephemeral=True), QUIET)
    vm = vms.resolve("brief")
    with vms.using(vm.id):
        await asyncio.sleep(1)
    assert vms.resolve("brief").state is VmState.RUNNING
    async with asyncio.timeout(5):
        while world.leftovers():
            await asyncio.sleep(0.01)


async def test_a_command_that_cannot_start_says_so(vms, vm):
    with pytest.raises(Problem, match="command not found in the guest"):
        await vms.execute(VmExec(vm="web", argv=["/nonexistent/program"]), Caller())


@pytest.mark.parametrize(
    "request_", [VmExec(vm="web", argv=["env"], env=["NOVALUE"]), VmExec(vm="web", argv=[])]
)
async def test_bad_requests_are_refused(vms, vm, request_):
    with pytest.raises(Problem) as caught:
        await vms.execute(request_, Caller())
    assert caught.value.code is Code.BAD_REQUEST


async def test_a_stopped_vm_runs_nothing(vms, world):
    await vms.create(VmCreate(name="off", start=False), QUIET)
    with pytest.raises(Problem) as caught:
        await vms.execute(VmExec(vm="off", argv=["true"]), Caller())
    assert caught.value.code is Code.NOT_RUNNING
    assert caught.value.hint == "banger vm start off"


async def test_a_command_counts_as_activity(vms, vm):
    before = vms.show(VmShow(vm="web")).vm.last_touched_at
    await asyncio.sleep(0.01)
    await vms.execute(VmExec(vm="web", argv=["true"]), Caller())
    assert vms.show(VmShow(vm="web")).vm.last_touched_at > before
