"""What becomes of sessions, whoever comes and goes: states, references, records."""

import asyncio
import sqlite3

import msgspec
import pytest
from tests.unit.sessions.places import Caller

from banger.api.sessions import (
    SessionAttach,
    SessionKill,
    SessionList,
    SessionRemove,
    SessionResize,
    SessionShow,
    SessionStart,
    SessionStop,
)
from banger.base.problem import Code, Outcome, Problem
from banger.guest.errors import GuestProblem
from banger.guest.sessions import Sessions
from banger.model.session import SessionState
from banger.model.vm import VmState
from banger.services.sessions import rows
from banger.services.sessions.rows import ENDED_KEPT

LONG = ["sleep", "600"]


def start(world, argv, **options):
    return world.daemon.start(SessionStart(vm="web", argv=argv, **options))


async def wait_state(world, session, state):
    """By the guest's own word: nothing here asks."""
    async with asyncio.timeout(10):
        while (row := world.store.sessions.find(session.id)).state is not state:
            await asyncio.sleep(0.005)
    return row


async def test_a_session_runs_is_listed_and_ends_with_its_status(world, vm):
    session = await start(world, ["sh", "-c", "read line; exit 7"], name="build", stdin=True, tags={"a": "b"})
    assert (session.state, session.name, session.vm, session.tags) == (
        SessionState.RUNNING,
        "build",
        "web",
        {"a": "b"},
    )
    assert world.daemon.is_busy(vm.id)
    assert vm.id in world.vms.touched
    await world.daemon.kill(SessionKill(session="web/build", signal="TERM"))
    row = await wait_state(world, session, SessionState.EXITED)
    assert (row.status, row.signal) == (None, 15)
    assert not world.daemon.is_busy(vm.id)
    (listed,) = world.daemon.list_sessions(SessionList()).sessions
    assert (listed.state, listed.signal) == (SessionState.EXITED, 15)
    assert world.daemon.list_sessions(SessionList(running=True)).sessions == []
    assert world.daemon.list_sessions(SessionList(tags={"a": "c"})).sessions == []


async def test_stop_waits_for_the_end_and_says_that_it_was_asked_for(world, vm):
    session = await start(world, LONG)
    assert session.name == session.id
    stopped = await world.daemon.stop(SessionStop(session=session.id))
    assert (stopped.state, stopped.signal) == (SessionState.STOPPED, 15)
    assert (await world.daemon.stop(SessionStop(session=session.id))).state is SessionState.STOPPED


async def test_stop_kills_what_does_not_listen_when_the_grace_is_over(world, vm):
    caller = Caller()
    session = await start(world, ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
    attached = asyncio.create_task(world.daemon.attach(SessionAttach(session=session.id), caller))
    await caller.wait_output(b"ready")
    stopped = await world.daemon.stop(SessionStop(session=session.id, grace_s=0.1))
    assert (stopped.state, stopped.signal) == (SessionState.STOPPED, 9)
    await attached
    assert [told["session"]["state"] for told in caller.events("session")][-2:] == ["stopping", "stopped"]


async def test_what_runs_is_arranged_and_of_the_environment_only_names_are_kept(world, vm):
    session = await start(world, ["sh", "-c", 'echo "$ARRANGED $TOKEN"'], env=["TOKEN=hidden-value"])
    await wait_state(world, session, SessionState.EXITED)
    caller = Caller()
    await world.daemon.attach(SessionAttach(session=session.id), caller)
    assert caller.output[1] == b"web hidden-value\n"
    assert (await world.daemon.show(SessionShow(session=session.id))).env_names == ["TOKEN"]
    with sqlite3.connect(world.root / "banger.db") as database:
        assert "hidden-value" not in "\n".join(database.iterdump())


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"argv": ["no-such-program"]}, Code.NOT_FOUND, "no-such-program: command not found"),
        ({"argv": ["true"], "require": ["no-such-tool"]}, Code.NOT_FOUND, "no-such-tool"),
        ({"argv": ["true"], "env": ["NOVALUE"]}, Code.BAD_REQUEST, "not KEY=VALUE"),
        ({"argv": ["true"], "name": "a/b"}, Code.BAD_REQUEST, "not a session's name"),
        ({"argv": ["true"], "name": "s-1"}, Code.BAD_REQUEST, "looks like a session's id"),
        ({"argv": []}, Code.BAD_REQUEST, "the command is empty"),
        ({"argv": ["true"], "cwd": "/no/such/directory"}, Code.NOT_FOUND, "/no/such/directory"),
    ],
)
async def test_what_cannot_begin_leaves_nothing(world, vm, options, code, words):
    with pytest.raises(Problem) as caught:
        await world.daemon.start(SessionStart(vm="web", **options))
    assert caught.value.code is code, caught.value
    assert words in caught.value.brief
    assert world.store.sessions.list() == []
    assert not world.daemon.is_busy(vm.id)


