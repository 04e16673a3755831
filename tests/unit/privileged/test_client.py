"""The client of the helper's socket: whom it trusts, what it sends twice, whose answer is whose, what stays open."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading

import pytest
from tests.unit.privileged.scripted_helper import ScriptedHelper, greet, say_done, send_answer

from banger.base.log import JsonFormatter, operation_id
from banger.base.problem import Code, Outcome, Problem
from banger.privileged.client import HelperClient
from banger.privileged.contract.base import VERSION, Done
from banger.privileged.contract.codec import encode_refusal, encode_result
from banger.privileged.contract.network import (
    CreateTaps,
    DeleteTaps,
    EnsureBridge,
    ListTaps,
    OpenDns,
    PublishPorts,
    RemoveBridge,
    Tap,
    Taps,
)
from banger.privileged.contract.values import PublishedPort, Refusal

BRIDGE = "br-banger"
LIST = ListTaps(bridge=BRIDGE)
REMOVE = RemoveBridge(bridge=BRIDGE)


def tell(*names):
    """Answers with these taps; a descriptor each when they were asked for by CreateTaps."""

    def answer(connection, request, op):
        taps = Taps(taps=tuple(Tap(name=name, up=False) for name in names))
        made = tuple(os.memfd_create(name) for name in names) if isinstance(request, CreateTaps) else ()
        send_answer(connection, encode_result(op, taps), made)

    return answer


def hang_up(connection, request, op):
    raise EOFError


class Held:
    """An answer that waits until the test lets it go, and tells when the request has come."""

    def __init__(self, answer=say_done):
        self._answer = answer
        self._asked = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, connection, request, op):
        self._asked.set()
        assert self.let_go.wait(10)
        self._answer(connection, request, op)

    async def wait_asked(self):
        assert await asyncio.to_thread(self._asked.wait, 10)


@contextlib.asynccontextmanager
async def client_of(path, **options):
    client = HelperClient(path, **options)
    yield client
    await client.close()


async def fail(call):
    with pytest.raises(Problem) as caught:
        await call
    return caught.value


async def test_the_first_call_says_hello_and_the_op_id_goes_along(directory):
    with ScriptedHelper(directory / "s") as helper:
        async with client_of(helper.path) as client:
            operation_id.set("op-1")
            await client.call(REMOVE)
            operation_id.set("op-2")
            await client.call(REMOVE)
        assert helper.requests[0][1] == "op-1"
        assert [op for _, op in helper.requests] == ["op-1", "op-1", "op-2"]
        assert helper.methods == ["hello", "remove_bridge", "remove_bridge"]
        assert helper.connections == 1


async def test_a_result_arrives_with_its_descriptors(directory):
    with ScriptedHelper(directory / "s", tell("bng-00000001", "bng-00000002")) as helper:
        async with client_of(helper.path) as client:
            reply = await client.call(CreateTaps(bridge=BRIDGE, count=2))
            assert [tap.name for tap in reply.result.taps] == ["bng-00000001", "bng-00000002"]
            assert [os.readlink(f"/proc/self/fd/{each}")[:15] for each in reply.descriptors] == [
                "/memfd:bng-0000",
                "/memfd:bng-0000",
            ]
            assert not any(os.get_inheritable(each) for each in reply.descriptors)
            for each in reply.descriptors:
                os.close(each)


async def test_descriptors_that_are_sent_stay_the_callers(directory):
    port = PublishedPort(protocol="tcp", host_address="127.0.0.1", host_port=8080, guest_port=80)
    request = PublishPorts(bridge=BRIDGE, guest_address="10.209.0.2", ports=(port,))
    with ScriptedHelper(directory / "s") as helper, socket.socket() as bound:
        async with client_of(helper.path) as client:
            await client.call(request, (bound.fileno(),))
        assert os.fstat(bound.fileno()).st_ino == os.fstat(helper.received[0]).st_ino
        assert helper.requests[-1][0] == request


@pytest.mark.parametrize(
    ("request_", "descriptors"),
    [
        (ListTaps(bridge="docker0"), ()),
        (EnsureBridge(bridge=BRIDGE, address="8.8.8.1/24"), ()),
        (ListTaps(bridge=BRIDGE), (0,)),
        (
            PublishPorts(
                bridge=BRIDGE,
                guest_address="10.209.0.2",
                ports=(PublishedPort(protocol="tcp", host_address="0.0.0.0", host_port=1, guest_port=1),),
            ),
            (),
        ),
    ],
)
async def test_what_would_be_refused_is_not_sent(directory, request_, descriptors):
    with ScriptedHelper(directory / "s") as helper:
        async with client_of(helper.path) as client:
            problem = await fail(client.call(request_, descriptors))
        assert (problem.code, problem.outcome) == (Code.BAD_REQUEST, Outcome.NOT_STARTED)
        assert helper.requests == []


def refuse_with(code, hint=""):
    def answer(connection, request, op):
        connection.send(encode_refusal(op, Refusal(code, "no", hint)))

    return answer


@pytest.mark.parametrize(
    ("word", "code", "outcome"),
    [
        ("conflict", Code.CONFLICT, Outcome.NOT_STARTED),
        ("unavailable", Code.UNAVAILABLE, Outcome.NOT_STARTED),
        ("operation_failed", Code.OPERATION_FAILED, Outcome.FAILED),
        ("internal", Code.INTERNAL, Outcome.UNKNOWN),
        ("teapot", Code.INTERNAL, Outcome.UNKNOWN),
    ],
)
async def test_a_refusal_is_a_problem_and_the_connection_goes_on(directory, word, code, outcome):
    with ScriptedHelper(directory / "s", refuse_with(word, "do this")) as helper:
        async with client_of(helper.path) as client:
            problem = await fail(client.call(REMOVE))
            assert (problem.code, problem.brief, problem.hint, problem.outcome) == (
                code,
                "no",
                "do this",
                outcome,
            )
            await client.call(REMOVE)
        assert helper.connections == 1


def say(answer, count=0):
    def send(connection, request, op):
        send_answer(connection, answer, tuple(os.memfd_create("unasked") for _ in range(count)))

    return send


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (LIST, say(b"{nonsense")),
        (LIST, say(b"[]")),
        (LIST, say(b'{"op":"","result":{"taps":"all"}}')),
        (LIST, say(b'{"op":"","result":{"taps":[]}}', 1)),
        (OpenDns(bridge=BRIDGE), say(encode_result("", Done()), 1)),
        (
            CreateTaps(bridge=BRIDGE, count=1),
            say(encode_result("", Taps(taps=(Tap(name="bng-00000001", up=False),)))),
        ),
        (CreateTaps(bridge=BRIDGE, count=1), say(encode_refusal("", Refusal("internal", "no")), 1)),
    ],
)
async def test_an_answer_that_is_none_is_a_bug_and_leaves_nothing_open(
    directory, count_descriptors, request_, answer
):
    with ScriptedHelper(directory / "s", say_done, answer) as helper:
        async with client_of(helper.path) as client:
            await client.call(REMOVE)
            before = count_descriptors()
            problem = await fail(client.call(request_))
            assert (problem.code, problem.outcome) == (Code.INTERNAL, Outcome.UNKNOWN)
            await client.call(REMOVE)
            assert count_descriptors() == before


@pytest.mark.parametrize("answer", [say(b" " * 140_000), say(encode_result("", Taps(taps=())), 70)])
async def test_an_answer_that_is_cut_off_breaks_the_connection_and_leaves_nothing_open(
    directory, count_descriptors, answer
):
    with ScriptedHelper(directory / "s", answer) as helper:
        before = count_descriptors()
        async with client_of(helper.path) as client:
            problem = await fail(client.call(LIST))
            assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.UNKNOWN)
            assert "cut off" in problem.brief
            await client.call(REMOVE)
        assert helper.connections == 2
        await helper.wait_connections(0)
        assert count_descriptors() == before


async def test_a_helper_that_was_restarted_is_found_again_and_asked_once(directory):
    async with client_of(directory / "s") as client:
        with ScriptedHelper(directory / "s"):
            await client.call(REMOVE)
        with ScriptedHelper(directory / "s", tell("bng-00000001")) as second:
            reply = await client.call(CreateTaps(bridge=BRIDGE, count=1))
            os.close(reply.descriptors[0])
            assert second.methods == ["hello", "create_taps"]


async def test_a_request_that_the_helper_may_have_done_is_not_sent_again(directory):
    with ScriptedHelper(directory / "s", say_done, hang_up) as helper:
        async with client_of(helper.path) as client:
            await client.call(REMOVE)
            problem = await fail(client.call(LIST))
            assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.UNKNOWN)
            assert "list_taps unanswered" in problem.brief
            assert helper.methods.count("list_taps") == 1
            await client.call(REMOVE)
        assert helper.connections == 2


async def test_what_done_twice_is_done_once_is_sent_to_the_helpers_successor(directory):
    taps = DeleteTaps(taps=("bng-00000001",))
    with ScriptedHelper(directory / "s", say_done, hang_up, say_done, hang_up, hang_up) as helper:
        async with client_of(helper.path) as client:
            await client.call(REMOVE)
            await client.call(taps)
            problem = await fail(client.call(taps))
            assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.UNKNOWN)
            assert helper.methods.count("delete_taps") == 4
            assert helper.connections == 3


async def test_a_helper_that_turns_the_caller_away_has_done_nothing(directory):
    def turn_away(connection, op):
        raise EOFError

    with ScriptedHelper(directory / "s", greeting=turn_away) as helper:
        async with client_of(helper.path) as client:
            problem = await fail(client.call(REMOVE))
    assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.NOT_STARTED)


async def test_a_late_answer_is_unknown_and_does_not_become_the_next_ones(directory):
    late = Held(tell("bng-0000beef"))
    with ScriptedHelper(directory / "s", say_done, late, tell("bng-00000001")) as helper:
        async with client_of(helper.path, deadline_s=1.5) as client:
            await client.call(REMOVE)
            problem = await fail(client.call(LIST))
            assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.UNKNOWN)
            assert "no answer within 1.5 s" in problem.brief
            late.let_go.set()
            assert [tap.name for tap in (await client.call(LIST)).result.taps] == ["bng-00000001"]


async def test_a_helper_that_does_not_even_greet_has_done_nothing(directory):
    greeted = threading.Event()
    with ScriptedHelper(directory / "s", greeting=lambda *_: greeted.wait(10) and None) as helper:
        async with client_of(helper.path, deadline_s=0.1) as client:
            problem = await fail(client.call(REMOVE))
            greeted.set()
    assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.NOT_STARTED)
    assert helper.methods == ["hello"]


async def test_a_cancelled_call_shifts_no_answer_and_leaves_no_descriptor(directory, count_descriptors):
    held = Held(tell("bng-0000beef"))
    with ScriptedHelper(directory / "s", say_done, held, tell("bng-00000001")) as helper:
        async with client_of(helper.path) as client:
            await client.call(REMOVE)
            before = count_descriptors()
            call = asyncio.ensure_future(client.call(CreateTaps(bridge=BRIDGE, count=1)))
            await held.wait_asked()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            held.let_go.set()
            assert [tap.name for tap in (await client.call(LIST)).result.taps] == ["bng-00000001"]
            await helper.wait_connections(1)
            assert count_descriptors() == before


async def test_a_call_cancelled_when_its_answer_is_there_leaves_no_descriptor(directory, count_descriptors):
    """The answer lies in the socket and the loop knows it, but the call has not run since."""
    with ScriptedHelper(directory / "s", say_done, tell("bng-0000beef")) as helper:
        async with client_of(helper.path) as client:
            await client.call(REMOVE)
            before = count_descriptors()
            call = asyncio.ensure_future(client.call(CreateTaps(bridge=BRIDGE, count=1)))
            await asyncio.sleep(0)
            helper.block_until_answered(3)
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, call.cancel)
            with pytest.raises(asyncio.CancelledError):
                await call
            await client.call(REMOVE)
            await helper.wait_connections(1)
            assert count_descriptors() == before


async def test_a_call_cancelled_while_it_queues_disturbs_nobody(directory):
    held = Held(tell("bng-00000001"))
    with ScriptedHelper(directory / "s", held) as helper:
        async with client_of(helper.path) as client:
            first = asyncio.ensure_future(client.call(LIST))
            await held.wait_asked()
            second = asyncio.ensure_future(client.call(REMOVE))
            await asyncio.sleep(0)
            second.cancel()
            held.let_go.set()
            assert len((await first).result.taps) == 1
        assert helper.methods == ["hello", "list_taps"]
        assert helper.connections == 1


async def test_calls_at_once_follow_one_another_and_get_their_own_answers(directory):
    names = [f"bng-{number:08x}" for number in range(30)]
    with ScriptedHelper(directory / "s", *(tell(name) for name in names)) as helper:
        async with client_of(helper.path) as client:
            replies = await asyncio.gather(*(client.call(LIST) for _ in names))
        assert [reply.result.taps[0].name for reply in replies] == names
        assert helper.most_under_way == 1
        assert helper.connections == 1


async def test_no_socket_says_how_to_install(directory):
    async with client_of(directory / "missing") as client:
        problem = await fail(client.call(REMOVE))
    assert (problem.code, problem.outcome) == (Code.UNAVAILABLE, Outcome.NOT_STARTED)
    assert (problem.brief, problem.hint) == ("no root helper is installed", "sudo banger system install")


async def test_a_socket_that_nobody_serves_says_how_to_look(directory):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(directory / "s"))
    async with client_of(directory / "s") as client:
        problem = await fail(client.call(REMOVE))
    assert (problem.code, problem.brief) == (Code.UNAVAILABLE, "the root helper does not run")
    assert problem.hint == "sudo banger system status"


async def test_a_link_to_a_socket_is_no_socket(directory):
    with ScriptedHelper(directory / "s") as helper:
        (directory / "link").symlink_to("s")
        async with client_of(directory / "link") as client:
            problem = await fail(client.call(REMOVE))
        assert problem.code is Code.UNAVAILABLE
        assert "is not a socket" in problem.brief
        assert helper.connections == 0


@pytest.mark.parametrize("how", ["greeting", "refusal"])
async def test_another_version_of_the_contract_is_refused(directory, how):
    def answer(connection, op):
        if how == "greeting":
            greet(connection, op, version=VERSION + 1)
        else:
            message = f"the helper speaks version {VERSION + 1}"
            refusal = Refusal("bad_version", message, "sudo banger system install")
            connection.send(encode_refusal(op, refusal))

    with ScriptedHelper(directory / "s", greeting=answer) as helper:
        async with client_of(helper.path) as client:
            problem = await fail(client.call(REMOVE))
        assert helper.methods == ["hello"]
    assert (problem.code, problem.outcome) == (Code.BAD_VERSION, Outcome.NOT_STARTED)
    assert problem.hint == "sudo banger system install"


async def test_a_listener_that_is_neither_root_nor_we_is_not_asked(directory, monkeypatch):
    with ScriptedHelper(directory / "s") as helper:
        if os.getuid() == 0:  # the kernel keeps the effective uid of whoever called listen()
            os.seteuid(65534)
            try:
                helper.listen()
            finally:
                os.seteuid(0)
        else:
            monkeypatch.setattr(os, "getuid", lambda: 0)
        async with client_of(helper.path) as client:
            problem = await fail(client.call(REMOVE))
        assert helper.requests == []
    assert (problem.code, problem.outcome) == (Code.UNAUTHORIZED, Outcome.NOT_STARTED)
    assert "and that is not root" in problem.brief


# Becomes nobody by itself: nobody may be unable to run this interpreter, or to read its modules.
ASK = """
import asyncio, os, pathlib, sys
from banger.base.problem import Problem
from banger.privileged.client import HelperClient
from banger.privileged.contract.processes import Hello
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    asyncio.run(HelperClient(pathlib.Path(sys.argv[1])).call(Hello()))
except Problem as problem:
    print(problem.code.value, problem.brief, problem.hint, sep="|")
