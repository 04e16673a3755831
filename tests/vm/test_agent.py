"""The Python link against the real agent: in a QEMU guest, and as a process on this machine.

Daemon-independent. `in_guest` boots the material with the guest program; `on_host` runs the same program over
a socket pair as `guest-agent/README.md` describes.
"""

import asyncio
import errno
import hashlib
import io
import os
import shutil
import signal
import socket
import stat
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from banger.base.cpio import CpioEntry, render_archive
from banger.base.files import clone_sparse
from banger.base.problem import Code, Problem
from banger.guest.agent import Agent
from banger.guest.bootconfig import BootConfig, GuestFile, render_boot_archive
from banger.guest.command import ExecRequest, ExitStatus
from banger.guest.errors import CannotStart, GuestProblem
from banger.guest.frames import WINDOW_BYTES, Stream
from banger.guest.link import Link
from banger.guest.sessions import StartSession
from banger.model.machine import Disk, Machine

PORT = "banger.agent"
BOOT_DEADLINE_S = 120
GREETING_S = 30
LAST_WORDS = "a session ends with its guest"
KERNEL_ARGUMENTS = ("console=ttyS0", "quiet", "panic=-1", "cryptomgr.notests", "random.trust_cpu=on")

pytestmark = pytest.mark.asyncio(loop_scope="module")

Connect = Callable[[], Awaitable[Link]]


@asynccontextmanager
async def run_on_host(directory: Path, program: Path, material: Path) -> AsyncIterator[Connect]:
    """Each connection is a fresh socket pair and a fresh agent process that ends with it."""
    processes: list[asyncio.subprocess.Process] = []

    async def connect() -> Link:
        ours, theirs = socket.socketpair()
        with theirs:
            processes.append(
                await asyncio.create_subprocess_exec(
                    program, "--agent-fd", str(theirs.fileno()), pass_fds=[theirs.fileno()], cwd=directory
                )
            )
        async with asyncio.timeout(10):
            return await Link.open(*await asyncio.open_connection(sock=ours))

    try:
        yield connect
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def run_in_guest(directory: Path, program: Path, material: Path) -> AsyncIterator[Connect]:
    """One guest, resident mode (no distribution's init), for all tests of this module."""
    from banger.vmm.contract import Place
    from banger.vmm.qemu.backend import QemuVmm

    runtime, state = directory / "runtime", directory / "state"
    runtime.mkdir(mode=0o700)
    state.mkdir(mode=0o700)
    root = state / "root.img"
    await asyncio.to_thread(clone_sparse, material / "rootfs.ext4", root)
    config = BootConfig(
        hostname="agent-test",
        root="root",
        channel=(f"virtio-serial:{PORT}",),
        init="none",
        files=(
            GuestFile(path="/etc/banger-test/file", content=b"from the host\n", mode=0o640, uid=3, gid=4),
        ),
    )
    init = CpioEntry("init", stat.S_IFREG | 0o755, content=program.read_bytes())
    initramfs = state / "initramfs"
    initramfs.write_bytes(
        (material / "base.cpio").read_bytes() + render_archive([init]) + render_boot_archive(config)
    )
    machine = Machine(
        id="agent-test",
        name="agent-test",
        vcpus=1,
        memory_mib=256,
        kernel=str(material / "vmlinux"),
        initramfs=str(initramfs),
        kernel_arguments=KERNEL_ARGUMENTS,
        disks=(Disk(serial="root", path=str(root)),),
        network=None,
        agent_channel=PORT,
    )
    vmm = QemuVmm()
    handle = await vmm.start(machine, Place(runtime=str(runtime), state=str(state)))

    async def connect() -> Link:
        """A greeting that a port left in mid-conversation has swallowed is repeated, as the daemon does."""
        async with asyncio.timeout(BOOT_DEADLINE_S):
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(GREETING_S):
                        return await Link.open(*await vmm.connect_agent(handle))

    try:
        yield connect
        async with await connect() as link:
            await leave_last_words(Agent(link))
            await Agent(link).power_off(grace_s=10)
        verdict = await vmm.stop(handle, deadline_s=30)
        assert LAST_WORDS in (state / "serial.log").read_text(errors="replace")
        assert verdict.clean, (verdict, (state / "serial.log").read_text(errors="replace")[-2000:])
    finally:
        await vmm.kill(handle)
        await vmm.close()