async def test_a_name_is_its_vms_own_and_references_say_which(world, vm):
    other = await world.add_vm("db", pid=101)
    first = await start(world, LONG, name="shell")
    second = await world.daemon.start(SessionStart(vm="db", argv=LONG, name="shell"))
    with pytest.raises(Problem) as caught:
        await start(world, LONG, name="shell")
    assert caught.value.code is Code.ALREADY_EXISTS

    async def show(reference):
        return (await world.daemon.show(SessionShow(session=reference))).id

    assert await show("web/shell") == first.id
    assert await show(f"{other.id}/shell") == second.id
    assert await show(first.id) == first.id
    assert await show(f"db/{second.id}") == second.id
    with pytest.raises(Problem) as caught:
        await show("shell")
    assert caught.value.code is Code.AMBIGUOUS
    assert "web/shell" in caught.value.brief
    assert "db/shell" in caught.value.brief
    for unknown in ("nothing", "web/nothing", "no/shell", "s-", ""):
        with pytest.raises(Problem) as caught:
            await show(unknown)
        assert caught.value.code is Code.NOT_FOUND
    assert len(world.daemon.list_sessions(SessionList(vm="db")).sessions) == 1


async def test_a_vm_that_ends_loses_its_sessions_and_keeps_the_ends_that_were_known(world, vm):
    done = await start(world, ["true"])
    await wait_state(world, done, SessionState.EXITED)
    lost = await start(world, LONG, name="server")
    await world.stop_vm(vm)
    states = {each.id: each for each in world.daemon.list_sessions(SessionList()).sessions}
    assert states[done.id].state is SessionState.EXITED
    assert states[lost.id].state is SessionState.LOST
    assert states[lost.id].error == "web has ended"
    with pytest.raises(Problem) as caught:
        await world.daemon.attach(SessionAttach(session="web/server"), Caller())
    assert (caught.value.code, caught.value.brief) == (
        Code.NOT_RUNNING,
        "web/server is lost: web has ended",
    )
    with pytest.raises(Problem) as caught:
        await world.daemon.attach(SessionAttach(session=done.id), Caller())
    assert caught.value.code is Code.NOT_RUNNING
    with pytest.raises(Problem):
        await start(world, LONG)
    await world.daemon.remove(SessionRemove(session="web/server"))
    assert [row.id for row in world.store.sessions.list()] == [done.id]


async def test_a_guest_that_has_booted_again_loses_its_sessions_without_being_asked(world, vm):
    session = await start(world, LONG)
    await world.boot_again(vm)
    row = await wait_state(world, session, SessionState.LOST)
    assert "booted since" in row.error
    again = await start(world, LONG)
    assert again.state is SessionState.RUNNING


async def test_a_deleted_vm_takes_the_rows_along(world, vm):
    await start(world, LONG)
    world.store.vms.delete(vm.id)
    assert world.store.sessions.list() == []


async def test_a_daemon_that_dies_finds_sessions_running_and_ended(world, vm):
    runs = await start(world, LONG, name="runs")
    ends = await start(world, ["sh", "-c", "read line; exit 3"], stdin=True)
    await world.supervisor.__aexit__(None, None, None)
    world.guests[vm.id].sessions.by_id[ends.id].end_input()
    async with asyncio.timeout(10):
        while not world.guests[vm.id].sessions.by_id[ends.id].is_over:
            await asyncio.sleep(0.005)
    await world.restart()
    row = await wait_state(world, ends, SessionState.EXITED)
    assert row.status == 3
    assert (await world.daemon.show(SessionShow(session="web/runs"))).pid == runs.pid
    await world.daemon.kill(SessionKill(session="runs"))
    await wait_state(world, runs, SessionState.EXITED)  # by the new daemon's own watch


