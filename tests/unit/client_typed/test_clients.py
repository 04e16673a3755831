"""Both typed clients against a real server."""

import asyncio
import os
import socket
import threading

import pytest
from daemon_harness import open_harness

from banger.api.events import DetailEvent, StageEvent
from banger.api.system import DaemonState, DaemonStatus, OperationShow, OperationWatch, Ping
from banger.api.vm import VmCreate, VmDetails, VmExec, VmList, VmShow, VmSummaries
from banger.base.problem import Code, Outcome, Problem
from banger.client import aio, typed
from banger.client.replies import (
    CompletedCommand,
    Ended,
    decode_reply,
    name_problem,
)
from banger.model.operation import OperationState


@pytest.fixture
async def client(harness):
    async with aio.Client(harness.paths.socket) as client:
        yield client


async def test_results_have_the_types_of_the_api(client):
    assert isinstance(await client.call(VmShow(vm="web")), VmDetails)
    assert await client.call(VmList(all=True)) == VmSummaries(vms=[])
    assert isinstance(await client.call(DaemonStatus()), DaemonState)
    await client.call(Ping())


async def test_errors_are_problems(client):
    with pytest.raises(Problem) as caught:
        await client.call(VmShow(vm="missing"))
    problem = caught.value
    assert (problem.code, problem.outcome) == (Code.NOT_FOUND, Outcome.NOT_STARTED)
    assert problem.hint == "banger vm list --all"


async def test_connections_are_used_again_and_calls_run_at_once(client, harness):
    for _ in range(5):
        await client.call(Ping())
    assert harness.server.connections == 1
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.call(VmShow(vm=f"vm{n}"))) for n in range(10)]
    assert [task.result().vm.name for task in tasks] == [f"vm{n}" for n in range(10)]


async def test_events_come_typed_and_then_the_result(client, harness):
    harness.services.release.set()
    events = []
    details = await client.call(VmCreate(name="db"), on_event=events.append, op="op-a")
    assert details.vm.name == "db"
    assert [type(event) for event in events] == [StageEvent, DetailEvent, StageEvent, StageEvent, StageEvent]
    assert (await client.call(OperationShow(operation="op-a"))).state is OperationState.SUCCEEDED


async def test_following_reads_events_one_by_one_and_leaving_cancels(client, harness):
    async with client.follow(VmCreate(name="db")) as following:
        async for event in following.events():
            assert isinstance(event, StageEvent)
            break
    await asyncio.wait_for(harness.services.undone.wait(), 5)


async def test_cancelling_a_call_cancels_its_work(client, harness):
    calling = asyncio.create_task(client.call(VmCreate(name="db")))
    await asyncio.wait_for(harness.services.began.wait(), 5)
    calling.cancel()
    await asyncio.wait({calling})
    await asyncio.wait_for(harness.services.undone.wait(), 5)
    await client.call(Ping())


async def test_begin_goes_on_alone_and_is_watched(client, harness):
    operation = await client.begin(VmCreate(name="db"))
    assert operation.state is OperationState.RUNNING
    harness.services.release.set()
    ended = await client.call(OperationWatch(operation=operation.id))
    assert ended.state is OperationState.SUCCEEDED
    with pytest.raises(Problem):
        await client.begin(Ping())


async def test_a_command_with_input_output_signal_and_size(client):
    async with client.exec(VmExec(vm="web", argv=["cat", "3"], stdin=True)) as command:
        assert command.pid == 42
        await command.write(b"hello")
        await command.resize(24, 80)
        await command.close_stdin()
        outputs = [output async for output in command.outputs()]
        assert outputs == [(1, b"hello"), (2, b"24x80")]
        assert await command.wait() == Ended(status=3)
    async with client.exec(VmExec(vm="web", argv=["cat"])) as command:
        await command.send_signal(9)
        ended = await command.wait()
        assert (ended.signal, ended.exit_status) == (9, 137)


@pytest.mark.parametrize(("argv", "code"), [("refuse", Code.NOT_RUNNING), ("break", Code.UNAVAILABLE)])
async def test_a_command_that_cannot_be_run_is_a_problem(client, argv, code):
    with pytest.raises(Problem) as caught:
        await client.run_command(VmExec(vm="web", argv=[argv]))
    assert caught.value.code is code


async def test_leaving_a_command_ends_it(client, harness):
    async with client.exec(VmExec(vm="web", argv=["sink"])):
        pass
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)


async def test_run_command_passes_megabytes_both_ways(client):
    data = bytes(range(256)) * 8192
    completed = await client.run_command(VmExec(vm="web", argv=["cat", "4"], stdin=True), data)
    assert completed == CompletedCommand(4, data, b"")
    early = await client.run_command(VmExec(vm="web", argv=["burst", "5"], stdin=True), data * 4)
    assert (early.status, len(early.stdout)) == (5, 8 * 2**20)


