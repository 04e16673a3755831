"""Every method of the agent, over a real connection to the fake guest."""

import asyncio
import errno
import hashlib
import io
import signal
import stat
import tarfile
from pathlib import Path

import pytest

from banger.base.problem import Code, Outcome, Problem
from banger.guest import fake
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest, ExitStatus
from banger.guest.entries import FileSystem, Listener, Usage
from banger.guest.errors import CannotStart, GuestProblem
from banger.guest.fake import FakeGuest
from banger.guest.fake_methods import Answer, Call
from banger.guest.frames import (
    FLUSH,
    MAGIC,
    FrameType,
    Stream,
    decode_fields,
    encode_fields,
    encode_frame,
    encode_u16,
)
from banger.guest.methods import Method
from banger.guest.session_records import RecordKind, SessionInfo, encode_record, encode_session


async def collect(download) -> bytes:
    return b"".join([piece async for piece in download])


async def test_health_and_welcome_tell_the_same_boot(agent: Agent, fake_guest: FakeGuest) -> None:
    health = await agent.health()
    assert health == fake_guest.health
    assert agent.welcome.boot_id == health.boot_id


async def test_run_returns_both_streams_and_the_status(agent: Agent) -> None:
    result = await agent.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.stdout, result.stderr, result.status) == (b"out\n", b"err\n", 7)
    assert not result.truncated


async def test_run_passes_stdin_environment_and_directory(agent: Agent, fake_guest: FakeGuest) -> None:
    (fake_guest.scratch / "work").mkdir()
    result = await agent.run(
        ["sh", "-c", 'cat; echo "$A"; pwd'], stdin=b"in\n", env=[("A", "b=c")], cwd="/work"
    )
    assert result.stdout.decode().splitlines() == ["in", "b=c", str(fake_guest.scratch / "work")]


async def test_run_drops_output_beyond_its_limit_and_says_so(agent: Agent) -> None:
    result = await agent.run(["head", "-c", "3000000", "/dev/zero"], limit_bytes=1000)
    assert (len(result.stdout), result.truncated, result.status) == (1000, True, 0)


@pytest.mark.parametrize(
    ("argv", "number", "status"),
    [(["no-such-command"], errno.ENOENT, 127), (["/no/such/file"], errno.ENOENT, 127)],
)
async def test_a_missing_command_keeps_its_errno_and_a_shells_status(
    agent: Agent, argv: list[str], number: int, status: int
) -> None:
    with pytest.raises(CannotStart) as caught:
        await agent.run(argv)
    problem = caught.value
    assert (problem.errno, problem.exit_status) == (number, status)
    assert problem.code is Code.NOT_FOUND
    assert problem.outcome is Outcome.NOT_STARTED
    assert problem.brief == f"{argv[0]}: command not found in the guest"


async def test_a_missing_directory_is_not_taken_for_a_missing_command(agent: Agent) -> None:
    with pytest.raises(CannotStart) as caught:
        await agent.run(["true"], cwd="/no/such/directory")
    assert caught.value.brief.endswith("/no/such/directory: no such file or directory")
    assert caught.value.exit_status == 126


async def test_a_killed_command_ends_with_its_signal(agent: Agent) -> None:
    async with agent.exec(ExecRequest(argv=("sleep", "60"))) as command:
        command.signal(signal.SIGTERM)
        assert await command.wait() == ExitStatus(None, signal.SIGTERM)


async def test_an_interactive_command_answers_line_by_line(agent: Agent) -> None:
    async with agent.exec(ExecRequest(argv=("cat",), stdin=True)) as command:
        for line in (b"one\n", b"two\n"):
            assert await command.write_stdin(line)
            output = await anext(command)
            assert (output.stream, output.data) == (Stream.STDOUT, line)
        command.close_stdin()
        assert [output async for output in command] == []
        assert (await command.wait()).status == 0


async def test_leaving_a_command_kills_it(agent: Agent, fake_guest: FakeGuest) -> None:
    async with agent.exec(ExecRequest(argv=("sleep", "60"))) as command:
        process = Path(f"/proc/{command.pid}")
        assert process.exists()
    await agent.sync()
    assert fake_guest.closed_count == 1
    while process.exists():
        await asyncio.sleep(0)


