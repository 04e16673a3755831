"""The registry on its own: work, timings, watchers, cancelling, keeping."""

import asyncio
from contextlib import aclosing

import pytest

from banger.api.events import DetailEvent, SnapshotEvent, StageEvent
from banger.base.log import operation_id
from banger.base.problem import Code, Outcome, Problem
from banger.base.progress import stage
from banger.model.operation import OperationState
from banger.model.vm import Stage
from banger.services.operations.registry import WATCHER_EVENTS, Operations


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

    def list(self, limit):
        return list(reversed(self.rows.values()))[:limit]

    def prune(self, keep):
        ended = [row for row in self.rows.values() if row.state is not OperationState.RUNNING]
        for row in ended[: max(0, len(ended) - keep)]:
            del self.rows[row.id]


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
    return Operations(repository, monotonic=clock, now=lambda: "now", keep=3)


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
    assert (ended.started_at, ended.finished_at) == ("now", "now")
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
    assert not running._watchers


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
        (watcher,) = running._watchers
        assert len(watcher.queue) <= WATCHER_EVENTS
        rest = [event async for event in events]
    assert isinstance(rest[0], SnapshotEvent)
    assert [stage.name for stage in rest[0].operation.stages] == ["a", "b"]
    assert len(rest) == 1


async def test_leaving_a_watch_frees_its_queue(operations):
    running = operations.begin("op", "k", "s", lambda progress: asyncio.Event().wait())
    watching = asyncio.create_task(collect(running))
    await asyncio.sleep(0)
    assert len(running._watchers) == 1
    watching.cancel()
    await asyncio.wait({watching})
    assert not running._watchers
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


async def test_recovery_closes_what_an_earlier_daemon_left(operations, repository):
    release = asyncio.Event()
    running = operations.begin("op", "k", "s", lambda progress: release.wait())
    later = Operations(repository, now=lambda: "later")
    later.recover()
    assert later.get("op").state is OperationState.FAILED
    assert later.get("op").error["outcome"] == "unknown"
    release.set()
    await running.wait()