async def test_a_daemon_that_is_not_there_is_a_problem(tmp_path):
    with pytest.raises(Problem) as caught:
        await aio.Client(str(tmp_path / "none")).call(Ping())
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_daemon_that_was_replaced_is_found_again(tmp_path):
    client = None
    for _ in range(2):
        async with open_harness(tmp_path) as harness:
            client = client or aio.Client(harness.paths.socket)
            await client.call(Ping())
    with pytest.raises(Problem):
        await client.call(Ping())


class TestBlocking:
    """The blocking client in a thread, as the server has the loop."""

    async def run(self, harness, use):
        def work():
            with typed.Client(harness.paths.socket) as client:
                return use(client)

        return await asyncio.to_thread(work)

    async def test_calls(self, harness):
        harness.services.release.set()
        events = []

        def use(client):
            assert client.call(VmShow(vm="web")).vm.name == "web"
            assert client.call(VmCreate(name="db"), on_event=events.append).vm.name == "db"
            assert client.begin(VmCreate(name="db")).state is OperationState.RUNNING
            with pytest.raises(Problem) as caught:
                client.call(VmShow(vm="missing"))
            client.call(Ping())
            return caught.value

        problem = await self.run(harness, use)
        assert problem.code is Code.NOT_FOUND
        assert isinstance(events[0], StageEvent)

    async def test_commands(self, harness):
        data = bytes(range(256)) * 8192

        def use(client):
            assert client.run_command(VmExec(vm="w", argv=["cat", "4"], stdin=True), data) == (4, data, b"")
            early = client.run_command(VmExec(vm="w", argv=["burst", "5"], stdin=True), data * 4)
            assert (early.status, len(early.stdout)) == (5, 8 * 2**20)
            for argv in ("refuse", "break"):
                with pytest.raises(Problem):
                    client.run_command(VmExec(vm="w", argv=[argv]))
            client.call(Ping())

        await self.run(harness, use)

    async def test_an_exception_on_the_way_cancels_the_work(self, harness):
        def use(client):
            def stop(event):
                raise LookupError

            with pytest.raises(LookupError):
                client.call(VmCreate(name="db"), on_event=stop)
            client.call(Ping())

        await self.run(harness, use)
        await asyncio.wait_for(harness.services.undone.wait(), 5)

    async def test_a_daemon_that_was_replaced_is_found_again_by_the_first_call(self, tmp_path):
        client = None
        for _ in range(2):
            async with open_harness(tmp_path) as harness:
                client = client or typed.Client(harness.paths.socket)
                await asyncio.to_thread(client.call, Ping())
                assert harness.server.connections == 1
                await asyncio.to_thread(client.call, Ping())
                assert harness.server.connections == 1
        with pytest.raises(Problem):
            client.call(Ping())

    def test_no_daemon(self, tmp_path):
        assert threading.current_thread() is threading.main_thread()
        with pytest.raises(Problem) as caught:
            typed.Client(str(tmp_path / "none")).call(Ping())
        assert caught.value.code is Code.UNAVAILABLE


def test_an_unknown_code_counts_as_internal():
    problem = name_problem({"code": "of_the_future", "message": "m", "outcome": "unknown"})
    assert (problem.code, problem.brief) == (Code.INTERNAL, "m")


def test_nonsense_from_the_daemon_is_a_problem():
    with pytest.raises(Problem) as caught:
        decode_reply(b"hello\n")
    assert caught.value.code is Code.BAD_VERSION


def _listen_as_somebody_else(path) -> socket.socket:
    """SO_PEERCRED is who called listen(2)."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    os.seteuid(65534)
    try:
        listener.listen()
    finally:
        os.seteuid(0)
    return listener


@pytest.mark.skipif(os.getuid() != 0, reason="only root can listen as somebody else")
@pytest.mark.parametrize("named", [True, False])
async def test_a_listener_of_another_user_is_refused(tmp_path, monkeypatch, named):
    monkeypatch.setenv("BANGER_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "daemon.sock"
    with _listen_as_somebody_else(path):
        async with aio.Client(str(path) if named else None) as client:
            with pytest.raises(Problem, match="uid 65534") as caught:
                await client.call(Ping())
    assert (caught.value.code, caught.value.outcome) == (Code.UNAUTHORIZED, Outcome.NOT_STARTED)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can listen as somebody else")
async def test_a_listener_of_another_user_is_refused_after_a_start_too(tmp_path, monkeypatch):
    monkeypatch.setenv("BANGER_RUNTIME_DIR", str(tmp_path))
    listeners = []
    monkeypatch.setattr(
        aio.launch,
        "start_daemon",
        lambda: listeners.append(_listen_as_somebody_else(tmp_path / "daemon.sock")),
    )
    async with aio.Client() as client:
        with pytest.raises(Problem, match="uid 65534") as caught:
            await client.call(Ping())
    assert caught.value.code is Code.UNAUTHORIZED
    listeners[0].close()
