"""Operations over the wire: attached, detached, watched, cancelled, left."""

import asyncio

import msgspec
import pytest
from daemon_harness import open_harness, wait_state

from banger.model.operation import OperationState, Resolution


async def read_to_reply(client):
    events = []
    while "event" in (line := await client.receive()):
        events.append(line["event"])
    return events, line


async def begin(client, harness, name="web", **more):
    await client.send({"v": 1, "method": "vm.create", "params": {"name": name}, "op": "op-a", **more})
    await asyncio.wait_for(harness.services.began.wait(), 5)


async def test_an_attached_operation_pushes_its_stages_and_then_the_result(client, harness):
    harness.services.release.set()
    await client.send({"v": 1, "method": "vm.create", "params": {"name": "web"}, "op": "op-a"})
    events, reply = await read_to_reply(client)
    assert [(event["type"], event.get("name"), event.get("state")) for event in events] == [
        ("stage", "prepare", "begin"),
        ("detail", None, None),
        ("stage", "prepare", "end"),
        ("stage", "boot", "begin"),
        ("stage", "boot", "end"),
    ]
    assert events[1] == {"type": "detail", "stage": "prepare", "text": "half of it"}
    assert events[2]["duration_ms"] >= 0
    assert reply["op"] == "op-a"
    assert reply["result"]["vm"]["name"] == "web"
    stored = harness.store.operations.find("op-a")
    assert stored.state is OperationState.SUCCEEDED
    assert stored.result["vm"]["name"] == "web"
    assert [stage.name for stage in stored.stages] == ["prepare", "boot"]


@pytest.mark.parametrize(("name", "code"), [("fails", "no_space"), ("bug", "internal")])
async def test_a_failure_arrives_and_is_kept(client, harness, name, code):
    reply = await client.call("vm.create", {"name": name}, op="op-a")
    assert reply["error"]["code"] == code
    assert reply["error"]["op"] == "op-a"
    stored = (await client.call("operation.show", {"operation": "op-a"}))["result"]
    assert (stored["state"], stored["error"]["code"]) == ("failed", code)


async def test_leaving_an_attached_operation_cancels_and_undoes_it(client, harness):
    await begin(client, harness)
    client.leave()
    await asyncio.wait_for(harness.services.undone.wait(), 5)
    await wait_state(harness, "op-a", OperationState.CANCELLED)


async def test_half_closing_counts_as_leaving(client, harness):
    await begin(client, harness)
    client.writer.write_eof()
    await asyncio.wait_for(harness.services.undone.wait(), 5)


async def test_a_second_line_cancels_an_attached_operation(client, harness):
    await begin(client, harness)
    await client.send(b"x")
    _, reply = await read_to_reply(client)
    assert reply["error"]["code"] == "bad_request"
    await wait_state(harness, "op-a", OperationState.CANCELLED)


async def test_a_detached_operation_goes_on_without_its_caller(client, harness):
    await begin(client, harness, detach=True)
    reply = await client.receive()
    assert reply["result"]["state"] == "running"
    client.leave()
    other = await harness.connect()
    shown = (await other.call("operation.show", {"operation": "op-a"}))["result"]
    assert (shown["state"], shown["stage"]) == ("running", "boot")
    harness.services.release.set()
    await wait_state(harness, "op-a", OperationState.SUCCEEDED)


async def test_a_watcher_gets_the_history_and_the_end(client, harness):
    await begin(client, harness, detach=True)
    watcher = await harness.connect()
    await watcher.send({"v": 1, "method": "operation.watch", "params": {"operation": "op-a"}, "op": "w"})
    first = [await watcher.receive() for _ in range(3)]
    assert [line["event"]["name"] for line in first] == ["prepare", "prepare", "boot"]
    assert {line["op"] for line in first} == {"w"}
    harness.services.release.set()
    events, reply = await read_to_reply(watcher)
    assert [event["state"] for event in events] == ["end"]
    assert reply["result"]["state"] == "succeeded"


async def test_a_watcher_that_leaves_cancels_nothing(client, harness):
    await begin(client, harness, detach=True)
    watcher = await harness.connect()
    await watcher.send({"v": 1, "method": "operation.watch", "params": {"operation": "op-a"}})
    await watcher.receive()
    watcher.leave()
    while harness.server.connections > 1:
        await asyncio.sleep(0)
    assert not harness.services.undoing.is_set()
    harness.services.release.set()
    await wait_state(harness, "op-a", OperationState.SUCCEEDED)


async def test_what_has_ended_is_watched_by_its_record(client, harness):
    harness.services.release.set()
    await client.call("vm.create", {"name": "web"}, op="op-a")
    reply = await client.call("operation.watch", {"operation": "op-a"})
    assert reply["result"]["state"] == "succeeded"


