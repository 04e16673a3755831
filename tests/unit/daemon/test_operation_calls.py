"""Operations over the wire: attached, detached, watched, cancelled, left."""

import asyncio

import pytest
from daemon_harness import wait_state

from banger.model.operation import OperationState


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


async def test_cancel_waits_for_the_undo_and_tells_the_attached_caller(client, harness):
    await begin(client, harness)
    other = await harness.connect()
    cancelled = (await other.call("operation.cancel", {"operation": "op-a"}))["result"]
    assert harness.services.undone.is_set()
    assert cancelled["state"] == "cancelled"
    _, reply = await read_to_reply(client)
    assert reply["error"]["code"] == "cancelled"
    again = (await other.call("operation.cancel", {"operation": "op-a"}))["result"]
    assert again["state"] == "cancelled"


async def test_a_second_cancel_does_not_break_the_undo(client, harness):
    await begin(client, harness, name="slow-undo", detach=True)
    second, third = await harness.connect(), await harness.connect()
    for other in (second, third):
        await other.send({"v": 1, "method": "operation.cancel", "params": {"operation": "op-a"}})
    await asyncio.wait_for(harness.services.undoing.wait(), 5)
    harness.operations.find_running("op-a").cancel()
    assert (await (await harness.connect()).call("daemon.ping"))["result"] == {}
    assert not harness.services.undone.is_set()
    harness.services.undo_release.set()
    for other in (second, third):
        assert (await other.receive())["result"]["state"] == "cancelled"
    assert harness.services.undone.is_set()


async def test_an_operation_id_is_used_once(client, harness):
    harness.services.release.set()
    await client.call("vm.create", {"name": "web"}, op="op-a")
    error = (await client.call("vm.create", {"name": "web"}, op="op-a"))["error"]
    assert error["code"] == "already_exists"
    assert error["outcome"] == "not_started"


async def test_operations_are_listed_newest_first(client, harness):
    harness.services.release.set()
    for number in range(3):
        await client.call("vm.create", {"name": "web"}, op=f"op-{number}")
    listed = (await client.call("operation.list"))["result"]["operations"]
    assert [operation["id"] for operation in listed] == ["op-2", "op-1", "op-0"]
    assert listed[0]["subject"] == "web"
    assert listed[0]["kind"] == "vm.create"


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