async def leave_last_words(agent: Agent) -> None:
    """By a session that is asked to end before the guest does."""
    script = f"trap 'echo {LAST_WORDS} > /dev/console; exit' TERM; sleep 600 & echo ready; wait"
    await agent.sessions.start(session("last", script))
    async with agent.sessions.read("last", follow=True) as reader:
        async for record in reader:
            if record.data == b"ready\n":
                return


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(run_on_host, id="on_host"),
        pytest.param(run_in_guest, id="in_guest", marks=pytest.mark.vm),
    ],
)
def place(request) -> Callable[[Path], object]:
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connect(place, tmp_path_factory, guest_program, material) -> AsyncIterator[Connect]:
    directory = Path(tmp_path_factory.mktemp("agent"))
    async with place(directory, guest_program, material) as connecting:
        yield connecting
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def agent(connect: Connect) -> AsyncIterator[Agent]:
    async with await connect() as link:
        yield Agent(link)


@pytest_asyncio.fixture(loop_scope="module")
async def scratch(agent: Agent) -> AsyncIterator[str]:
    path = (await agent.run(["mktemp", "-d"])).stdout.decode().strip()
    yield path
    await agent.run(["rm", "-rf", path])


async def collect(download) -> bytes:
    return b"".join([piece async for piece in download])


async def read_until(command, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(20):
        while wanted not in seen:
            seen += (await anext(command)).data
    return seen


async def test_welcome_and_health_tell_of_one_boot(agent: Agent) -> None:
    health = await agent.health()
    assert health.boot_id == agent.welcome.boot_id
    assert health.uptime_us >= agent.welcome.ready_uptime_us > 0
    assert 0 < health.memory_available_bytes <= health.memory_total_bytes
    assert 0 < health.agent_rss_bytes < 16 << 20
    print(agent.welcome)


async def test_commands_have_streams_and_a_status(agent: Agent) -> None:
    result = await agent.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.stdout, result.stderr, result.status) == (b"out\n", b"err\n", 7)
    result = await agent.run(
        ["sh", "-c", 'cat; echo "$A"; pwd'], stdin=b"in\n", env=[("A", "b c")], cwd="/usr"
    )
    assert result.stdout == b"in\nb c\n/usr\n"


async def test_a_command_that_cannot_start_says_why(agent: Agent, scratch: str) -> None:
    with pytest.raises(CannotStart) as caught:
        await agent.run(["no-such-command"])
    assert (caught.value.exit_status, caught.value.code) == (127, Code.NOT_FOUND)
    await agent.file_write(f"{scratch}/plain", b"text", mode=0o644)
    with pytest.raises(CannotStart) as caught:
        await agent.run([f"{scratch}/plain"])
    assert (caught.value.exit_status, caught.value.code) == (126, Code.UNAUTHORIZED)
    await agent.file_write(f"{scratch}/garbage", b"\0\1\2", mode=0o755)
    with pytest.raises(CannotStart) as caught:
        await agent.run([f"{scratch}/garbage"])
    assert caught.value.exit_status == 126
    with pytest.raises(CannotStart, match="/no/such/directory: no such file") as caught:
        await agent.run(["true"], cwd="/no/such/directory")
    assert caught.value.exit_status == 126
    with pytest.raises(CannotStart, match="nobody-like-this: no such user"):
        await agent.run(["true"], user="nobody-like-this")


async def test_signals_reach_the_command(agent: Agent) -> None:
    async with agent.exec(ExecRequest(argv=("sleep", "60"))) as command:
        command.signal(signal.SIGTERM)
        assert await command.wait() == ExitStatus(None, signal.SIGTERM)


async def test_100_mib_go_through_cat_and_come_back_unchanged(agent: Agent) -> None:
    block, count = os.urandom(1 << 20), 100
    sent, received, size = hashlib.sha256(), hashlib.sha256(), 0
    begin = time.perf_counter()
    async with agent.exec(ExecRequest(argv=("cat",), stdin=True)) as command, asyncio.TaskGroup() as group:

        async def feed() -> None:
            for _ in range(count):
                sent.update(block)
                assert await command.write_stdin(block)
            command.close_stdin()

        group.create_task(feed())
        async for output in command:
            received.update(output.data)
            size += len(output.data)
        assert (await command.wait()).status == 0
    print(f"both ways: {2 * size / 1e6 / (time.perf_counter() - begin):.0f} MB/s")
    assert size == count << 20
    assert received.digest() == sent.digest()


async def test_endless_output_that_nobody_reads_waits_in_its_own_pipe(agent: Agent) -> None:
    async with agent.exec(ExecRequest(argv=("cat", "/dev/zero"))) as command:
        async with asyncio.timeout(20):
            while agent.link.buffered_bytes < WINDOW_BYTES:
                await agent.clock()
            for _ in range(20):
                await agent.health()
        assert agent.link.buffered_bytes == WINDOW_BYTES
        for _ in range(64):
            await anext(command)
        pid = command.pid
    await wait_gone(agent, pid)
    assert agent.link.buffered_bytes == 0


