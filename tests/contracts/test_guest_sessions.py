"""What sessions promise, kept by the agent itself and by the fake that stands in for it."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.session_guests import Guest, check_slow_reader, shell, start_fake_place, start_real_place

from banger.base.problem import Code, Outcome, Problem
from banger.guest.agent import Agent
from banger.guest.command import ExecRequest, ExitStatus
from banger.guest.errors import (
    MISSING_COMMAND,
    NO_SESSION,
    TAKEN,
    TOO_MANY_SESSIONS,
    CannotStart,
    GuestProblem,
)
from banger.guest.frames import Stream
from banger.guest.methods import Method
from banger.guest.session_records import RecordKind, SessionInfo, SessionRecord, StartSession
from banger.guest.sessions import FROM_NOW, Reader

pytestmark = pytest.mark.timeout(60)
MIB = 1024 * 1024


@pytest.fixture(params=["fake", "agent"])
async def guest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Guest]:
    start = start_fake_place(tmp_path) if request.param == "fake" else start_real_place()
    async with start as place:
        yield place


@pytest.fixture
async def agent(guest: Guest) -> Agent:
    return await guest.connect()


def output(records: list[SessionRecord], kind: RecordKind = RecordKind.STDOUT) -> bytes:
    return b"".join(record.data for record in records if record.kind == kind)


async def read(agent: Agent, session_id: str = "s", **how) -> list[SessionRecord]:
    async with agent.sessions.read(session_id, **how) as reader:
        return [record async for record in reader]


async def read_until(reader: Reader, expected: bytes) -> bytes:
    seen = b""
    async for record in reader:
        seen += record.data if record.kind == RecordKind.STDOUT else b""
        if expected in seen:
            return seen
    raise AssertionError(f"the session ended after {seen!r}")


async def wait_for(agent: Agent, condition, session_id: str = "s") -> SessionInfo:
    async with agent.sessions.watch() as watch:
        async for info in watch:
            if info.id == session_id and condition(info):
                return info
    raise AssertionError


async def wait_over(agent: Agent, session_id: str = "s") -> SessionInfo:
    return await wait_for(agent, lambda info: info.is_over, session_id)


@asynccontextmanager
async def refused(number: int, code: Code | None = None):
    with pytest.raises(GuestProblem) as problem:
        yield problem
    assert problem.value.errno == number
    assert code is None or problem.value.code == code


# Start and end


async def test_a_session_runs_and_tells_how_it_ended(agent: Agent) -> None:
    info = await agent.sessions.start(shell("echo out; echo err >&2; exit 7"))
    assert (info.id, info.pty, info.has_writer, info.readers) == ("s", False, False, 0)
    assert info.pid > 0
    records = await read(agent, follow=True)
    assert (output(records), output(records, RecordKind.STDERR)) == (b"out\n", b"err\n")
    last = records[-1].info
    assert last is not None
    assert (last.state, last.exit_status) == ("exited", ExitStatus(7, None))
    assert last.ended_ns is not None
    assert last.ended_ns >= last.started_ns > 1_600_000_000 * 10**9
    assert (last.begin, last.end) == (0, 8)


async def test_a_signal_of_somebody_else_is_an_exit(agent: Agent) -> None:
    await agent.sessions.start(shell("sleep 100"))
    await agent.sessions.signal("s", signal.SIGKILL)
    info = await wait_over(agent)
    assert (info.state, info.exit_status) == ("exited", ExitStatus(None, signal.SIGKILL))


async def test_tags_environment_and_size_arrive(agent: Agent) -> None:
    request = ExecRequest(
        argv=("/bin/sh", "-c", 'echo "$A"; stty size; tty -s && echo tty'), env=(("A", "b=c"),)
    )
    request = ExecRequest(
        **{name: getattr(request, name) for name in request.__struct_fields__}
        | {"pty": True, "rows": 33, "columns": 101}
    )
    info = await agent.sessions.start(StartSession("s", request, tags=(("owner", "me"), ("note", "a=b é"))))
    assert info.tags == (("owner", "me"), ("note", "a=b é"))
    assert (info.pty, info.rows, info.columns) == (True, 33, 101)
    assert output(await read(agent, follow=True)) == b"b=c\r\n33 101\r\ntty\r\n"


async def test_what_cannot_start_leaves_nothing(agent: Agent) -> None:
    def argv(*words: str, **more) -> StartSession:
        return StartSession("s", ExecRequest(argv=words, **more))

    with pytest.raises(CannotStart) as problem:
        await agent.sessions.start(argv("/nowhere/program"))
    assert (problem.value.errno, problem.value.exit_status) == (errno.ENOENT, 127)
    assert problem.value.outcome == Outcome.NOT_STARTED
    with pytest.raises(CannotStart) as problem:
        await agent.sessions.start(argv("/etc/passwd"))
    assert (problem.value.errno, problem.value.exit_status) == (errno.EACCES, 126)
    with pytest.raises(CannotStart, match="/nowhere: no such file"):
        await agent.sessions.start(argv("true", cwd="/nowhere"))
    with pytest.raises(CannotStart, match="nobody-here: no such user"):
        await agent.sessions.start(argv("true", user="nobody-here"))
    assert await agent.sessions.list() == ()
    await agent.sessions.start(argv("true"))


async def test_missing_required_commands_are_named(agent: Agent) -> None:
    async with refused(MISSING_COMMAND, Code.NOT_FOUND) as problem:
        await agent.sessions.start(shell("true", required=("sh", "gcc-of-mars", "/bin/sh", "/bin/nothing")))
    assert problem.value.brief.startswith("gcc-of-mars, /bin/nothing: ")
    assert problem.value.outcome == Outcome.NOT_STARTED
    async with refused(MISSING_COMMAND):
        await agent.sessions.start(shell("true", required=("ls",), env=(("PATH", "/nowhere"),)))
    assert await agent.sessions.list() == ()
    await agent.sessions.start(shell("true", required=("sh", "/bin/sh")))


async def test_an_id_is_taken_once(agent: Agent) -> None:
    await agent.sessions.start(shell("true"))
    await wait_over(agent)
    async with refused(errno.EEXIST, Code.ALREADY_EXISTS):
        await agent.sessions.start(shell("true"))
    await agent.sessions.remove("s")
    await agent.sessions.start(shell("true"))


async def test_unknown_sessions_are_not_found(agent: Agent) -> None:
    sessions = agent.sessions
    async with refused(NO_SESSION, Code.NOT_FOUND):
        await read(agent, "other")
    async with refused(NO_SESSION), sessions.write("other"):
        pass
    for call in (
        sessions.signal("other", 15),
        sessions.resize("other", 10, 10),
        sessions.stop("other"),
        sessions.remove("other"),
    ):
        async with refused(NO_SESSION):
            await call


async def test_bad_input_is_refused_before_it_is_sent(agent: Agent) -> None:
    for session in (
        shell("true", session_id="a/b"),
        shell("true", scrollback_bytes=0),
        shell("true", scrollback_bytes=17 * MIB),
        shell("true", required=("",)),
        shell("true")._replace(tags=(("", "x"),)),
        shell("true")._replace(tags=(("k", "x" * 5000),)),
        shell("true")._replace(tags=(("k", "a\nb"),)),
    ):
        with pytest.raises(Problem) as problem:
            await agent.sessions.start(session)
        assert problem.value.code == Code.BAD_REQUEST
    assert await agent.sessions.list() == ()


async def test_all_sessions_are_listed_by_age_and_may_be_removed(agent: Agent) -> None:
    for name in ("b", "a", "c"):
        await agent.sessions.start(shell("exec sleep 100" if name == "a" else "true", session_id=name))
    await wait_over(agent, "b")
    await wait_over(agent, "c")
    assert [info.id for info in await agent.sessions.list()] == ["b", "a", "c"]
    async with refused(errno.EBUSY, Code.CONFLICT):
        await agent.sessions.remove("a")
    await agent.sessions.remove("b")
    assert [info.id for info in await agent.sessions.list()] == ["a", "c"]


async def test_what_a_command_leaves_behind_does_not_hold_its_end_up(agent: Agent) -> None:
    await agent.sessions.start(shell("echo said; sleep 30 & exit 3"))
    records = await read(agent, follow=True)
    assert output(records) == b"said\n"
    assert records[-1].info is not None
    assert records[-1].info.exit_status == ExitStatus(3, None)


# Reading


async def test_readers_may_be_many_and_begin_anywhere(agent: Agent) -> None:
    await agent.sessions.start(shell("echo one; read x; echo two; read x; echo three", stdin=True))
    async with (
        agent.sessions.read("s", follow=True) as first,
        agent.sessions.read("s", follow=True) as second,
        agent.sessions.write("s") as writer,
    ):
        assert await read_until(first, b"one\n") == b"one\n"
        assert (await agent.sessions.list())[0].readers == 2
        await writer.write(b"\n")
        assert await read_until(first, b"two\n") == b"two\n"
        await writer.write(b"\n")
        assert await read_until(first, b"three\n") == b"three\n"
        assert await read_until(second, b"three\n") == b"one\ntwo\nthree\n"
    await wait_over(agent)
    assert output(await read(agent, since=4)) == b"two\nthree\n"
    assert output(await read(agent, since=6)) == b"o\nthree\n"
    assert output(await read(agent, since=FROM_NOW)) == b""
    assert output(await read(agent, tail_lines=1)) == b"three\n"
    assert output(await read(agent, tail_lines=2)) == b"two\nthree\n"
    assert output(await read(agent, tail_lines=0)) == b""
    assert output(await read(agent, tail_lines=99)) == b"one\ntwo\nthree\n"
    assert output(await read(agent, since=8, tail_lines=2)) == b"three\n"
    records = await read(agent, since=5)
    assert [(record.kind, record.sequence) for record in records[:2]] == [
        (RecordKind.STATE, 5),
        (RecordKind.STDOUT, 5),
    ]


async def test_streams_can_be_chosen_and_keep_their_place(agent: Agent) -> None:
    script = "echo out1; read x; echo err1 >&2; read x; echo out2; read x; echo err2 >&2"
    await agent.sessions.start(shell(script, stdin=True))
    placed = []
    async with agent.sessions.read("s", follow=True) as reader, agent.sessions.write("s") as writer:
        async for record in reader:
            if record.kind <= RecordKind.STDERR:
                placed.append((record.kind, record.sequence, record.data))
                if len(placed) < 4:
                    await writer.write(b"\n")
    assert placed == [(1, 0, b"out1\n"), (2, 5, b"err1\n"), (1, 10, b"out2\n"), (2, 15, b"err2\n")]
    only = await read(agent, streams=[Stream.STDERR])
    assert (output(only), output(only, RecordKind.STDERR)) == (b"", b"err1\nerr2\n")
    assert output(await read(agent, streams=[Stream.STDERR], tail_lines=1), RecordKind.STDERR) == b"err2\n"
    assert output(await read(agent, streams=[Stream.STDOUT], tail_lines=1)) == b"out2\n"


async def test_a_reader_that_does_not_follow_ends_at_the_present_end(agent: Agent) -> None:
    await agent.sessions.start(shell("echo now; exec sleep 100"))
    async with agent.sessions.read("s", follow=True) as reader:
        await read_until(reader, b"now\n")
    records = await read(agent)
    assert output(records) == b"now\n"
    assert records[0].info is not None
    assert records[0].info.state == "running"


async def test_what_is_not_held_any_more_is_told(agent: Agent) -> None:
    await agent.sessions.start(
        shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", scrollback_bytes=16384)
    )
    info = await wait_over(agent)
    assert 0 < info.begin < info.end
    assert info.end - info.begin <= 16384
    records = await read(agent)
    assert [r.kind for r in records[:2]] == [RecordKind.STATE, RecordKind.GAP]
    assert (records[1].sequence, records[1].end) == (0, info.begin)
    held = output(records)
    assert len(held) == info.end - info.begin
    assert held.endswith(b"line 19998\nline 19999\n")
    assert not [r for r in await read(agent, since=info.begin) if r.kind == RecordKind.GAP]
    gap = (await read(agent, since=info.begin - 1))[1]
    assert (gap.kind, gap.sequence, gap.end) == (RecordKind.GAP, info.begin - 1, info.begin)


async def test_a_terminal_gets_its_modes_after_a_gap(agent: Agent) -> None:
    script = r"printf '\033[?1049h\033[?25l'; head -c 60000 /dev/zero | tr '\0' x"
    await agent.sessions.start(shell(script, pty=True, scrollback_bytes=8192))
    await wait_over(agent)
    records = await read(agent)
    assert [r.kind for r in records[1:3]] == [RecordKind.GAP, RecordKind.RESTORE]
    assert records[2].data == b"\x1b[?1049h\x1b[?25l"
    assert records[2].sequence == records[1].end
    assert set(output(records)) == {ord("x")}


async def test_a_slow_reader_holds_nobody_up_and_costs_no_memory(guest: Guest, agent: Agent) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(check_slow_reader(guest, agent, 64 * MIB, MIB))
        for _ in range(20):  # others have their turn meanwhile
            assert (await agent.run(["echo", "hello"])).stdout == b"hello\n"


async def test_removing_a_session_ends_its_readers(agent: Agent) -> None:
    await agent.sessions.start(shell("head -c 3000000 /dev/zero", scrollback_bytes=4 * MIB))
    await wait_over(agent)
    async with agent.sessions.read("s") as reader:
        assert (await anext(reader)).kind == RecordKind.STATE
        await agent.sessions.remove("s")
        async with refused(NO_SESSION):
            async for _ in reader:
                pass


# Writing


async def test_a_pipe_ends_when_its_writer_says_so(agent: Agent) -> None:
    await agent.sessions.start(shell("cat; echo done", stdin=True))
    async with agent.sessions.write("s") as writer:
        assert writer.info.has_writer
        assert await writer.write(b"a" * 1_000_000)
        writer.close_stdin()
        await writer.wait_end()
    assert output(await read(agent, follow=True)) == b"a" * 1_000_000 + b"done\n"


async def test_there_is_one_writer_and_leaving_gives_the_right_back(agent: Agent) -> None:
    await agent.sessions.start(shell("cat", stdin=True))
    async with agent.sessions.write("s") as first:
        await first.write(b"1")
        async with refused(TAKEN, Code.CONFLICT), agent.sessions.write("s"):
            pass
    async with agent.sessions.write("s") as second:
        await second.write(b"2")
        second.close_stdin()
        await second.wait_end()
    assert output(await read(agent, follow=True)) == b"12"


async def test_a_writer_can_be_stolen_and_learns_of_it(agent: Agent) -> None:
    await agent.sessions.start(shell("cat", stdin=True))
    async with agent.sessions.write("s") as first:
        await first.write(b"first ")
        async with agent.sessions.write("s", steal=True) as second:
            async with refused(TAKEN, Code.CONFLICT):
                await first.wait_end()
            async with refused(TAKEN):
                await first.write(b"lost")
            await second.write(b"second")
            second.close_stdin()
            await second.wait_end()
    assert output(await read(agent, follow=True)) == b"first second"


async def test_bytes_of_a_writer_that_left_are_delivered(agent: Agent) -> None:
    await agent.sessions.start(shell("read go; cat; echo done", stdin=True))
    async with agent.sessions.write("s") as writer:
        await writer.write(b"go\n" + b"x" * 200_000)
    async with agent.sessions.write("s") as writer:
        await writer.write(b"y" * 200_000)
        writer.close_stdin()
        await writer.wait_end()
    assert output(await read(agent, follow=True)) == b"x" * 200_000 + b"y" * 200_000 + b"done\n"


async def test_what_nobody_reads_is_bounded(agent: Agent) -> None:
    refusal: GuestProblem | None = None
    await agent.sessions.start(shell("exec sleep 100", stdin=True))
    for _ in range(8):
        try:
            async with asyncio.timeout(0.3), agent.sessions.write("s") as writer:
                await writer.write(b"x" * 1_000_000)
        except TimeoutError:
            continue
        except GuestProblem as problem:
            refusal = problem
            break
    assert refusal is not None
    assert refusal.errno == errno.EBUSY


async def test_a_session_without_input_says_so(agent: Agent) -> None:
    await agent.sessions.start(shell("exec sleep 100"))
    async with refused(errno.EPIPE, Code.CONFLICT), agent.sessions.write("s"):
        pass
    await agent.sessions.stop("s", 5)
    async with refused(errno.ESRCH, Code.NOT_RUNNING), agent.sessions.write("s"):
        pass


async def test_a_writer_learns_that_the_command_reads_no_more(agent: Agent) -> None:
    await agent.sessions.start(shell("exec 0<&-; exec sleep 100", stdin=True))
    async with agent.sessions.write("s") as writer:
        while await writer.write(b"x" * 10_000):
            await asyncio.sleep(0.01)
    assert not (await agent.sessions.list())[0].takes_input
    await agent.sessions.start(shell("read x", stdin=True, session_id="t"))
    async with agent.sessions.write("t") as writer:
        await writer.write(b"x\n")
        await writer.wait_end()
        assert not await writer.write(b"more")


async def test_a_terminal_echoes_has_keys_and_can_be_resized(agent: Agent) -> None:
    script = "trap 'stty size' WINCH; echo ready; cat; stty size; while :; do sleep 0.05; done"
    await agent.sessions.start(shell(script, pty=True, rows=24, columns=80))
    async with agent.sessions.read("s", follow=True) as reader:
        await read_until(reader, b"ready\r\n")
        async with agent.sessions.write("s") as writer:
            await writer.write(b"hello\n")
            writer.close_stdin()
            await writer.wait_end()
        assert b"hello\r\nhello\r\n24 80\r\n" in await read_until(reader, b"24 80\r\n")
        await agent.sessions.resize("s", 50, 132)
        await read_until(reader, b"50 132\r\n")
        async with agent.sessions.write("s") as writer:
            await writer.write(b"\x03")
            await writer.wait_end()
    info = await wait_over(agent)
    assert (info.rows, info.columns, info.exit_status) == (50, 132, ExitStatus(None, signal.SIGINT))


async def test_only_a_terminal_has_a_size(agent: Agent) -> None:
    await agent.sessions.start(shell("exec sleep 100"))
    async with refused(errno.ENOTTY):
        await agent.sessions.resize("s", 10, 10)
    async with refused(errno.EINVAL):
        await agent.sessions.signal("s", 65)


# Stopping


async def test_stop_ends_the_whole_group(agent: Agent) -> None:
    await agent.sessions.start(shell("sleep 100 & echo $!; wait"))
    async with agent.sessions.read("s", follow=True) as reader:
        child = int((await read_until(reader, b"\n")).strip())
        info = await agent.sessions.stop("s", 20)
    assert (info.state, info.exit_status) == ("stopped", ExitStatus(None, signal.SIGTERM))
    await wait_gone(child)
    assert (await agent.sessions.stop("s"))._replace(readers=0) == info._replace(readers=0)


async def wait_gone(pid: int) -> None:
    """Not there, or a zombie that the machine's first process has not collected."""
    async with asyncio.timeout(10):
        while is_alive(pid):
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_stop_kills_what_does_not_listen(agent: Agent) -> None:
    await agent.sessions.start(shell("trap '' TERM; echo ready; while :; do sleep 1; done"))
    async with agent.sessions.read("s", follow=True) as reader:
        await read_until(reader, b"ready\n")
        info = await agent.sessions.stop("s", 0.3)
    assert (info.state, info.exit_status) == ("stopped", ExitStatus(None, signal.SIGKILL))


