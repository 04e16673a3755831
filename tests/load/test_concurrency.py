"""Many calls at once through the real socket, some of them cancelled: nothing leaks, waits for ever or is lost.

Times are compared with one another in the same run, never with a clock elsewhere: P11 is a ratio.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.load.leaks import find_leaks, read_bugs
from tests.support.load.world import JAILED, PLAIN, World, open_world, wait_until_empty

from banger.api.images import ImageBuild
from banger.api.system import OperationCancel
from banger.api.vm import VmCreate, VmDelete, VmList
from banger.client.aio import Client

pytestmark = [pytest.mark.load, pytest.mark.timeout(240)]

VMS = 50
DEADLINE_S = 90.0
RATIO = 6.0
ATTEMPTS = 6
BOOT_MS = 300
_SINGLES = 5


@pytest.fixture(params=[JAILED, PLAIN])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with open_world(request.param) as made:
        made.start_daemon()
        yield made
        assert read_bugs(made) == []


async def _measure(work) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def test_fifty_creates_and_deletes_at_once_with_random_cancels(world: World):
    seed = int(os.environ.get("BANGER_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed: BANGER_TEST_SEED={seed}")
    dice = random.Random(seed)
    world.host.order("delay", low_ms=0, high_ms=50)
    kept: set[str] = set()

    async def live(client: Client, number: int) -> None:
        name = f"vm{number}"
        creating = asyncio.create_task(client.call(VmCreate(name=name)))
        cancelled = dice.random() < 0.4
        if cancelled:
            await asyncio.sleep(dice.uniform(0, 0.6))
            creating.cancel()
        await asyncio.wait((creating,))
        if not creating.cancelled():
            assert creating.result().vm.name == name
        elif not cancelled:
            raise AssertionError("nobody has cancelled it")
        fate = dice.random()
        if creating.cancelled() or fate < 0.2:
            if not creating.cancelled():
                kept.add(name)
            return
        deleting = asyncio.create_task(client.call(VmDelete(vm=name, force=True)))
        if fate < 0.5:
            await asyncio.sleep(dice.uniform(0, 0.05))
            deleting.cancel()
        await asyncio.wait((deleting,))

    async with Client(world.socket) as client:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            for number in range(VMS):
                group.create_task(live(client, number))
        await _look(world)
        names = {vm.name for vm in (await client.call(VmList(all=True))).vms}
        assert kept <= names, "a row is lost"
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(client.call(VmDelete(vm=name, force=True)))
        await _look(world)
        assert (await client.call(VmList(all=True))).vms == []


async def test_the_slow_ones_of_fifty_take_at_most_six_times_as_long_as_a_single_one(world: World):
    """P11. The guest takes BOOT_MS to boot, about what a small one takes on KVM: the fifty wait for theirs at the same
    time, and the rest is what the daemon does one after the other. A machine that is busy with something else is
    measured again."""
    world.host.order("delay", low_ms=BOOT_MS, high_ms=BOOT_MS)
    ratios = []
    async with Client(world.socket) as client:
        for attempt in range(ATTEMPTS):
            singles = []
            for number in range(_SINGLES):
                name = f"single{attempt}-{number}"
                singles.append(await _measure(client.call(VmCreate(name=name))))
                await client.call(VmDelete(vm=name, force=True))
            async with asyncio.timeout(DEADLINE_S):
                times = await asyncio.gather(
                    *(_measure(client.call(VmCreate(name=f"vm{attempt}-{number}"))) for number in range(VMS))
                )
                await asyncio.gather(
                    *(client.call(VmDelete(vm=f"vm{attempt}-{number}", force=True)) for number in range(VMS))
                )
            single, p95 = statistics.median(singles), sorted(times)[int(VMS * 0.95) - 1]
            print(
                f"single {single * 1000:.1f} ms, p95 of {VMS} {p95 * 1000:.1f} ms, {p95 / single:.1f} times"
            )
            ratios.append(p95 / single)
            if ratios[-1] <= RATIO:
                break
    assert min(ratios) <= RATIO, ratios


async def test_twenty_creates_do_not_wait_for_an_image_that_is_being_built(world: World, tmp_path: Path):
    """The archive is a FIFO that nobody writes to: its build hangs from the first byte on."""
    fifo = tmp_path / "image.tar"
    os.mkfifo(fifo)
    async with Client(world.socket) as client:
        building = await client.begin(ImageBuild(image="hangs", from_tar=str(fifo)))
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(client.call(VmCreate(name=f"vm{number}")) for number in range(20)))
            assert len((await client.call(VmList())).vms) == 20
            await asyncio.gather(
                *(client.call(VmDelete(vm=f"vm{number}", force=True)) for number in range(20))
            )
        writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # who reads is let go
        await client.call(OperationCancel(operation=building.id))
        os.close(writer)
        await _look(world)


async def _look(world: World) -> None:
    from banger.client.typed import Client as Blocking

    def find() -> list[str]:
        with Blocking(world.socket) as client:
            return find_leaks(world, client)

    left = await asyncio.to_thread(wait_until_empty, find)
    assert left == []
