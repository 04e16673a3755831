"""The registry on its own: work, timings, watchers, cancelling, keeping."""

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from banger.api.events import DetailEvent, SnapshotEvent, StageEvent
from banger.base.log import operation_id
from banger.base.problem import Code, Outcome, Problem
from banger.base.progress import name_object, stage
from banger.model.operation import ENDED, OperationState, Resolution
from banger.model.vm import Stage
from banger.services.operations.registry import Operations
from banger.services.operations.watching import WATCHER_EVENTS

NOW = "2026-01-15T12:00:00.000Z"


class MemoryRepository:
    def __init__(self):
        self.rows = {}
        self.problem = None

    def save(self, operation):
        if self.problem:
            raise self.problem
        self.rows[operation.id] = operation

    def find(self, op_id):
        return self.rows.get(op_id)

    def list(self, limit, selection):
        states = selection.states
        return [row for row in reversed(self.rows.values()) if states is None or row.state in states][:limit]

    def prune(self, keep, before):
        if self.problem:
            raise self.problem
        ended = [row for row in self.rows.values() if row.state in ENDED]
        for row in ended[: max(0, len(ended) - keep)]:
            del self.rows[row.id]
        self.pruned_before = before


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def repository():
    return MemoryRepository()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def operations(repository, clock):
    return Operations(repository, monotonic=clock, now=lambda: NOW, keep=3)


async def collect(running):
    return [event async for event in running.events()]


async def test_stages_are_timed_from_the_beginning(operations, clock):
    async def work(progress):
        clock.seconds += 0.001
        with stage(progress, "a"):
            clock.seconds += 0.01
        progress.enter("b")
        progress.tell("half")
        clock.seconds += 0.02
        progress.enter("c")
        clock.seconds += 0.03
        return {"done": True}

    ended = await operations.begin("op", "vm.create", "web", work).wait()
    assert ended.state is OperationState.SUCCEEDED
    assert ended.result == {"done": True}
    assert (ended.started_at, ended.finished_at) == (NOW, NOW)
    assert ended.stages == (
        Stage(name="a", started_ms=1.0, duration_ms=10.0),
        Stage(name="b", started_ms=11.0, duration_ms=20.0),
        Stage(name="c", started_ms=31.0, duration_ms=30.0),
    )


async def test_the_work_runs_under_its_operation_id_and_the_caller_does_not(operations):
    async def work(progress):
        return operation_id.get()

    ended = await operations.begin("op-7", "k", "s", work).wait()
    assert ended.result == "op-7"
    assert operation_id.get() == ""


async def test_an_operation_is_stored_before_its_work_begins(operations, repository):
    async def work(progress):
        return repository.rows["op"].state.value

    assert (await operations.begin("op", "k", "s", work).wait()).result == "running"


async def test_nothing_runs_when_the_record_cannot_be_written(operations, repository):
    repository.problem = Problem(Code.NO_SPACE, "full")
    with pytest.raises(Problem, match="full"):
        operations.begin("op", "k", "s", lambda progress: pytest.fail("it ran"))
    assert operations.running == 0


async def test_an_end_that_cannot_be_recorded_is_remembered(operations, repository):
    async def work(progress):
        repository.problem = Problem(Code.NO_SPACE, "full")

    await operations.begin("op", "k", "s", work).wait()
    assert operations.get("op").state is OperationState.SUCCEEDED
    assert operations.list()[0].state is OperationState.SUCCEEDED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Problem(Code.NOT_RUNNING, "no", outcome=Outcome.NOT_STARTED), "not_running"),
        (KeyError("x"), "internal"),
    ],
)
async def test_failures_become_problems_with_the_operation_id(operations, error, code, caplog):
    async def work(progress):
        raise error

    ended = await operations.begin("op", "k", "s", work).wait()
    assert ended.state is OperationState.FAILED
    assert (ended.error["code"], ended.error["op"]) == (code, "op")
    assert ("KeyError" in caplog.text) == (code == "internal")


async def test_a_result_that_has_no_plain_form_is_a_bug(operations):
    async def work(progress):
        return object()

    assert (await operations.begin("op", "k", "s", work).wait()).error["code"] == "internal"