@pytest.mark.parametrize("arrived", [False, True])
async def test_a_start_that_nobody_saw_the_end_of_is_judged_by_the_guest(world, vm, monkeypatch, arrived):
    reached = asyncio.Event()
    begin = Sessions.start

    async def hang(self, session):
        if arrived:
            await begin(self, session)
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Sessions, "start", hang)
    call = asyncio.create_task(start(world, LONG, name="half"))
    await reached.wait()
    (row,) = world.store.sessions.list()
    assert row.state in (SessionState.STARTING, SessionState.RUNNING)
    call.cancel()
    await world.restart()
    monkeypatch.undo()
    state = SessionState.RUNNING if arrived else SessionState.FAILED
    await wait_state(world, row, state)
    assert world.daemon.is_busy(vm.id) is arrived


async def test_a_link_that_breaks_changes_nothing_and_its_successor_is_watched(world, vm):
    session = await start(world, LONG)
    await world.disconnect(vm.id)
    assert world.store.sessions.find(session.id).state is SessionState.RUNNING
    with pytest.raises(Problem) as caught:
        await world.daemon.stop(SessionStop(session=session.id))
    assert caught.value.code is Code.UNAVAILABLE
    assert (await world.daemon.show(SessionShow(session=session.id))).begin is None
    await world.connect(vm)
    world.guests[vm.id].sessions.by_id[session.id].kill(9)
    await wait_state(world, session, SessionState.EXITED)


async def test_a_session_that_its_guest_has_forgotten_is_lost(world, vm):
    session = await start(world, LONG)
    await world.disconnect(vm.id)
    world.guests[vm.id].sessions.lose_all()
    await world.connect(vm)
    assert "does not know" in (await wait_state(world, session, SessionState.LOST)).error


async def test_a_session_that_gave_way_before_its_end_was_told_is_lost(world, vm):
    """The guest had to make room; of what changes twice while nobody looks only the last is told."""
    session = await start(world, LONG)
    inside = world.guests[vm.id].sessions
    inside.forget(inside.by_id[session.id])
    assert "does not know" in (await wait_state(world, session, SessionState.LOST)).error
    assert not world.daemon.is_busy(vm.id)


@pytest.mark.parametrize("ask", ["stop", "kill", "remove"])
async def test_one_that_is_being_started_is_not_taken_for_lost(world, vm, monkeypatch, ask):
    """The guest knows it only once its command runs."""
    begin, may_begin = Sessions.start, asyncio.Event()

    async def start_later(self, session):
        await may_begin.wait()
        return await begin(self, session)

    monkeypatch.setattr(Sessions, "start", start_later)
    starting = asyncio.create_task(start(world, LONG, name="slow"))
    while not world.store.sessions.list():
        await asyncio.sleep(0)
    calls = {
        "stop": lambda: world.daemon.stop(SessionStop(session="slow")),
        "kill": lambda: world.daemon.kill(SessionKill(session="slow")),
        "remove": lambda: world.daemon.remove(SessionRemove(session="slow", force=True)),
    }
    with pytest.raises(Problem, match="is being started") as caught:
        await calls[ask]()
    assert caught.value.code is Code.CONFLICT
    may_begin.set()
    assert (await starting).state is SessionState.RUNNING
    assert world.daemon.is_busy(vm.id)


@pytest.mark.parametrize("begins", [True, False])
async def test_a_guest_that_answers_late_is_still_heard(world, vm, monkeypatch, begins):
    """The caller has been told that nobody knows; without the answer the row would be `starting` for ever."""
    begin, may_begin = Sessions.start, asyncio.Event()

    async def start_later(self, session):
        await may_begin.wait()
        return await begin(self, session)

    monkeypatch.setattr(Sessions, "start", start_later)
    monkeypatch.setattr("banger.services.sessions.access._ANSWER_S", 0.05)
    with pytest.raises(Problem, match="does not answer") as caught:
        await start(world, LONG if begins else ["nothing-of-that-name"])
    assert caught.value.outcome is Outcome.UNKNOWN
    (row,) = world.store.sessions.list()
    assert row.state is SessionState.STARTING
    may_begin.set()
    if begins:
        await wait_state(world, row, SessionState.RUNNING)
    else:
        async with asyncio.timeout(10):
            while world.store.sessions.list():
                await asyncio.sleep(0.005)
    assert world.daemon.is_busy(vm.id) is begins