async def test_eight_megabytes_go_through_cat_and_back_unchanged(agent: Agent) -> None:
    content = bytes(range(256)) * 4096 * 8
    received = hashlib.sha256()
    async with agent.exec(ExecRequest(argv=("cat",), stdin=True)) as command, asyncio.TaskGroup() as group:

        async def feed() -> None:
            await command.write_stdin(content)
            command.close_stdin()

        group.create_task(feed())
        async for output in command:
            received.update(output.data)
        assert (await command.wait()).status == 0
    assert received.digest() == hashlib.sha256(content).digest()


async def test_files_are_written_whole_and_read_back(agent: Agent, fake_guest: FakeGuest) -> None:
    async def pieces():
        for _ in range(10):
            yield b"0123456789" * 10_000

    assert await agent.file_write("/etc/deep/file", pieces(), mode=0o600, make_parents=True) == 1_000_000
    path = fake_guest.scratch / "etc/deep/file"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with agent.file_read("/etc/deep/file") as download:
        assert download.size_bytes == 1_000_000
        assert download.mode is not None
        assert stat.S_IMODE(download.mode) == 0o600
        assert await collect(download) == path.read_bytes()
    async with agent.file_read("/etc/deep/file", offset=5, length=7) as download:
        assert await collect(download) == b"5678901"


async def test_a_source_that_fails_leaves_no_file(agent: Agent, fake_guest: FakeGuest) -> None:
    async def pieces():
        yield b"half"
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError):
        await agent.file_write("/half", pieces())
    await agent.sync()
    await asyncio.sleep(0)
    assert not [path for path in fake_guest.scratch.iterdir() if "half" in path.name]


async def test_a_guest_error_names_the_path_and_keeps_the_errno(agent: Agent) -> None:
    with pytest.raises(GuestProblem) as caught:
        await agent.file_stat("/absent")
    assert caught.value.brief == "/absent: no such file or directory"
    assert (caught.value.code, caught.value.errno) == (Code.NOT_FOUND, errno.ENOENT)
    with pytest.raises(GuestProblem):
        async with agent.file_read("/absent"):
            raise AssertionError("the block must not be entered")
    with pytest.raises(GuestProblem):
        await agent.file_write("/no/parent", b"x")
    with pytest.raises(Problem) as refused:
        await agent.file_stat("relative")
    assert refused.value.code is Code.BAD_REQUEST


async def test_listing_is_sorted_and_bounded(agent: Agent, fake_guest: FakeGuest) -> None:
    directory = fake_guest.scratch / "many"
    directory.mkdir()
    for number in range(300):
        (directory / f"{number:03}").write_bytes(b"x" * number)
    (directory / "link").symlink_to("somewhere")
    entries = await agent.file_list("/many")
    assert [entry.name for entry in entries] == [*(f"{number:03}" for number in range(300)), "link"]
    assert entries[7].size_bytes == 7
    assert entries[-1].target == "somewhere"
    with pytest.raises(Problem, match="more than 10 files"):
        await agent.file_list("/many", limit=10)


async def test_a_tree_goes_round(agent: Agent, fake_guest: FakeGuest) -> None:
    source = fake_guest.scratch / "src"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_bytes(b"content")
    (source / "link").symlink_to("sub/file")
    async with agent.tree_get("/src") as download:
        packed = await collect(download)
    written = await agent.tree_put("/copy", packed)
    assert written.size_bytes == 7
    assert (fake_guest.scratch / "copy/link").read_bytes() == b"content"
    async with agent.tree_get("/src", ["sub"]) as download:
        packed = await collect(download)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == ["sub", "sub/file"]


async def test_a_tree_that_would_leave_its_target_is_refused(agent: Agent) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../escape"))
    with pytest.raises(GuestProblem) as caught:
        await agent.tree_put("/target", packed.getvalue())
    assert caught.value.errno == 1004