async def test_duplicate_ids_are_refused_live_and_stored(operations):
    release = asyncio.Event()
    running = operations.begin("op", "k", "s", lambda progress: release.wait())
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            operations.begin("op", "k", "s", lambda progress: release.wait())
        assert caught.value.code is Code.ALREADY_EXISTS
        release.set()
        await running.wait()


async def test_every_watcher_gets_history_first(operations):
    going, release = asyncio.Event(), asyncio.Event()

    async def work(progress):
        progress.enter("a")
        progress.enter("b")
        progress.tell("x")
        progress.tell("y")
        going.set()
        await release.wait()

    running = operations.begin("op", "k", "s", work)
    early = asyncio.create_task(collect(running))
    await going.wait()
    late = asyncio.create_task(collect(running))
    await asyncio.sleep(0)
    release.set()
    seen = await late
    assert [type(event) for event in seen] == [StageEvent] * 3 + [DetailEvent] + [StageEvent]
    assert seen[3].text == "y"
    assert [event.text for event in await early if isinstance(event, DetailEvent)][-1] == "y"
    assert not running._watched._watchers


async def test_a_watcher_that_falls_behind_gets_a_snapshot(operations):
    go = asyncio.Event()

    async def work(progress):
        progress.enter("a")
        await go.wait()
        for number in range(WATCHER_EVENTS * 3):
            progress.tell(str(number))
        progress.enter("b")

    running = operations.begin("op", "k", "s", work)
    await asyncio.sleep(0)
    async with aclosing(running.events()) as events:
        assert (await anext(events)).name == "a"
        go.set()
        await running.wait()
        (watcher,) = running._watched._watchers
        assert len(watcher.queue) <= WATCHER_EVENTS
        rest = [event async for event in events]
    assert isinstance(rest[0], SnapshotEvent)
    assert [stage.name for stage in rest[0].operation.stages] == ["a", "b"]
    assert len(rest) == 1


async def test_leaving_a_watch_frees_its_queue(operations):
    running = operations.begin("op", "k", "s", lambda progress: asyncio.Event().wait())
    watching = asyncio.create_task(collect(running))
    await asyncio.sleep(0)
    assert len(running._watched._watchers) == 1
    watching.cancel()
    await asyncio.wait({watching})
    assert not running._watched._watchers
    assert await operations.close(1)


async def test_cancel_runs_the_undo_and_a_second_one_leaves_it_alone(operations):
    undone, finish = asyncio.Event(), asyncio.Event()

    async def work(progress):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await finish.wait()
            undone.set()
            raise

    running = operations.begin("op", "k", "s", work)
    await asyncio.sleep(0)
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    finish.set()
    ended = await running.wait()
    assert undone.is_set()
    assert ended.state is OperationState.CANCELLED
    assert ended.error["code"] == "cancelled"
    running.cancel()


async def test_cancel_before_the_first_step_counts_too(operations):
    running = operations.begin("op", "k", "s", lambda progress: asyncio.Event().wait())
    running.cancel()
    assert (await running.wait()).state is OperationState.CANCELLED


async def test_an_undo_that_fails_is_a_failure(operations):
    async def work(progress):
        try:
            await asyncio.Event().wait()
        finally:
            raise Problem(Code.OPERATION_FAILED, "the disk stays")

    running = operations.begin("op", "k", "s", work)
    await asyncio.sleep(0)
    running.cancel()
    ended = await running.wait()
    assert (ended.state, ended.error["message"]) == (OperationState.FAILED, "the disk stays")


