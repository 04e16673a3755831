import asyncio
import logging

import pytest

from banger.base.tasks import Supervisor


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
