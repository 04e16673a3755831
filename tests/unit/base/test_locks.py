"""Ranks of locks: an order that is broken is told at once."""

import asyncio

import pytest

from banger.base.locks import RankedLock, hold_rank
from banger.base.tasks import Supervisor

FIRST, SECOND = 1, 2


async def test_locks_are_taken_in_the_order_of_their_ranks():
    first, second = RankedLock(FIRST, "first"), RankedLock(SECOND, "second")
    async with first, second:
        assert first.locked()
        assert second.locked()
    async with second:
        pass
    async with first:
        with hold_rank(SECOND, "a lock of another kind"):
            pass
    assert not first.locked()


@pytest.mark.parametrize("rank", [FIRST, SECOND])
async def test_a_lock_under_one_of_its_own_rank_or_a_higher_one_is_a_bug(rank):
    lower = RankedLock(FIRST, "the lower")
    async with RankedLock(rank, "the upper"):
        with pytest.raises(AssertionError, match="the lower"):
            async with lower:
                pytest.fail("it was taken")
    assert not lower.locked()
    async with lower:
        pass  # what failed has left nothing behind


async def test_work_whose_end_is_awaited_holds_what_its_caller_holds_and_other_work_does_not():
    lock = RankedLock(FIRST, "another")

    async def take():
        async with lock:
            return True

    async with Supervisor() as tasks, RankedLock(FIRST, "one"):
        with pytest.raises(AssertionError, match="another"):
            await tasks.finish(take(), name="awaited")
        assert await tasks.start(take(), name="on its own")


async def test_each_task_has_its_own_ranks():
    lock = RankedLock(FIRST, "one for all")
    taken = []

    async def take(number):
        async with lock:
            await asyncio.sleep(0)
            taken.append(number)

    await asyncio.gather(*(take(number) for number in range(5)))
    assert taken == [0, 1, 2, 3, 4]
