"""Immediate calls and every way a request can be wrong."""

import asyncio
import os
import random
import socket
import stat

import pytest
from daemon_harness import FakeServices, open_harness

from banger.api.registry import METHODS
from banger.daemon.contract import OperationHandler
from banger.daemon.dispatch import Dispatch, check_handlers, mint_operation_id
from banger.daemon.server import Peer


async def test_ping_answers_and_the_connection_carries_several_calls(client):
    for _ in range(3):
        reply = await client.call("daemon.ping")
        assert reply["result"] == {}
        assert reply["op"].startswith("op-")


async def test_a_handler_that_waits_answers_with_the_callers_operation_id(client):
    reply = await client.call("vm.show", {"vm": "web"}, op="mine-1")
    assert reply["op"] == "mine-1"
    assert reply["result"]["vm"]["name"] == "web"


async def test_status_tells_of_the_daemon(client, harness):
    result = (await client.call("daemon.status"))["result"]
    assert (result["pid"], result["uid"]) == (os.getpid(), os.getuid())
    assert (result["vms"], result["running"], result["operations"]) == (3, 1, 0)
    assert result["rss_bytes"] > 2**20
    assert result["socket"] == harness.paths.socket


async def test_stop_is_answered_and_asks_for_the_shutdown(client, harness):
    assert (await client.call("daemon.stop"))["result"] == {}
    assert harness.stop_asked


@pytest.mark.parametrize("version", [2, 0, "1", None, True, 1.5, [1]])
async def test_another_version_is_refused_whatever_else_the_request_holds(client, version):
    await client.send({"v": version, "method": 7, "new_field": {}})
    error = (await client.receive())["error"]
    assert error["code"] == "bad_version"
    assert error["outcome"] == "not_started"
    assert (await client.call("daemon.ping"))["result"] == {}


async def test_a_request_without_version_is_refused(client):
    await client.send({"method": "daemon.ping"})
    assert (await client.receive())["error"]["code"] == "bad_version"


async def test_an_unknown_method_is_named(client):
    error = (await client.call("vm.fly"))["error"]
    assert error["code"] == "unknown_method"
    assert "vm.fly" in error["message"]


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("vm.show", {}, ["vm", "missing"]),
        ("vm.show", {"vm": 7}, ["vm is 7", "expected str"]),
        ("vm.show", {"vm": "web", "colour": "red"}, ["colour", '"red"']),
        ("vm.create", {"vcpus": "four"}, ["vcpus", '"four"', "expected int"]),
        ("vm.create", {"labels": {"a": 1}}, ["labels", "expected str"]),
        ("vm.exec", {"vm": "web", "argv": ["a", 2]}, ["argv[1] is 2"]),
        ("vm.show", [], ["[]", "expected object"]),
        ("vm.show", {"vm": "x" * 5, "y" * 5000: 1}, ["unknown field"]),
    ],
)
async def test_a_wrong_parameter_is_named_with_its_value(client, method, params, words):
    await client.send({"v": 1, "method": method, "params": params})
    error = (await client.receive())["error"]
    assert error["code"] == "bad_request"
    assert error["outcome"] == "not_started"
    assert len(error["message"]) < 500
    for word in words:
        assert word in error["message"]
    assert (await client.call("daemon.ping"))["result"] == {}


@pytest.mark.parametrize(
    "envelope",
    [{"extra": 1}, {"method": 3}, {"detach": "yes"}, {"op": 5}, {"op": ""}, {"op": "a b"}, {"op": "x" * 65}],
)
async def test_a_wrong_envelope_is_a_bad_request(client, envelope):
    await client.send({"v": 1, "method": "daemon.ping", **envelope})
    assert (await client.receive())["error"]["code"] == "bad_request"
    assert (await client.call("daemon.ping"))["result"] == {}


async def test_only_operations_can_be_detached(client):
    for method, params in (("daemon.ping", {}), ("operation.watch", {"operation": "x"})):
        error = (await client.call(method, params, detach=True))["error"]
        assert error["code"] == "bad_request"


async def test_a_problem_arrives_whole_and_stamped(client):
    reply = await client.call("vm.show", {"vm": "missing"}, op="mine")
    assert reply["error"] == {
        "code": "not_found",
        "message": "there is no VM 'missing'",
        "hint": "banger vm list --all",
        "outcome": "not_started",
        "op": "mine",
    }