async def test_what_cannot_be_pruned_ends_no_watch(world, vm, monkeypatch):
    monkeypatch.setattr(rows, "ENDED_KEPT", 0)
    asked = []

    async def remove(self, session_id):
        asked.append(session_id)
        raise GuestProblem(5, "no such luck")

    monkeypatch.setattr(Sessions, "remove", remove)
    first, second = await start(world, LONG), await start(world, LONG)
    for session in (first, second):
        world.guests[vm.id].sessions.by_id[session.id].kill(9)
        async with asyncio.timeout(10):
            while session.id not in asked:
                await asyncio.sleep(0.005)
    assert world.store.sessions.list() == []


async def test_remove_refuses_what_runs_unless_forced(world, vm):
    session = await start(world, LONG, name="server")
    with pytest.raises(Problem) as caught:
        await world.daemon.remove(SessionRemove(session="server"))
    assert caught.value.code is Code.CONFLICT
    assert caught.value.hint == "banger session remove --force web/server"
    await world.daemon.remove(SessionRemove(session="server", force=True))
    assert world.store.sessions.list() == []
    assert session.id not in world.guests[vm.id].sessions.by_id


async def test_of_those_that_ended_only_the_newest_are_kept_here_and_there(world, vm):
    for _ in range(ENDED_KEPT + 3):
        session = await start(world, ["true"])
        await wait_state(world, session, SessionState.EXITED)
    async with asyncio.timeout(10):
        while len(world.guests[vm.id].sessions.by_id) > ENDED_KEPT:
            await asyncio.sleep(0.005)
    assert len(world.store.sessions.list()) == ENDED_KEPT
    assert world.store.sessions.find(session.id) is not None


async def test_resize_is_for_terminals(world, vm):
    plain = await start(world, LONG)
    with pytest.raises(Problem) as caught:
        await world.daemon.resize(SessionResize(session=plain.id, rows=10, columns=20))
    assert caught.value.code is Code.CONFLICT
    session = await start(world, LONG, pty=True, rows=24, columns=80)
    resized = await world.daemon.resize(SessionResize(session=session.id, rows=10, columns=20))
    assert (resized.rows, resized.columns) == (10, 20)


@pytest.mark.parametrize("signal", ["FOO", "0", "65", "-9", ""])
async def test_a_signal_that_is_none_is_refused(world, vm, signal):
    session = await start(world, LONG)
    with pytest.raises(Problem) as caught:
        await world.daemon.kill(SessionKill(session=session.id, signal=signal))
    assert caught.value.code is Code.BAD_REQUEST
    assert (await world.daemon.show(SessionShow(session=session.id))).state is SessionState.RUNNING


async def test_a_session_that_begins_while_its_guest_is_asked_is_not_taken_for_lost(world, vm, monkeypatch):
    """The answer from before it arrives after it runs."""
    asked, may_answer = asyncio.Event(), asyncio.Event()
    ask = Sessions.list

    async def list_late(self):
        answer = await ask(self)
        asked.set()
        await may_answer.wait()
        return answer

    monkeypatch.setattr(Sessions, "list", list_late)
    first = await start(world, LONG)  # its watch is about to compare
    await asked.wait()
    second = await start(world, LONG)
    may_answer.set()
    monkeypatch.undo()
    await world.daemon.kill(SessionKill(session=first.id))
    await wait_state(world, first, SessionState.EXITED)
    assert world.store.sessions.find(second.id).state is SessionState.RUNNING


async def test_a_vm_that_is_stopping_is_told_apart(world, vm):
    await start(world, LONG, name="server")
    world.store.vms.save(msgspec.structs.replace(vm, state=VmState.STOPPING))
    with pytest.raises(Problem) as caught:
        await world.daemon.attach(SessionAttach(session="server"), Caller())
    assert caught.value.brief == "web/server ends with web, which is stopping"