async def test_stop_kills_grandchildren_that_outlive_their_leader(agent: Agent) -> None:
    script = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done' & wait"
    await agent.sessions.start(shell(script))
    async with agent.sessions.read("s", follow=True) as reader:
        child = int((await read_until(reader, b"\n")).strip())
        info = await agent.sessions.stop("s", 0.5)
    assert (info.state, info.exit_status) == ("stopped", ExitStatus(None, signal.SIGTERM))
    await wait_gone(child)


async def test_stop_goes_on_when_its_caller_leaves(guest: Guest, agent: Agent) -> None:
    await agent.sessions.start(shell("trap '' TERM; echo ready; while :; do sleep 1; done"))
    async with agent.sessions.read("s", follow=True) as reader:
        await read_until(reader, b"ready\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await agent.sessions.stop("s", 0.5)
    agent = await guest.connect()
    assert (await wait_over(agent)).state == "stopped"


# The host comes and goes


async def test_sessions_outlive_the_connection_and_keep_what_they_say(guest: Guest, agent: Agent) -> None:
    await agent.sessions.start(shell("while read x; do echo got $x; done; echo end", stdin=True))
    async with agent.sessions.write("s") as writer:
        await writer.write(b"1\n")
        again = await guest.connect()
        with pytest.raises(Problem):
            await writer.wait_end()
    info = (await again.sessions.list())[0]
    assert (info.state, info.has_writer) == ("running", False)
    async with again.sessions.write("s") as writer:
        await writer.write(b"2\n")
        writer.close_stdin()
        await writer.wait_end()
    assert output(await read(again, follow=True)) == b"got 1\ngot 2\nend\n"


async def test_output_is_whole_across_many_connections(guest: Guest, agent: Agent) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; read x"
    await agent.sessions.start(shell(script, stdin=True))
    expected = b"".join(b"%d\n" % number for number in range(3000))
    seen = b""
    while len(seen) < len(expected):
        async with agent.sessions.read("s", since=len(seen), follow=True) as reader:
            async for record in reader:
                assert record.kind in (RecordKind.STDOUT, RecordKind.STATE)
                assert record.sequence == len(seen)
                seen += record.data
                if record.data:
                    break
        agent = await guest.connect()
    assert seen == expected


async def test_an_exec_still_ends_with_its_connection(guest: Guest, agent: Agent) -> None:
    async with agent.exec(ExecRequest(argv=("sleep", "100"))) as command:
        await guest.connect()
        await wait_gone(command.pid)


# Watching, limits, hostile requests


async def test_a_watch_tells_what_is_and_what_changes(agent: Agent) -> None:
    await agent.sessions.start(shell("true", session_id="old"))
    await wait_over(agent, "old")
    async with agent.sessions.watch() as watch:
        info = await anext(watch)
        assert (info.id, info.state) == ("old", "exited")
        await agent.sessions.start(shell("exec cat", stdin=True))
        info = await anext(watch)
        assert (info.id, info.state, info.has_writer) == ("s", "running", False)
        async with agent.sessions.write("s"):
            assert (await anext(watch)).has_writer
        assert not (await anext(watch)).has_writer
        await agent.sessions.stop("s", 5)
        while not (info := await anext(watch)).is_over:
            assert info.state == "stopping"
        assert info.state == "stopped"
        await agent.sessions.remove("old")
        info = await anext(watch)
        assert (info.id, info.state) == ("old", "removed")


async def test_a_watch_is_told_that_a_writer_has_ended(agent: Agent) -> None:
    await agent.sessions.start(shell("exec sleep 100", pty=True))
    async with agent.sessions.watch() as watch:
        assert (await anext(watch)).state == "running"
        async with agent.sessions.write("s") as writer:
            assert (await anext(watch)).has_writer
            writer.close_stdin()
            await writer.wait_end()
            async with asyncio.timeout(5):
                assert not (await anext(watch)).has_writer


async def test_the_oldest_that_ended_gives_way(agent: Agent) -> None:
    await agent.sessions.start(shell("exec sleep 100", session_id="runs", scrollback_bytes=4096))
    for number in range(127):
        await agent.sessions.start(shell("exit 0", session_id=f"n{number}", scrollback_bytes=4096))
    for name in ("n0", "n1", "n126"):
        await wait_over(agent, name)
    await agent.sessions.start(shell("exit 0", session_id="new", scrollback_bytes=4096))
    names = [info.id for info in await agent.sessions.list()]
    assert len(names) == 128
    assert (names[0], names[1], names[-1]) == ("runs", "n1", "new")
    async with refused(NO_SESSION):
        await read(agent, "n0")


async def test_there_are_at_most_128_that_run(agent: Agent) -> None:
    for number in range(128):
        await agent.sessions.start(shell("exec sleep 100", session_id=f"n{number}", scrollback_bytes=4096))
    async with refused(TOO_MANY_SESSIONS, Code.CONFLICT):
        await agent.sessions.start(shell("true", session_id="one-more"))
    await agent.sessions.stop("n5", 5)
    await agent.sessions.start(shell("true", session_id="one-more"))
    assert len(await agent.sessions.list()) == 128


@pytest.mark.parametrize("method", list(range(Method.SESSION_START, Method.SESSION_WATCH + 1)))
async def test_malformed_requests_harm_nobody(agent: Agent, method: int) -> None:
    await agent.sessions.start(shell("exec cat", stdin=True))
    malformed: list[list[tuple[int, int | str | bytes]]] = [
        [],
        [(1, b"")],
        [(1, b"s\0"), (2, 1)],
        [(1, b"\xff" * 64)],
        [(1, "x" * 5000)],
        [(1, "s"), (2, b"123")],
        [(1, "sh"), (8, "../x"), (11, b"1")],
        [(1, "sh"), (8, "x"), (5, b"1")],
        [(1, "sh"), (8, "x"), (10, b"=" * 100)],
        [(1, "sh"), (8, "x"), (10, b"k=" + b"v" * 5000)],
        [(8, "x")],
    ]
    for fields in malformed:
        if method in (Method.SESSION_LIST, Method.SESSION_WATCH):
            continue
        async with agent.link.start_channel(method, fields) as channel:
            end = await channel.wait_end()
        assert end.error in (errno.EINVAL, 1001, NO_SESSION, errno.ENOENT, errno.ENOTTY) or agent_is_fake(
            agent
        )
    assert (await agent.sessions.list())[0].state == "running"


def agent_is_fake(agent: Agent) -> bool:
    return agent.welcome.agent_version == "fake"


async def test_close_in_the_middle_of_everything(agent: Agent) -> None:
    await agent.sessions.start(shell("while :; do head -c 100000; done", stdin=True))
    busy: list[int] = []
    for number in range(30):
        try:
            async with asyncio.timeout(0.002 * (number % 5)):
                async with (
                    agent.sessions.write("s", steal=True) as writer,
                    agent.sessions.read("s") as reader,
                ):
                    await writer.write(os.urandom(150_000))
                    async for _ in reader:
                        pass
        except TimeoutError:
            pass
        except GuestProblem as problem:
            busy.append(problem.errno)
    assert set(busy) <= {errno.EBUSY}  # it has more to read than a writer may add
    info = (await agent.sessions.list())[0]
    assert (info.state, info.has_writer, info.readers) == ("running", False, 0)
    await agent.sessions.stop("s", 5)
