"""The API's client against servers that answer well, badly, late and not at all."""

import asyncio
import json

import pytest
from tests.unit.vmm_firecracker.servers import answering, listening, read_request

from banger.base.problem import Code, Outcome, Problem
from banger.vmm.firecracker.api import Api
from banger.vmm.firecracker.bodies import PAUSE, Call
from banger.vmm.firecracker.sockets import Sockets

DONE = b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"


def with_body(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d \r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api.sock"


async def test_requests_share_one_connection_and_carry_their_bodies(path):
    heard = []

    async def talk(reader, writer):
        while True:
            heard.append(await read_request(reader))
            writer.write(DONE if len(heard) < 3 else with_body(200, b'{"state":"Running"}'))

    async with listening(path, talk) as connections:
        api = Api(Sockets.find(path.parent))
        await api.call(PAUSE)
        await api.call(Call("PUT", "/entropy", {}))
        assert await api.get("/") == {"state": "Running"}
        api.drop()
        assert connections == [1]
    assert heard[0] == ("PATCH /vm HTTP/1.1", json.dumps({"state": "Paused"}, separators=(",", ":")).encode())
    assert [line for line, _ in heard[1:]] == ["PUT /entropy HTTP/1.1", "GET / HTTP/1.1"]


async def test_answers_that_come_byte_by_byte_are_answers(path):
    async def talk(reader, writer):
        await read_request(reader)
        for byte in with_body(200, b'{"id":"x"}'):
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

    async with listening(path, talk):
        api = Api(Sockets.find(path.parent))
        assert await api.get("/") == {"id": "x"}
        api.drop()


async def test_a_refusal_is_a_problem_with_firecrackers_own_reason_on_one_line(path):
    fault = json.dumps({"fault_message": "no\nsuch \x1b[31mtap."}).encode()
    async with listening(path, answering(with_body(400, fault), DONE)) as connections:
        api = Api(Sockets.find(path.parent))
        with pytest.raises(Problem) as caught:
            await api.call(PAUSE)
        assert caught.value.brief == "Firecracker refuses PATCH /vm: no such [31mtap"
        assert caught.value.code is Code.OPERATION_FAILED
        await api.call(PAUSE)
        api.drop()
        assert connections == [1]


async def test_a_refusal_without_a_reason_has_its_status(path):
    async with listening(path, answering(b"HTTP/1.1 503 \r\n\r\n")):
        api = Api(Sockets.find(path.parent))
        with pytest.raises(Problem, match="status 503"):
            await api.call(PAUSE)
        api.drop()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 many \r\n\r\n",
        with_body(200, b"{"),
        with_body(200, b"[]"),
        b"HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 \r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"x" * 100_000,
    ],
)
async def test_what_is_no_answer_is_a_problem_and_ends_the_connection(path, answer):
    async with listening(path, answering(answer, DONE)) as connections:
        api = Api(Sockets.find(path.parent))
        with pytest.raises(Problem, match="malformed") as caught:
            await api.call(PAUSE)
        assert caught.value.code is Code.OPERATION_FAILED
        with pytest.raises(Problem):
            await api.call(PAUSE)
        api.drop()
        assert connections == [2]


async def test_an_end_in_the_middle_leaves_the_outcome_open(path):
    async with listening(path, answering(b"HTTP/1.1 200 \r\nContent-Le")):
        api = Api(Sockets.find(path.parent))
        with pytest.raises(Problem, match="ended during PATCH /vm") as caught:
            await api.call(PAUSE)
        assert (caught.value.code, caught.value.outcome) == (Code.NOT_RUNNING, Outcome.UNKNOWN)


async def test_nobody_there_means_not_started(path):
    with pytest.raises(Problem, match="does not listen") as caught:
        await Api(Sockets.find(path.parent)).call(PAUSE)
    assert (caught.value.code, caught.value.outcome) == (Code.NOT_RUNNING, Outcome.NOT_STARTED)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_answer_that_nobody_waits_for_is_taken_from_the_same_connection(path, cancelled):
    """Firecracker may not survive an answer to a connection that was closed meanwhile."""
    heard, let_go = asyncio.Event(), asyncio.Event()

    async def talk(reader, writer):
        await read_request(reader)
        heard.set()
        await let_go.wait()
        writer.write(with_body(200, b'{"state":"late"}'))
        await read_request(reader)
        writer.write(with_body(200, b'{"state":"in time"}'))

    async with listening(path, talk) as connections:
        api = Api(Sockets.find(path.parent))
        if cancelled:
            asking = asyncio.ensure_future(api.get("/"))
            await heard.wait()
            asking.cancel()
            await asyncio.wait((asking,))
        else:
            with pytest.raises(Problem, match="does not answer GET / within 0 s") as caught:
                await api.get("/", deadline_s=0.02)
            assert (caught.value.code, caught.value.outcome) == (Code.UNAVAILABLE, Outcome.UNKNOWN)
        with pytest.raises(Problem, match="does not answer"):
            await api.get("/", deadline_s=0.02)
        await api.settle(0.01)
        let_go.set()
        assert await api.get("/") == {"state": "in time"}
        api.drop()
        assert connections == [1]


async def test_a_request_after_one_that_was_abandoned_and_never_answered_makes_its_own_connection(path):
    async def talk(reader, writer):
        await read_request(reader)
        if connections[0] == 1:
            await asyncio.sleep(0.5)
            writer.close()
        else:
            writer.write(DONE)

    async with listening(path, talk) as connections:
        api = Api(Sockets.find(path.parent))
        with pytest.raises(Problem):
            await api.get("/", deadline_s=0.2)
        await api.call(PAUSE)
        api.drop()
        assert connections == [2]


async def test_what_is_let_go_of_ends_whoever_waits(path):
    async def talk(reader, writer):
        await read_request(reader)
        api.drop()

    async with listening(path, talk):
        api = Api(Sockets.find(path.parent))
        with pytest.raises(Problem, match="ended during") as caught:
            await api.get("/")
        assert caught.value.outcome is Outcome.UNKNOWN


async def test_one_request_at_a_time(path):
    under_way = []

    async def talk(reader, writer):
        while True:
            under_way.append(await read_request(reader))
            await asyncio.sleep(0.01)
            assert len(under_way) == 1
            under_way.clear()
            writer.write(DONE)

    async with listening(path, talk) as connections:
        api = Api(Sockets.find(path.parent))
        await asyncio.gather(*(api.call(PAUSE) for _ in range(5)))
        api.drop()
        assert connections == [1]