async def wait_gone(agent: Agent, pid: int) -> None:
    async with asyncio.timeout(20):
        while (await agent.run(["sh", "-c", f"kill -0 {pid}"])).status == 0:
            pass


async def test_bulk_throughput(agent: Agent) -> None:
    size = 0
    begin = time.perf_counter()
    async with agent.exec(ExecRequest(argv=("head", "-c", str(256 << 20), "/dev/zero"))) as command:
        async for output in command:
            size += len(output.data)
        assert (await command.wait()).status == 0
    print(f"from the guest: {size / 1e6 / (time.perf_counter() - begin):.0f} MB/s")
    assert size == 256 << 20
    begin = time.perf_counter()
    for _ in range(200):
        await agent.clock()
    print(f"round trip: {(time.perf_counter() - begin) / 200 * 1e6:.0f} us")


async def flood(agent: Agent, pids: list[int]) -> None:
    """Writes for ever to a command whose output nobody reads."""
    async with agent.exec(ExecRequest(argv=("cat",), stdin=True)) as command:
        pids.append(command.pid)
        while True:
            await command.write_stdin(bytes(1 << 20))


async def drink(agent: Agent, pids: list[int], size: int) -> None:
    """Reads that much of an endless stream and then cuts the connection in the middle."""
    async with agent.exec(ExecRequest(argv=("cat", "/dev/zero"))) as command:
        pids.append(command.pid)
        async for output in command:
            size -= len(output.data)
            if size < 0:
                await agent.link.aclose()


async def test_a_new_connection_works_after_an_aborted_bulk_transfer(connect: Connect) -> None:
    """The port holds stale bytes in both directions then (FACTS, virtio-serial)."""
    for _ in range(5):
        pids: list[int] = []
        agent = Agent(await connect())
        results = await asyncio.gather(
            flood(agent, pids), drink(agent, pids, 8 << 20), return_exceptions=True
        )
        assert all(isinstance(result, Problem) for result in results), results
        begin = time.perf_counter()
        async with await connect() as link:
            await Agent(link).health()
            print(f"answers {1000 * (time.perf_counter() - begin):.1f} ms after the abort")
            for pid in pids:
                await wait_gone(Agent(link), pid)


async def test_a_pty_has_a_size_that_changes(agent: Agent) -> None:
    request = ExecRequest(argv=("sh",), pty=True, rows=24, columns=80, env=(("PS1", "> "), ("TERM", "dumb")))
    async with agent.exec(request) as command:
        await command.write_stdin(b"stty size; tty; echo first-$((1+1))\n")
        seen = await read_until(command, b"first-2")
        assert b"24 80" in seen
        assert b"/dev/pts/" in seen
        command.resize(50, 132)
        await command.write_stdin(b"stty size; echo second-$((1+1))\n")
        assert b"50 132" in await read_until(command, b"second-2")
        # The inner shell speaks once it is the terminal's foreground group; an interrupt now is for it.
        await command.write_stdin(b"sh -c 'echo third-$((1+1)); exec sleep 60'\n")
        await read_until(command, b"third-2")
        await command.write_stdin(b"\x03")
        await command.write_stdin(b"exit 5\n")
        async with asyncio.timeout(20):
            assert all([output.stream is Stream.STDOUT async for output in command])
            assert (await command.wait()).status == 5


async def test_files_are_written_whole_and_read_back(agent: Agent, scratch: str) -> None:
    content = os.urandom(3 << 20)
    path = f"{scratch}/a/b/file"
    assert await agent.file_write(path, content, mode=0o600, make_parents=True) == len(content)
    entry = await agent.file_stat(path)
    assert (entry.name, entry.size_bytes, stat.S_IMODE(entry.mode)) == ("file", len(content), 0o600)
    async with agent.file_read(path) as download:
        assert download.size_bytes == len(content)
        assert await collect(download) == content
    async with agent.file_read(path, offset=1000, length=50) as download:
        assert await collect(download) == content[1000:1050]
    assert [entry.name for entry in await agent.file_list(f"{scratch}/a")] == ["b"]
    with pytest.raises(GuestProblem) as caught:
        await agent.file_stat(f"{scratch}/absent")
    assert caught.value.code is Code.NOT_FOUND