async def test_a_bug_in_a_handler_is_internal_and_logged_with_the_operation(client, caplog):
    reply = await client.call("vm.show", {"vm": "bug"})
    assert reply["error"]["code"] == "internal"
    assert reply["error"]["op"] == reply["op"]
    assert "RuntimeError: oops" in caplog.text
    assert (await client.call("daemon.ping"))["result"] == {}


async def test_a_result_that_fits_no_line_is_an_error(client):
    error = (await client.call("vm.logs", {"vm": "web"}))["error"]
    assert error["code"] == "operation_failed"
    assert "1048576" in error["message"]


@pytest.mark.parametrize(
    "garbage", [b"garbage\n", b"\n", b"[1]\n", b"\xff\xfe\n", b'{"v":1}{"v":1}\n', b"[" * 5000 + b"\n"]
)
async def test_garbage_is_answered_and_ends_the_connection(client, harness, garbage):
    await client.send(garbage)
    assert (await client.receive())["error"]["code"] == "bad_request"
    assert await client.at_end()
    other = await harness.connect()
    assert (await other.call("daemon.ping"))["result"] == {}


async def test_deeply_nested_parameters_are_a_bad_request(client):
    await client.send(b'{"v":1,"method":"vm.show","params":' + b"[" * 9000 + b"]" * 9000 + b"}\n")
    assert (await client.receive())["error"]["code"] == "bad_request"


async def test_a_line_over_one_mebibyte_is_refused_before_it_ends(client):
    await client.send(b'{"v":1,"method":"' + b"x" * 2**20)
    assert (await client.receive())["error"]["code"] == "bad_request"
    assert await client.at_end()


async def test_a_long_line_within_the_limit_is_read(client):
    error = (await client.call("vm.show", {"vm": "missing", "x": "y" * (2**20 - 100)}))["error"]
    assert error["code"] == "bad_request"
    assert "unknown field x" in error["message"]


async def test_a_request_may_arrive_byte_by_byte(client):
    for byte in b'{"v":1,"method":"daemon.ping"}\n':
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.receive())["result"] == {}


async def test_two_lines_at_once_start_nothing(client, harness):
    line = b'{"v":1,"method":"vm.create"}\n'
    await client.send(line + line)
    assert (await client.receive())["error"]["code"] == "bad_request"
    assert await client.at_end()
    assert not harness.operations.list()


async def test_a_second_line_during_a_call_cancels_it(client, harness):
    await client.send({"v": 1, "method": "vm.show", "params": {"vm": "wait"}})
    await harness.services.began.wait()
    await client.send({"v": 1, "method": "daemon.ping"})
    assert (await client.receive())["error"]["code"] == "bad_request"
    assert await client.at_end()
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)


async def test_leaving_cancels_an_immediate_call(client, harness):
    await client.send({"v": 1, "method": "vm.show", "params": {"vm": "wait"}})
    await harness.services.began.wait()
    client.leave()
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)


async def test_the_socket_is_private(harness):
    assert stat.S_IMODE(os.stat(harness.paths.socket).st_mode) == 0o600


async def test_a_foreign_user_is_refused(tmp_path):
    async with open_harness(tmp_path, credentials=lambda _: Peer(1, os.getuid() + 1, 1)) as harness:
        client = await harness.connect()
        assert (await client.receive())["error"]["code"] == "unauthorized"
        assert await client.at_end()
        assert harness.server.connections == 0


async def test_root_is_let_in(tmp_path):
    async with open_harness(tmp_path, credentials=lambda _: Peer(1, 0, 0)) as harness:
        assert (await (await harness.connect()).call("daemon.ping"))["result"] == {}


async def test_more_connections_than_fit_are_refused_clearly(tmp_path):
    async with open_harness(tmp_path, max_connections=2) as harness:
        first, second = await harness.connect(), await harness.connect()
        assert (await first.call("daemon.ping"))["result"] == {}
        assert (await second.call("daemon.ping"))["result"] == {}
        third = await harness.connect()
        error = (await third.receive())["error"]
        assert error["code"] == "unavailable"
        assert "2 connections" in error["message"]
        assert (await first.call("daemon.ping"))["result"] == {}


