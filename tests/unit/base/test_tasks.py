import asyncio
import logging

import pytest

from banger.base.tasks import Supervisor, first_of


async def fail(gate: asyncio.Event) -> None:
    await gate.wait()
    raise ValueError("no luck")


async def test_what_the_caller_hears_is_not_logged_as_well(caplog):
    caplog.set_level(logging.INFO)
    gate = asyncio.Event()
    gate.set()
    async with Supervisor() as tasks:
        with pytest.raises(ValueError, match="no luck"):
            await tasks.finish(fail(gate), name="work")
    assert caplog.records == []


@pytest.mark.parametrize("began_as", ["finish", "start"])
async def test_what_nobody_hears_is_logged(caplog, began_as):
    caplog.set_level(logging.INFO)
    gate = asyncio.Event()
    async with Supervisor() as tasks:
        if began_as == "start":
            work = tasks.start(fail(gate), name="work")
            gate.set()
        else:
            caller = asyncio.create_task(tasks.finish(fail(gate), name="work"))
            await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
            (work,) = tasks._tasks
            gate.set()
        await asyncio.wait([work])
        await asyncio.sleep(0)
    assert [record.why for record in caplog.records] == ["no luck"]


async def test_the_first_to_end_counts_and_the_others_are_cancelled():
    ended = []

    async def wait(number, event):
        try:
            await event.wait()
        finally:
            ended.append(number)
        return number * 10

    never, now = asyncio.Event(), asyncio.Event()
    now.set()
    assert await first_of(wait(0, never), wait(1, now)) == (1, 10)
    assert sorted(ended) == [0, 1]


async def test_a_failure_of_the_first_is_the_callers_and_so_is_being_cancelled():
    ended = []

    async def fail():
        raise OSError("first")

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(OSError, match="first"):
        await first_of(wait(), fail())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await first_of(wait(), wait())
    assert len(ended) == 3