@pytest.mark.parametrize("method", ["operation.show", "operation.watch", "operation.cancel"])
async def test_an_unknown_operation_is_not_found(client, method):
    assert (await client.call(method, {"operation": "nope"}))["error"]["code"] == "not_found"


async def test_cancel_may_wait_for_the_undo_and_tells_the_attached_caller(client, harness):
    await begin(client, harness)
    other = await harness.connect()
    cancelled = (await other.call("operation.cancel", {"operation": "op-a", "wait": True}))["result"]
    assert harness.services.undone.is_set()
    assert cancelled["state"] == "cancelled"
    _, reply = await read_to_reply(client)
    assert reply["error"]["code"] == "cancelled"


async def test_cancel_returns_at_once_and_the_undo_can_be_watched(client, harness):
    await begin(client, harness, name="slow-undo", detach=True)
    await client.receive()
    other = await harness.connect()
    for _ in range(2):
        cancelled = (await other.call("operation.cancel", {"operation": "op-a"}))["result"]
        assert (cancelled["state"], cancelled["cancelling"]) == ("running", True)
    await other.send({"v": 1, "method": "operation.watch", "params": {"operation": "op-a"}})
    harness.services.undo_release.set()
    _, reply = await read_to_reply(other)
    assert (reply["result"]["state"], reply["result"]["cancelling"]) == ("cancelled", False)


async def test_what_has_ended_cannot_be_cancelled(client, harness):
    harness.services.release.set()
    await client.call("vm.create", {"name": "web"}, op="op-a")
    error = (await client.call("operation.cancel", {"operation": "op-a"}))["error"]
    assert (error["code"], error["outcome"]) == ("conflict", "not_started")
    assert error["message"] == "operation op-a has ended already: succeeded"
    assert error["hint"] == "banger operation show op-a"


async def test_a_second_cancel_does_not_break_the_undo(client, harness):
    await begin(client, harness, name="slow-undo", detach=True)
    second, third = await harness.connect(), await harness.connect()
    for other in (second, third):
        await other.send(
            {"v": 1, "method": "operation.cancel", "params": {"operation": "op-a", "wait": True}}
        )
    await asyncio.wait_for(harness.services.undoing.wait(), 5)
    harness.operations.find_running("op-a").cancel()
    assert (await (await harness.connect()).call("daemon.ping"))["result"] == {}
    assert not harness.services.undone.is_set()
    harness.services.undo_release.set()
    for other in (second, third):
        assert (await other.receive())["result"]["state"] == "cancelled"
    assert harness.services.undone.is_set()