async def test_waiting_for_a_port_ends_with_the_listener_or_the_time(
    agent: Agent, fake_guest: FakeGuest
) -> None:
    assert not await agent.wait_port(8080, timeout_s=0.01)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(agent.wait_port(8080, timeout_s=30))
        await agent.sync()
        await fake_guest.listen(Listener("tcp", "::1", 8080, 12, "server"))
    assert waiting.result()
    assert await agent.ports() == (Listener("tcp", "::1", 8080, 12, "server"),)


async def test_power_off_is_answered_before_the_guest_goes(agent: Agent, fake_guest: FakeGuest) -> None:
    events: list[str] = []
    fake_guest.on_power_off = lambda: events.append("off")
    fake_guest.on_reboot = lambda: events.append("reboot")
    await agent.power_off()
    await agent.reboot(grace_s=0.5)
    await agent.sync()
    assert events == ["off", "reboot"]
    assert fake_guest.sync_count == 1


async def test_the_clock_is_set_and_read(agent: Agent) -> None:
    wanted = 1_700_000_000_000_000_000
    assert 0 <= await agent.clock(set_ns=wanted) - wanted < 10**9
    assert 0 <= await agent.clock() - wanted < 10 * 10**9


async def test_a_silent_agent_is_the_callers_deadline(agent: Agent, fake_guest: FakeGuest) -> None:
    fake_guest.is_silent = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await agent.health()


async def test_an_invalid_request_never_reaches_the_guest(agent: Agent) -> None:
    for request in (
        ExecRequest(argv=()),
        ExecRequest(argv=("a\0b",)),
        ExecRequest(argv=("a",), env=(("A=B", "c"),)),
    ):
        with pytest.raises(Problem) as caught:
            async with agent.exec(request):
                pass
        assert caught.value.code is Code.BAD_REQUEST


async def test_a_hello_after_half_a_frame_kills_what_ran_and_starts_over(
    connect, scripted, fake_guest: FakeGuest
) -> None:
    """What happens on a virtio-serial port: the guest's stream goes on while hosts come and go."""
    (reader, writer), guest_streams = await connect()
    async with asyncio.TaskGroup() as group:
        group.create_task(fake_guest.serve(*guest_streams))
        host = scripted((reader, writer))
        writer.write(FLUSH + encode_frame(FrameType.HELLO, 0, 0, MAGIC + b"1" * 16))
        assert (await host.expect(FrameType.WELCOME)).payload[16:32] == b"1" * 16
        fields = encode_fields([(1, "sleep"), (1, "60")])
        writer.write(encode_frame(FrameType.OPEN, 0, 5, encode_u16(Method.EXEC) + fields))
        started = decode_fields((await host.expect(FrameType.STARTED, 5)).payload)
        writer.write(encode_frame(FrameType.DATA, 0, 5, bytes(9000))[:5000])
        writer.write(FLUSH + encode_frame(FrameType.HELLO, 0, 0, MAGIC + b"2" * 16))
        assert (await host.expect(FrameType.WELCOME)).payload[16:32] == b"2" * 16
        process = Path(f"/proc/{started.find_number(1)}")
        while process.exists():
            await asyncio.sleep(0)
        writer.close()


async def test_usage_tells_bytes_room_and_who_is_connected(agent: Agent, fake_guest: FakeGuest) -> None:
    fake_guest.usage = Usage(7, 2**40, (FileSystem("/", 3, 2, 1), FileSystem("/root", 2**60, 0, 0)))
    fake_guest.connections[22] = 2
    assert await agent.usage() == fake_guest.usage
    assert await agent.usage(port=22) == fake_guest.usage._replace(connections=2)
    assert (await agent.usage(port=80)).connections == 0


async def test_a_guest_that_lists_sessions_without_end_is_not_listened_to_for_ever(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = SessionInfo("a", "running", 1, None, 0, 0, 0, None, False, 0, 0, False, 0)
    records = encode_record(RecordKind.STATE, 0, encode_session(info)) * 200

    async def session_list(call: Call) -> Answer:
        call.start()
        while True:
            await call.send(records)

    monkeypatch.setattr(fake, "METHODS", {**fake.METHODS, Method.SESSION_LIST: session_list})
    with pytest.raises(Problem, match="lists more than 1024 sessions"):
        await agent.sessions.list()