async def test_an_unfinished_file_leaves_nothing(agent: Agent, scratch: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError):
        await agent.file_write(f"{scratch}/half", pieces())
    async with asyncio.timeout(20):
        while (names := [entry.name for entry in await agent.file_list(scratch)]) != ["half"] and names:
            pass
    assert names == []


async def test_a_tree_goes_round(agent: Agent, scratch: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, mode in (
            ("bin/run", b"#!/bin/sh\necho ran\n", 0o755),
            ("deep/" * 30 + "long-" * 20 + "name", b"x" * 100_000, 0o600),
            ("ümläut", b"", 0o644),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "bin/run"
        archive.addfile(link)
    written = await agent.tree_put(f"{scratch}/tree", packed.getvalue())
    assert written.size_bytes == 100_019
    assert (await agent.run([f"{scratch}/tree/link"])).stdout == b"ran\n"
    async with agent.tree_get(f"{scratch}/tree") as download:
        back = io.BytesIO(await collect(download))
    packed.seek(0)
    with tarfile.open(fileobj=packed) as before, tarfile.open(fileobj=back) as after:
        found = {member.name.removeprefix("./"): member for member in after.getmembers()}
        for member in before.getmembers():
            twin = found[member.name]
            assert (twin.type, twin.size, twin.linkname) == (member.type, member.size, member.linkname)
            if member.isreg():
                assert twin.mode == member.mode
                assert after.extractfile(twin).read() == before.extractfile(member).read()


async def test_a_tree_never_leaves_its_directory(agent: Agent, scratch: str) -> None:
    for name in ("../escape", "/absolute-escape"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        with pytest.raises(GuestProblem) as caught:
            await agent.tree_put(f"{scratch}/target", packed.getvalue())
        assert caught.value.errno == 1004
    assert [entry.name for entry in await agent.file_list(scratch)] == ["target"]


async def test_the_clock_and_the_ports_can_be_read(agent: Agent) -> None:
    assert await agent.clock() > 10**18
    assert isinstance(await agent.ports(), tuple)
    begin = time.perf_counter()
    assert not await agent.wait_port(1, timeout_s=0.2)
    assert time.perf_counter() - begin >= 0.2


async def test_usage_tells_of_the_cards_the_disks_and_the_connections(agent: Agent) -> None:
    usage = await agent.usage(port=22)
    assert usage.connections == 0
    for system in usage.file_systems:
        assert 0 < system.available_bytes <= system.free_bytes < system.size_bytes
    assert (await agent.usage()).connections is None


async def test_many_commands_run_at_the_same_time(agent: Agent) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(agent.run(["echo", str(number)])) for number in range(50)]
    assert [task.result().stdout for task in tasks] == [b"%d\n" % number for number in range(50)]


def session(session_id: str, script: str, scrollback_bytes: int = 1 << 20, **request) -> StartSession:
    return StartSession(
        session_id, ExecRequest(argv=("sh", "-c", script), **request), scrollback_bytes=scrollback_bytes
    )


async def test_sessions_outlive_the_host_and_stay_in_their_memory(place, connect: Connect) -> None:
    if place is run_on_host:
        pytest.skip("there every connection has an agent of its own; tests/contracts has it")
    async with await connect() as link:
        sessions = Agent(link).sessions
        await sessions.start(session("tty", "stty size; read x; echo got $x", pty=True, rows=40, columns=100))
        await sessions.start(session("much", "head -c 64000000 /dev/zero; echo end"))
        async with sessions.write("tty") as writer:
            await writer.write(b"hel")
    async with await connect() as link:
        agent = Agent(link)
        async with agent.sessions.write("tty") as writer:
            await writer.write(b"lo\n")
        async with agent.sessions.read("tty", follow=True) as reader:
            records = [record async for record in reader]
        seen = b"".join(record.data for record in records)
        assert b"40 100\r\n" in seen
        assert seen.endswith(b"got hello\r\n")
        async with agent.sessions.read("much", follow=True) as reader:
            ends = [record.end async for record in reader]
        assert ends[-1] == 64_000_004
        assert (await agent.health()).agent_rss_bytes < 8 << 20
        with pytest.raises(GuestProblem) as caught:
            for number in range(8):
                await agent.sessions.start(session(f"n{number}", "exec sleep 100", 16 << 20))
        assert (caught.value.errno, caught.value.code) == (errno.ENOMEM, Code.NO_SPACE)
        running = [info.id for info in await agent.sessions.list() if not info.is_over]
        assert running == ["n0", "n1", "n2"]
        for name in running:
            assert (await agent.sessions.stop(name, 10)).state == "stopped"