async def test_a_client_that_reads_no_replies_is_not_read_from(harness):
    _, writer = await asyncio.open_unix_connection(harness.paths.socket)
    writer.transport.pause_reading()
    line = b'{"v":1,"method":"vm.show","params":{"vm":"x","y":"' + b"z" * 300 + b'"}}\n'

    async def send_for_ever():
        for _ in range(100_000):
            await asyncio.sleep(0)
            writer.write(line)
            await asyncio.wait_for(writer.drain(), 0.5)

    with pytest.raises(TimeoutError):
        await send_for_ever()
    (connection,) = harness.server._connections
    assert connection._transport.get_write_buffer_size() < 2**19
    writer.transport.abort()
    while harness.server.connections:
        await asyncio.sleep(0)


async def test_a_thousand_mutated_requests_leave_the_server_alive(harness):
    chance = random.Random(7)
    seeds = [
        b'{"v":1,"method":"vm.show","params":{"vm":"web"},"op":"a"}\n',
        b'{"v":1,"method":"vm.create","params":{"name":"fails","vcpus":2},"detach":true}\n',
        b'{"v":1,"method":"operation.watch","params":{"operation":"x"}}\n',
        b'{"v":1,"method":"vm.exec","params":{"vm":"web","argv":["cat"]}}\n\x00\x00\x00\x00\x05hello\x00\x00\x00\x00\x00',
    ]
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            position = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[position] = chance.randrange(256)
                case 1:
                    del data[position]
                case 2:
                    data[position:position] = chance.randbytes(chance.randint(1, 9))
        with socket.socket(socket.AF_UNIX) as raw:
            raw.setblocking(False)
            await loop.sock_connect(raw, harness.paths.socket)
            await loop.sock_sendall(raw, bytes(data))
            raw.shutdown(socket.SHUT_WR) if chance.random() < 0.5 else None
            await asyncio.sleep(0)
    client = await harness.connect()
    assert (await client.call("daemon.ping"))["result"] == {}
    assert not harness.server.calls._aborting


def test_minted_ids_differ_and_sort_by_time(monkeypatch):
    assert len({mint_operation_id() for _ in range(50)}) > 48
    times = iter([10**18, 10**18 + 10**6, 2 * 10**18])
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    minted = [mint_operation_id() for _ in range(3)]
    assert minted == sorted(minted)
    assert {len(op) for op in minted} == {16}


class TestTable:
    @pytest.fixture
    async def handlers(self, harness):
        fake = FakeServices()
        from banger.daemon.own_methods import OwnMethods

        own = OwnMethods(harness.paths, harness.operations, lambda: None, lambda: None)
        return {**fake.render_handlers(), **own.render_handlers()}

    async def test_a_full_table_fits(self, handlers):
        check_handlers(handlers)
        assert set(handlers) == set(METHODS)

    async def test_a_missing_or_unknown_method_is_a_bug(self, handlers, harness):
        removed = handlers.pop("vm.list")
        with pytest.raises(AssertionError, match=r"vm\.list"):
            Dispatch(handlers, harness.operations)
        with pytest.raises(AssertionError, match=r"vm\.fly"):
            check_handlers({**handlers, "vm.list": removed, "vm.fly": removed})

    @pytest.mark.parametrize(
        ("method", "handler"),
        [
            ("vm.list", lambda: None),
            ("vm.list", lambda request, progress: None),
            ("vm.list", OperationHandler(lambda request, progress: None, lambda request: "")),
            ("vm.create", lambda request: None),
            ("vm.create", OperationHandler(lambda request: None, lambda request: "")),
            ("vm.exec", lambda request, stream: None),
        ],
    )
    async def test_a_handler_of_the_wrong_form_is_a_bug(self, handlers, method, handler):
        with pytest.raises(AssertionError, match=method.replace(".", r"\.")):
            check_handlers({**handlers, method: handler})

    async def test_a_handler_of_another_method_is_a_bug(self, handlers, harness):
        from banger.daemon.own_methods import OwnMethods

        own = OwnMethods(harness.paths, harness.operations, lambda: None, lambda: None)
        with pytest.raises(AssertionError, match="Ping"):
            check_handlers({**handlers, "vm.list": own.ping})