async def test_waiting_may_be_cancelled_without_the_work(operations):
    release = asyncio.Event()
    running = operations.begin("op", "k", "s", lambda progress: release.wait())
    waiting = asyncio.create_task(running.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    release.set()
    assert (await running.wait()).state is OperationState.SUCCEEDED


async def test_only_the_newest_are_kept(operations):
    async def work(progress):
        return None

    for number in range(6):
        await operations.begin(f"op-{number}", "k", "s", work).wait()
    assert [operation.id for operation in operations.list()] == ["op-5", "op-4", "op-3"]
    with pytest.raises(Problem) as caught:
        operations.get("op-0")
    assert caught.value.code is Code.NOT_FOUND


async def test_close_cancels_all_and_refuses_new_ones(operations):
    running = [
        operations.begin(f"op-{n}", "k", "s", lambda progress: asyncio.Event().wait()) for n in range(3)
    ]
    assert await operations.close(5)
    assert {operation.snapshot().state for operation in running} == {OperationState.CANCELLED}
    with pytest.raises(Problem, match="shutting down"):
        operations.begin("op-9", "k", "s", lambda progress: asyncio.Event().wait())


async def test_close_has_a_deadline(operations):
    finish = asyncio.Event()

    async def work(progress):
        try:
            await asyncio.Event().wait()
        finally:
            await finish.wait()

    running = operations.begin("op", "k", "s", work)
    await asyncio.sleep(0)
    assert not await operations.close(0.01)
    finish.set()
    await running.wait()


async def test_the_end_that_found_no_room_is_recorded_with_the_next_one(operations, repository):
    async def work(progress):
        repository.problem = Problem(Code.NO_SPACE, "full")

    async def later(progress):
        return None

    await operations.begin("op-1", "k", "s", work).wait()
    assert repository.rows["op-1"].state is OperationState.RUNNING
    repository.problem = None
    await operations.begin("op-2", "k", "s", later).wait()
    assert [row.state for row in repository.rows.values()] == [OperationState.SUCCEEDED] * 2


async def test_what_is_older_than_fourteen_days_is_dropped(operations, repository):
    async def work(progress):
        return None

    await operations.begin("op", "k", "s", work).wait()
    assert repository.pruned_before == "2026-01-01T12:00:00.000Z"


async def test_the_object_is_recorded_while_the_work_runs(operations, repository):
    async def work(progress):
        progress.enter("a")
        name_object(progress, "0123456789ab", "web")
        return repository.rows["op"]

    ended = await operations.begin("op", "vm.create", "a new VM", work).wait()
    assert (ended.result["object_id"], ended.result["subject"], ended.result["stage"]) == (
        "0123456789ab",
        "web",
        "a",
    )
    assert (ended.object_id, ended.subject) == ("0123456789ab", "web")


async def test_work_goes_on_when_its_object_cannot_be_recorded(operations, repository):
    async def work(progress):
        repository.problem = Problem(Code.NO_SPACE, "full")
        name_object(progress, "0123456789ab")
        repository.problem = None

    ended = await operations.begin("op", "vm.create", "web", work).wait()
    assert (ended.state, repository.rows["op"].object_id) == (OperationState.SUCCEEDED, "0123456789ab")


@pytest.mark.parametrize("kept", [False, True])
async def test_the_last_caller_that_leaves_cancels_unless_it_was_kept(operations, kept):
    release = asyncio.Event()
    running = operations.begin("op", "k", "s", lambda progress: release.wait())
    running.join()
    running.join()
    if kept:
        running.keep()
    running.part()
    assert not running.snapshot().cancelling
    running.part()
    assert running.snapshot().cancelling is not kept
    release.set()
    ended = await running.wait()
    assert ended.state is (OperationState.SUCCEEDED if kept else OperationState.CANCELLED)
    assert not ended.cancelling


class TestTheSameCall:
    async def test_is_found_live_and_stored(self, operations):
        release = asyncio.Event()
        running = operations.begin("op", "k", "s", lambda progress: release.wait(), call="digest")
        assert operations.find_same("op", "k", "digest") is running
        release.set()
        ended = await running.wait()
        assert operations.find_same("op", "k", "digest") == ended
        assert operations.find_same("other", "k", "digest") is None

    @pytest.mark.parametrize(
        ("kind", "call", "said"), [("k", "other", "k with other parameters"), ("other", "digest", "k of s")]
    )
    async def test_another_call_under_its_id_is_a_conflict(self, operations, kind, call, said):
        async def work(progress):
            return None

        await operations.begin("op", "k", "s", work, call="digest").wait()
        with pytest.raises(Problem, match=said) as caught:
            operations.find_same("op", kind, call)
        assert caught.value.code is Code.CONFLICT
        assert caught.value.outcome is Outcome.NOT_STARTED


class TestAfterTheDaemonDied:
    @pytest.fixture
    async def died(self, operations, repository):
        """The registry of a later daemon; of the earlier one an operation has ended, and two ran."""

        async def work(progress):
            return None

        await operations.begin("op-0", "vm.stop", "db", work).wait()
        release = asyncio.Event()
        running = [operations.begin(f"op-{n}", "vm.create", "web", lambda p: release.wait()) for n in (1, 2)]
        rows = dict(repository.rows)
        release.set()
        for each in running:
            await each.wait()
        repository.rows = rows
        later = Operations(repository, now=lambda: "2026-01-15T13:00:00.000Z")
        later.recover()
        return later

    async def test_what_ran_has_an_unknown_outcome(self, died):
        assert [each.state.value for each in died.list()] == ["unknown", "unknown", "succeeded"]
        unknown = died.get("op-1")
        assert unknown.error["outcome"] == "unknown"
        assert unknown.error["op"] == "op-1"
        assert "its outcome is unknown" in unknown.error["message"]
        assert unknown.finished_at == "2026-01-15T13:00:00.000Z"
        assert [each.id for each in died.list_unknown()] == ["op-1", "op-2"]

    async def test_it_stays_unknown_until_somebody_can_tell(self, died):
        assert not died.resolve(lambda operation: None)
        assert died.get("op-1").state is OperationState.UNKNOWN
        with pytest.raises(Problem, match="its daemon ended") as caught:
            died.get_cancellable("op-1")
        assert caught.value.hint == "banger daemon reconcile"

    async def test_it_is_resolved_once_with_how_that_is_known(self, died, repository):
        resolutions = {
            "op-1": Resolution(OperationState.SUCCEEDED, "the VM runs", {"vm": "web"}),
            "op-2": Resolution(OperationState.FAILED, "there is no such VM"),
        }
        judged = []

        def judge(operation):
            judged.append(operation.id)
            return resolutions[operation.id]

        assert [each.id for each in died.resolve(judge)] == ["op-1", "op-2"]
        good, bad = repository.rows["op-1"], repository.rows["op-2"]
        assert (good.state, good.resolved) == (OperationState.SUCCEEDED, "the VM runs")
        assert (good.result, good.error) == ({"vm": "web"}, None)
        assert (bad.state, bad.resolved) == (OperationState.FAILED, "there is no such VM")
        assert bad.error == {
            "code": "operation_failed",
            "message": "the daemon ended while vm.create ran: there is no such VM",
            "outcome": "failed",
            "op": "op-2",
        }
        assert not died.resolve(judge)
        assert judged == ["op-1", "op-2"]

    async def test_a_full_disk_keeps_no_daemon_from_starting(self, died, repository):
        repository.rows = {
            op_id: msgspec.structs.replace(row, state=OperationState.RUNNING)
            for op_id, row in repository.rows.items()
        }
        repository.problem = Problem(Code.NO_SPACE, "full")
        third = Operations(repository, now=lambda: NOW)
        third.recover()
        assert len(third.list_unknown()) == 3
        third.resolve(lambda operation: Resolution(OperationState.SUCCEEDED, "the VM runs"))
        assert not third.list_unknown()
        assert third.get("op-1").state is OperationState.SUCCEEDED
        assert repository.rows["op-1"].state is OperationState.RUNNING

    async def test_what_runs_here_is_not_judged(self, died):
        release = asyncio.Event()
        running = died.begin("op-9", "vm.stop", "web", lambda progress: release.wait())
        assert "op-9" not in [each.id for each in died.resolve(lambda operation: None) or died.list_unknown()]
        release.set()
        await running.wait()


async def test_only_what_runs_can_be_cancelled(operations):
    async def work(progress):
        return None

    await operations.begin("op", "k", "s", work).wait()
    with pytest.raises(Problem, match="has ended already: succeeded") as caught:
        operations.get_cancellable("op")
    assert caught.value.code is Code.CONFLICT
    with pytest.raises(Problem, match="no operation"):
        operations.get_cancellable("nope")