class TestACallThatComesAgain:
    """Under the id of the first; nothing is done twice."""

    async def test_gets_the_recorded_result(self, client, harness):
        harness.services.release.set()
        first = await client.call("vm.create", {"name": "web", "nat": True}, op="op-a")
        again = await client.call("vm.create", {"nat": True, "name": "web", "vcpus": None}, op="op-a")
        assert again == first
        assert harness.services.created == ["web"]

    async def test_gets_the_recorded_error(self, client, harness):
        first = await client.call("vm.create", {"name": "fails"}, op="op-a")
        assert first["error"]["hint"] == "banger vm prune"
        assert await client.call("vm.create", {"name": "fails"}, op="op-a") == first
        assert harness.services.created == ["fails"]

    async def test_attaches_to_what_runs_with_all_its_events(self, client, harness):
        await begin(client, harness)
        other = await harness.connect()
        await other.send({"v": 1, "method": "vm.create", "params": {"name": "web"}, "op": "op-a"})
        assert [(await other.receive())["event"]["type"] for _ in range(3)] == ["stage"] * 3
        harness.services.release.set()
        _, first = await read_to_reply(client)
        _, second = await read_to_reply(other)
        assert first == second
        assert harness.services.created == ["web"]

    @pytest.mark.parametrize("detached", [0, 1])
    async def test_holds_the_work_as_the_first_did(self, client, harness, detached):
        callers = [client, await harness.connect()]
        for number, caller in enumerate(callers):
            await caller.send({
                "v": 1, "method": "vm.create", "params": {"name": "web"}, "op": "op-a", "detach": number == detached
            })  # fmt: skip
            await caller.receive()
        callers[1 - detached].leave()
        while harness.server.connections > 1:
            await asyncio.sleep(0)
        assert not harness.services.undoing.is_set()
        harness.services.release.set()
        await wait_state(harness, "op-a", OperationState.SUCCEEDED)

    async def test_is_answered_with_the_operation_when_it_is_detached(self, client, harness):
        await begin(client, harness, detach=True)
        await client.receive()
        again = await client.call("vm.create", {"name": "web"}, op="op-a", detach=True)
        assert (again["result"]["id"], again["result"]["state"]) == ("op-a", "running")
        harness.services.release.set()
        await wait_state(harness, "op-a", OperationState.SUCCEEDED)
        ended = await client.call("vm.create", {"name": "web"}, op="op-a", detach=True)
        assert ended["result"]["state"] == "succeeded"
        assert harness.services.created == ["web"]

    @pytest.mark.parametrize(
        ("method", "params"), [("vm.create", {"name": "other"}), ("vm.start", {"vm": "web"})]
    )
    async def test_as_another_call_is_a_conflict(self, client, harness, method, params):
        harness.services.release.set()
        await client.call("vm.create", {"name": "web"}, op="op-a")
        error = (await client.call(method, params, op="op-a"))["error"]
        assert (error["code"], error["outcome"]) == ("conflict", "not_started")
        assert harness.services.created == ["web"]

    async def test_is_known_across_daemons(self, tmp_path):
        replies, created = [], []
        for _ in range(2):
            async with open_harness(tmp_path) as harness:
                harness.services.release.set()
                client = await harness.connect()
                replies.append(await client.call("vm.create", {"name": "web"}, op="op-a"))
                created += harness.services.created
        assert replies[0] == replies[1]
        assert created == ["web"]

    @pytest.mark.parametrize("result", [None, {"vm": "web"}])
    async def test_tells_what_is_known_of_one_that_its_daemon_did_not_survive(self, client, harness, result):
        await begin(client, harness, detach=True)
        await client.receive()
        harness.services.release.set()
        ended = await wait_state(harness, "op-a", OperationState.SUCCEEDED)
        harness.store.operations.save(
            msgspec.structs.replace(ended, state=OperationState.RUNNING, result=None, finished_at=None)
        )
        harness.operations.recover()
        error = (await client.call("vm.create", {"name": "web"}, op="op-a"))["error"]
        assert (error["outcome"], error["hint"]) == ("unknown", "banger daemon reconcile")
        harness.services.resolutions["op-a"] = Resolution(OperationState.SUCCEEDED, "the VM runs", result)
        reconciled = (await client.call("daemon.reconcile"))["result"]
        assert reconciled["operations"] == ["op-a, vm.create of web: the VM runs"]
        reply = await client.call("vm.create", {"name": "web"}, op="op-a")
        if result is None:
            assert "its result was lost with the daemon: the VM runs" in reply["error"]["message"]
        else:
            assert reply["result"] == result
        assert harness.services.created == ["web"]


async def test_operations_are_listed_newest_first(client, harness):
    harness.services.release.set()
    for number in range(3):
        await client.call("vm.create", {"name": "web"}, op=f"op-{number}")
    listed = (await client.call("operation.list"))["result"]["operations"]
    assert [operation["id"] for operation in listed] == ["op-2", "op-1", "op-0"]
    assert listed[0]["subject"] == "web"
    assert listed[0]["kind"] == "vm.create"
    assert not listed[0]["stages"]
    assert listed[0]["result"] is None


async def test_lists_can_be_narrowed(client, harness):
    await client.call("vm.create", {"name": "fails"}, op="op-0")
    await client.call("vm.start", {"vm": "web"}, op="op-1")
    await begin(client, harness, detach=True)
    await client.receive()

    async def list_ids(**params):
        listed = (await client.call("operation.list", params))["result"]["operations"]
        return [operation["id"] for operation in listed]

    assert await list_ids() == ["op-a", "op-1", "op-0"]
    assert await list_ids(running=True) == ["op-a"]
    assert await list_ids(of_kind="vm.start") == ["op-1"]
    assert await list_ids(subject="fails", all=True) == ["op-0"]
    assert await list_ids(limit=2) == ["op-a", "op-1"]
    assert await list_ids(limit=1, all=True) == ["op-a", "op-1", "op-0"]
    assert (await client.call("operation.list", {"limit": 0}))["error"]["code"] == "bad_request"


async def test_a_slow_watcher_gets_a_snapshot_and_holds_up_nothing(client, harness):
    await client.send({"v": 1, "method": "vm.create", "params": {"name": "chatty"}, "op": "op-a"})
    await asyncio.wait_for(harness.services.began.wait(), 5)  # the work went on, though nobody read
    (connection,) = harness.server._connections
    assert connection._transport.get_write_buffer_size() < 2**19
    harness.services.release.set()
    events, reply = await read_to_reply(client)
    snapshots = [event for event in events if event["type"] == "snapshot"]
    assert len(snapshots) == 1
    assert snapshots[0]["operation"]["stages"][0]["name"] == "prepare"
    assert len(events) < 2000
    assert reply["result"]["vm"]["name"] == "chatty"
