"""A directory that a VMM can write to: nothing in there is followed, and nothing of it outlives the descriptor."""

import asyncio
import os
import socket
import stat
import tempfile

import pytest
from tests.unit.vmm_firecracker.servers import listening

from banger.vmm.firecracker.sockets import Sockets


@pytest.fixture
def sockets(tmp_path):
    made = Sockets.find(tmp_path)
    yield made
    made.close()


async def greet(reader, writer):
    writer.write(b"hello\n")


async def test_a_socket_is_reached_by_its_name_however_long_the_directorys_is(tmp_path):
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        os.symlink(directory, f"{short}/l")
        async with listening(tmp_path / "unused", greet):
            server = await asyncio.start_unix_server(greet, f"{short}/l/api.sock")
            made = Sockets.find(directory)
            reader, writer = await made.connect("api.sock", limit=1000)
            assert await reader.readline() == b"hello\n"
            writer.close()
            made.close()
            server.close()


async def test_a_link_to_somebody_elses_socket_is_refused(sockets, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    async with listening(tmp_path / "elsewhere" / "docker.sock", greet) as connections:
        (tmp_path / "api.sock").symlink_to("elsewhere/docker.sock")
        with pytest.raises(OSError):
            await sockets.connect("api.sock", limit=1000)
        assert connections == [0]


async def test_a_socket_of_another_users_is_refused(tmp_path):
    async with listening(tmp_path / "api.sock", greet) as connections:
        foreign = Sockets(os.open(tmp_path, os.O_PATH), uid=os.geteuid() + 1)
        with pytest.raises(ConnectionRefusedError):
            await foreign.connect("api.sock", limit=1000)
        foreign.close()
        assert connections == [0]


def test_only_the_end_of_a_plain_file_is_read(sockets, tmp_path):
    (tmp_path / "vmm.log").write_bytes(b"a" * 100 + b"end")
    assert sockets.read_end("vmm.log", 10) == b"aaaaaaaend"
    (tmp_path / "link").symlink_to(tmp_path / "vmm.log")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "none"):
        with pytest.raises(OSError):
            sockets.read_end(name, 10)


def test_only_a_pipe_is_a_pipe(sockets, tmp_path):
    os.mkfifo(tmp_path / "metrics.fifo")
    os.close(sockets.open_pipe("metrics.fifo"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        sockets.open_pipe("file")


def test_a_listener_lets_in_whom_its_mode_says(sockets, tmp_path):
    listener = sockets.listen("agent.sock_1024", mode=0o777)
    assert stat.S_IMODE((tmp_path / "agent.sock_1024").stat().st_mode) == 0o777
    with socket.socket(socket.AF_UNIX) as guest:
        guest.connect(str(tmp_path / "agent.sock_1024"))
    listener.close()
    sockets.remove("agent.sock_1024")
    sockets.remove("agent.sock_1024")
    assert os.listdir(tmp_path) == []


async def test_a_closed_one_leads_nowhere(sockets, tmp_path):
    (tmp_path / "vmm.log").write_bytes(b"x")
    sockets.close()
    sockets.close()
    sockets.remove("vmm.log")
    for attempt in (
        lambda: sockets.read_end("vmm.log", 1),
        lambda: sockets.open_pipe("vmm.log"),
        lambda: sockets.listen("x", mode=0o600),
        lambda: sockets.directory,
    ):
        with pytest.raises(OSError):
            attempt()
    with pytest.raises(OSError):
        await sockets.connect("api.sock", limit=1)
    assert os.listdir(tmp_path) == ["vmm.log"]


def test_a_directory_that_is_not_there_is_a_closed_one(tmp_path):
    with pytest.raises(OSError):
        Sockets.find(tmp_path / "none").read_end("vmm.log", 1)
