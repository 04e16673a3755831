"""CONNECT and the knock, against sockets that behave as Firecracker's vsock does."""

import asyncio
import os
import socket
from contextlib import closing

import pytest
from tests.unit.vmm_firecracker.servers import listening

from banger.vmm.firecracker import agent_stream
from banger.vmm.firecracker.agent_stream import Knock, open_agent_stream
from banger.vmm.firecracker.sockets import Sockets


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent.sock"


@pytest.fixture
def knock(tmp_path):
    """In a loop's time: made by the test itself."""
    made = []

    def make():
        made.append(Knock(Sockets.find(tmp_path), mode=0o600))
        return made[-1]

    return make


async def accepting(reader, writer):
    assert await reader.readuntil(b"\n") == b"CONNECT 1024\n"
    writer.write(b"OK 1073741824\nalready the stream's")


async def test_what_follows_the_answer_belongs_to_the_stream(path):
    async with listening(path, accepting):
        reader, writer = await open_agent_stream(Sockets.find(path.parent), None)
        assert await reader.readexactly(20) == b"already the stream's"
        writer.close()


async def test_a_guest_that_does_not_listen_yet_is_asked_again(path):
    async def talk(reader, writer):
        await (accepting(reader, writer) if connections[0] == 4 else refuse(writer))

    async def refuse(writer):
        writer.close()

    async with listening(path, talk) as connections:
        _, writer = await open_agent_stream(Sockets.find(path.parent), None)
        writer.close()
        assert connections == [4]


async def test_an_attempt_that_is_never_answered_is_given_up(path, monkeypatch):
    monkeypatch.setattr(agent_stream, "ATTEMPT_S", 0.05)

    async def talk(reader, writer):
        if connections[0] >= 3:
            await accepting(reader, writer)
        else:
            await reader.read()

    async with listening(path, talk) as connections:
        _, writer = await open_agent_stream(Sockets.find(path.parent), None)
        writer.close()
        assert connections[0] >= 3


async def test_nobody_is_asked_before_the_knock(path, knock):
    async with listening(path, accepting) as connections:
        listener = knock()
        opening = asyncio.ensure_future(open_agent_stream(Sockets.find(path.parent), listener))
        await asyncio.sleep(0.05)
        assert connections == [0]
        with closing(socket.socket(socket.AF_UNIX)) as guest:
            guest.connect(f"{path}_1024")
            _, writer = await opening
        writer.close()
        assert connections == [1]
        assert not os.path.exists(f"{path}_1024")
        assert not listener.is_awaited


async def test_a_knock_ends_an_attempt_that_was_made_too_early(path, knock, monkeypatch):
    """The attempt's own deadline is far away, so only the knock can have ended it."""
    listener = knock()
    monkeypatch.setattr(Knock, "wait", lambda self, at_most_s: asyncio.sleep(0))
    monkeypatch.setattr(agent_stream, "ATTEMPT_S", 60.0)
    asked = asyncio.Event()

    async def talk(reader, writer):
        if connections[0] == 1:
            asked.set()
            await reader.read()
        else:
            await accepting(reader, writer)

    async with listening(path, talk) as connections:
        opening = asyncio.ensure_future(open_agent_stream(Sockets.find(path.parent), listener))
        await asked.wait()
        with closing(socket.socket(socket.AF_UNIX)) as guest:
            guest.connect(f"{path}_1024")
            _, writer = await asyncio.wait_for(opening, 5)
        writer.close()
        assert connections == [2]


async def test_a_knock_that_never_comes_is_not_waited_for_for_ever(path, knock, monkeypatch):
    monkeypatch.setattr(agent_stream, "ATTEMPT_S", 0.05)
    async with listening(path, accepting):
        listener = knock()
        _, writer = await open_agent_stream(Sockets.find(path.parent), listener)
        writer.close()
        assert listener.is_awaited
        listener.close()
        listener.close()
        assert not os.path.exists(f"{path}_1024")


async def test_a_vmm_that_has_gone_ends_it(path):
    with pytest.raises(OSError):
        await open_agent_stream(Sockets.find(path.parent), None)


async def test_an_answer_of_another_kind_is_no_acceptance(path):
    async def talk(reader, writer):
        await reader.readuntil(b"\n")
        if connections[0] == 1:
            writer.write(b"NO\n")
        else:
            writer.write(b"OK 1\n")

    async with listening(path, talk) as connections:
        _, writer = await open_agent_stream(Sockets.find(path.parent), None)
        writer.close()
        assert connections == [2]