"""


@pytest.mark.parametrize(
    ("mode", "owner", "brief"),
    [
        (0o000, None, "belongs to"),
        (0o600, 0, "belongs to root and is closed to"),
        (0o600, 4242, "serves uid 4242"),
    ],
)
async def test_a_socket_of_somebody_elses_is_explained(directory, mode, owner, brief):
    if owner is not None and os.getuid() != 0:
        pytest.skip("only root can give a socket away")
    with ScriptedHelper(directory / "s") as helper:
        helper.path.chmod(mode)
        if owner is not None:
            os.chown(helper.path, owner, -1)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", ASK, str(helper.path)],
            capture_output=True,
            text=True,
        )
        assert helper.requests == []
    code, said, hint = done.stdout.strip().split("|")
    assert code == "unauthorized"
    assert brief in said
    assert hint.startswith("sudo banger system install --owner")


async def test_each_call_is_one_line_of_the_daemons_log_with_its_op_id(directory, caplog):
    caplog.set_level(logging.INFO, "banger.privileged")
    with ScriptedHelper(directory / "s", say_done, refuse_with("conflict")) as helper:
        async with client_of(helper.path) as client:
            operation_id.set("op-7")
            await client.call(REMOVE)
            await fail(client.call(REMOVE))
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [(line["op"], line["way"], line["method"], line.get("code")) for line in lines] == [
        ("op-7", "helper", "remove_bridge", None),
        ("op-7", "helper", "remove_bridge", "conflict"),
    ]
    assert all(line["duration_ms"] > 0 for line in lines)


async def test_closing_leaves_no_descriptor(directory, count_descriptors):
    with ScriptedHelper(directory / "s") as helper:
        before = count_descriptors()
        async with client_of(helper.path) as client:
            await client.call(REMOVE)
        await helper.wait_connections(0)
        assert count_descriptors() == before
