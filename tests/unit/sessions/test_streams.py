"""Sessions joined to callers: replay, resumption, gaps, who may write."""

import asyncio
import random

import pytest
from tests.unit.sessions.places import Caller

from banger.api.sessions import (
    SessionAttach,
    SessionKill,
    SessionLogs,
    SessionRemove,
    SessionSend,
    SessionShow,
    SessionStart,
)
from banger.base.problem import Code, Problem
from banger.services.contract import Resize, SendSignal, Stdin

KIB = 1024


@pytest.fixture
def begin(world, vm):
    """Starts a session of shell commands."""

    async def begin(script: str, **options):
        return await world.daemon.start(SessionStart(vm="web", argv=["sh", "-c", script], **options))

    return begin


@pytest.fixture
async def attach(world):
    """Attaches in the background; whoever is left at the end leaves then."""
    tasks = []

    async def attach(session, *inputs, **options):
        caller = Caller(*inputs)
        call = asyncio.create_task(world.daemon.attach(SessionAttach(session=session.id, **options), caller))
        tasks.append(call)
        done = asyncio.create_task(caller.wait(lambda: caller.about is not None))
        await asyncio.wait((call, done), return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        if call.done():
            call.result()
        return caller, call

    yield attach
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_attaches_gets_what_was_then_what_comes_then_the_end(begin, attach):
    session = await begin("echo one; echo oops >&2; read line; echo got $line; exit 5", stdin=True)
    first, call = await attach(session)
    await first.wait_output(b"oops\n", 2)
    await first.wait_output(b"one\n")
    assert first.about["writer"] is True
    assert (first.about["session"]["vm"], first.about["session"]["pty"]) == ("web", False)
    first.queue.put_nowait(Stdin(b"this\n"))
    await call
    assert first.output[1] == b"one\ngot this\n"
    assert first.end == (5, None)
    late, call = await attach(session)
    await call
    assert (late.output, late.end, late.about["writer"]) == (first.output, (5, None), False)


async def test_who_leaves_ends_nothing_and_comes_back_where_it_was(begin, attach, world):
    session = await begin("while read line; do echo $line; done", stdin=True)
    caller, call = await attach(session, Stdin(b"one\n"))
    await caller.wait_output(b"one\n")
    call.cancel()
    await asyncio.wait([call])
    assert (await world.daemon.show(SessionShow(session=session.id))).state.value == "running"
    again, _ = await attach(session, Stdin(b"two\n"), since=caller.position)
    await again.wait_output(b"two\n")
    assert (again.output[1], again.about["at"], again.position) == (b"two\n", 4, 8)


async def test_one_writes_the_others_look_on_until_the_input_is_taken_over(begin, attach, world):
    session = await begin("while read line; do echo $line; done", stdin=True, name="shell")
    writer, _ = await attach(session)
    with pytest.raises(Problem) as caught:
        await attach(session)
    assert (caught.value.code, caught.value.brief) == (Code.CONFLICT, "web/shell has a writer already")
    with pytest.raises(Problem) as caught:
        await world.daemon.send(SessionSend(session="shell"), Caller(Stdin(b"x"), Stdin(b"")))
    assert caught.value.code is Code.CONFLICT
    reader, _ = await attach(session, Stdin(b"not mine\n"), read_only=True)
    assert reader.about["writer"] is False
    writer.queue.put_nowait(Stdin(b"mine\n"))
    for each in (writer, reader):
        await each.wait_output(b"mine\n")
        assert each.output[1] == b"mine\n"
    thief, _ = await attach(session, Stdin(b"stolen\n"), steal=True)
    await writer.wait(lambda: {"writer": False} in writer.told)
    writer.queue.put_nowait(Stdin(b"too late\n"))
    for each in (writer, reader, thief):
        await each.wait_output(b"stolen\n")
        assert b"too late" not in each.output[1]


async def test_a_reader_that_is_behind_is_told_of_the_gap_and_counts_on(begin, attach):
    session = await begin(
        "head -c 300000 /dev/zero; read line; echo end", stdin=True, scrollback_bytes=64 * KIB
    )
    early, _ = await attach(session, read_only=True)
    await early.wait(lambda: early.position == 300000)
    late, call = await attach(session, Stdin(b"\n"))
    await call
    (gap,) = late.events("gap")
    assert gap["gap"]["from"] == 0
    assert gap["gap"]["to"] >= 300000 - 64 * KIB
    assert len(late.output[1]) == 300004 - gap["gap"]["to"]
    assert late.position == 300004


async def test_a_slow_reader_holds_up_nobody_and_misses_what_is_not_kept(begin, attach, world):
    session = await begin("head -c 8000000 /dev/zero; echo; echo end", scrollback_bytes=64 * KIB)
    slow, call = await attach(session)
    slow.room.clear()
    quick, other = await attach(session)
    await other
    assert quick.position == 8000005
    slow.room.set()
    await call
    assert slow.events("gap")
    assert slow.position == 8000005
    assert slow.output[1].endswith(b"\nend\n")
    assert len(slow.output[1]) < 4_000_000


async def test_a_daemon_that_dies_is_forgotten_by_who_knows_the_number(begin, attach, world):
    session = await begin("while read line; do echo $line; done", stdin=True)
    before, call = await attach(session, Stdin(b"before\n"))
    await before.wait_output(b"before\n")
    await world.restart()
    await asyncio.wait([call])
    assert isinstance(call.exception(), Problem)
    after, _ = await attach(session, Stdin(b"after\n"), since=before.position)
    await after.wait_output(b"after\n")
    assert before.output[1] + after.output[1] == b"before\nafter\n"
    assert after.about["writer"] is True


async def test_a_vm_that_stops_ends_the_call_and_says_so_to_the_next(begin, attach, world, vm):
    session = await begin("sleep 600")
    _, call = await attach(session)
    await world.stop_vm(vm)
    await asyncio.wait([call])
    assert isinstance(call.exception(), Problem)
    with pytest.raises(Problem) as caught:
        await attach(session)
    assert "is lost: web has ended" in caught.value.brief


async def test_a_session_that_is_removed_ends_the_call(begin, attach, world):
    session = await begin("sleep 600", name="gone")
    _, call = await attach(session)
    await world.daemon.remove(SessionRemove(session="gone", force=True))
    await asyncio.wait([call])
    assert call.exception() is None or isinstance(call.exception(), Problem)


async def test_a_terminal_gets_the_size_of_who_attaches_and_draws_anew(begin, attach, world):
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    session = await begin(script, pty=True, rows=24, columns=80)
    before, _ = await attach(session, read_only=True)
    await before.wait_output(b"ready")
    caller, _ = await attach(session, rows=24, columns=80)
    await caller.wait(
        lambda: caller.output[1].endswith(b"24 80\r\n")
    )  # the same size: drawn anew all the same
    caller.queue.put_nowait(Resize(10, 20))
    await caller.wait_output(b"10 20")
    looker, _ = await attach(session, rows=50, columns=50, read_only=True)
    looker.queue.put_nowait(Resize(60, 60))
    caller.queue.put_nowait(SendSignal(28))
    await caller.wait(lambda: caller.output[1].count(b"10 20") >= 2)
    assert b"50 50" not in caller.output[1]
    assert b"60 60" not in caller.output[1]


async def test_signals_go_to_the_processes(begin, attach):
    session = await begin(
        "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.05; done", stdin=True
    )
    caller, call = await attach(session)
    await caller.wait_output(b"ready")
    caller.queue.put_nowait(SendSignal(2))
    await call
    assert caller.end == (4, None)


async def test_send_writes_ends_the_input_if_asked_and_is_refused_without_one(begin, attach, world):
    session = await begin("cat; echo end", stdin=True, name="cat")
    for data, eof in ((b"one\n", False), (b"two\n", True)):
        caller = Caller(Stdin(data), Stdin(b""))
        await world.daemon.send(SessionSend(session="cat", eof=eof), caller)
        assert caller.end == (0, None)
        async with asyncio.timeout(10):
            while (await world.daemon.show(SessionShow(session="cat"))).has_writer:
                await asyncio.sleep(0.005)
    reader = Caller()
    await world.daemon.logs(SessionLogs(session=session.id, follow=True), reader)
    assert reader.output[1] == b"one\ntwo\nend\n"
    await begin("sleep 600", name="deaf")
    shut = await begin("sleep 600", stdin=True, name="shut")
    await world.daemon.send(SessionSend(session="shut", eof=True), Caller(Stdin(b"")))
    looker, _ = await attach(shut)
    assert looker.about["writer"] is False
    for name, words in (
        ("shut", "takes no more input"),
        ("deaf", "has no input"),
        ("cat", "has ended (exited)"),
    ):
        with pytest.raises(Problem) as caught:
            await world.daemon.send(SessionSend(session=name), Caller(Stdin(b"")))
        assert words in caught.value.brief


async def test_logs_are_of_a_stream_of_the_last_lines_or_from_a_number_on(begin, world):
    session = await begin("echo a; read x; echo b >&2; read x; echo c; echo d; read x", stdin=True)
    for end in (2, 4, 8):  # what comes from two pipes at once has no order
        async with asyncio.timeout(10):
            while (await world.daemon.show(SessionShow(session=session.id))).end != end:
                await asyncio.sleep(0.005)
        if end < 8:
            await world.daemon.send(
                SessionSend(session=session.id, steal=True), Caller(Stdin(b"\n"), Stdin(b""))
            )

    async def read(**options):
        caller = Caller()
        await world.daemon.logs(SessionLogs(session=session.id, **options), caller)
        assert caller.end == (0, None)
        assert caller.events("gap") == []
        return caller

    everything = await read()
    assert everything.output == {1: b"a\nc\nd\n", 2: b"b\n"}
    assert everything.position == 8
    out = await read(stream="stdout")
    assert out.output == {1: b"a\nc\nd\n", 2: b""}
    assert out.position == 8  # what is left out is announced, so that counting stays right
    assert (await read(stream="stderr")).output[2] == b"b\n"
    last = await read(tail_lines=1)
    assert (last.output[1], last.position) == (b"d\n", 8)
    assert (await read(since=6)).output[1] == b"d\n"
    assert (await read(since=1000)).output[1] == b""
    await world.daemon.kill(SessionKill(session=session.id))


async def test_whoever_is_cut_off_again_and_again_gets_every_byte_once(begin, attach, world):
    session = await begin("seq 1 30000; read go; seq 30001 60000", stdin=True)
    chance = random.Random(6)
    got, position, ended = b"", 0, None
    for cut in range(40):
        caller, call = await attach(session, since=position, read_only=True)
        goal = position + chance.randrange(1, 40_000)
        if cut == 15:
            await world.daemon.send(SessionSend(session=session.id), Caller(Stdin(b"\n"), Stdin(b"")))
        far = asyncio.create_task(caller.wait(lambda caller=caller, goal=goal: caller.position >= goal))
        await asyncio.wait((call, far), timeout=0.3, return_when=asyncio.FIRST_COMPLETED)
        if cut % 10 == 3:
            await world.restart()
        for task in (call, far):
            task.cancel()
        await asyncio.wait((call, far))
        got, position, ended = got + caller.output[1], caller.position, ended or caller.end
        assert len(got) == position
    assert ended == (0, None)
    assert got == b"".join(b"%d\n" % number for number in range(1, 60001))
