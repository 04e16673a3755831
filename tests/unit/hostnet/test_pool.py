"""The tap pool on the fake of root: what costs a call, who waits for it, and that nothing is lost."""

import asyncio
import gc
import logging
import os
from contextlib import AsyncExitStack

import pytest
from tests.unit.hostnet.places import LOST, REFUSED, list_open, settle

from banger.base.problem import Problem
from banger.privileged.contract.network import CreateTaps, DeleteTaps
from banger.services.hostnet.pool import TapPool

ENDS = 2  # descriptors of a fake tap: the holder's and the kernel's


@pytest.fixture
async def pool(bridged, tasks):
    """Target 4, full."""
    made = TapPool(bridged, "br-banger", 4, tasks)
    made.fill()
    await settle()
    bridged.forget()
    yield made
    bridged.before.clear()
    await made.close()


@pytest.fixture
async def empty(bridged, tasks):
    """Target 4, not filled yet."""
    made = TapPool(bridged, "br-banger", 4, tasks)
    yield made
    await made.close()


@pytest.fixture
async def bare(bridged, tasks):
    """Target 0: everything is made when it is asked for."""
    made = TapPool(bridged, "br-banger", 0, tasks)
    yield made
    await made.close()


def counts(root):
    return [request.count for request in root.calls if isinstance(request, CreateTaps)]


def deletions(root):
    return [request.taps for request in root.calls if isinstance(request, DeleteTaps)]


class Holders:
    """Tasks that each hold a lease until they are let go."""

    def __init__(self, pool, count):
        self.held = []
        self._end = asyncio.Event()
        self._tasks = [asyncio.create_task(self._hold(pool)) for _ in range(count)]

    async def _hold(self, pool):
        async with pool.lease() as tap:
            self.held.append(tap)
            await self._end.wait()

    async def wait_all_held(self):
        async with asyncio.timeout(5):
            while len(self.held) < len(self._tasks):
                await asyncio.sleep(0)

    async def let_go(self):
        self._end.set()
        await asyncio.gather(*self._tasks)
        await settle()


async def test_filling_makes_all_in_one_call(empty, bridged):
    empty.fill()
    empty.fill()
    assert bridged.begun == []  # off the path of who asked
    await settle()
    assert counts(bridged) == [4]
    assert empty.parked == 4
    assert not bridged.up
    empty.fill()
    await settle()
    assert counts(bridged) == [4]


async def test_a_warm_lease_costs_no_call_on_its_path(pool, bridged):
    bridged.before["create_taps"] = asyncio.Event()  # whoever waited for a call would wait for ever
    async with asyncio.timeout(1), pool.lease() as tap:
        assert bridged.begun == []
        assert tap.name in bridged.taps
        assert not os.get_blocking(tap.descriptor)
        assert not os.get_inheritable(tap.descriptor)


async def test_what_was_taken_is_made_again_in_one_batch(pool, bridged):
    async with AsyncExitStack() as leases:
        taps = [await leases.enter_async_context(pool.lease()) for _ in range(3)]
        assert bridged.begun == []
        await settle()
        assert counts(bridged) == [3]
        assert pool.parked == 4
        assert len(bridged.taps) == 7
        assert len({tap.name for tap in taps}) == 3


async def test_what_is_too_much_is_deleted_in_one_call(pool, bridged):
    async with AsyncExitStack() as leases:
        taps = [await leases.enter_async_context(pool.lease()) for _ in range(3)]
        await settle()
    await settle()
    (deleted,) = deletions(bridged)
    assert set(deleted) == {tap.name for tap in taps}
    assert pool.parked == len(bridged.taps) == 4


async def test_fifty_at_once_with_an_empty_pool_cost_one_call(empty, bridged):
    holders = Holders(empty, 50)
    await holders.wait_all_held()
    assert len({tap.name for tap in holders.held}) == 50
    assert len({tap.descriptor for tap in holders.held}) == 50
    await settle()
    assert counts(bridged) == [54]
    assert empty.parked == 4
    await holders.let_go()
    assert len(bridged.taps) == empty.parked == 4
    assert len(deletions(bridged)) == 1


async def test_fifty_at_once_with_a_warm_pool_cost_one_call(pool, bridged):
    holders = Holders(pool, 50)
    await holders.wait_all_held()
    await settle()
    assert counts(bridged) == [50]
    await holders.let_go()


async def test_who_comes_while_a_call_is_under_way_shares_the_next(empty, bridged):
    bridged.before["create_taps"] = gate = asyncio.Event()
    first = Holders(empty, 1)
    await settle()
    others = Holders(empty, 49)
    await settle()
    gate.set()
    await first.wait_all_held()
    await others.wait_all_held()
    await settle()
    assert counts(bridged) == [5, 49]
    await first.let_go()
    await others.let_go()


async def test_more_than_one_call_may_carry_are_several(empty, bridged):
    holders = Holders(empty, 200)
    await holders.wait_all_held()
    await settle()
    assert counts(bridged) == [64, 64, 64, 12]
    await holders.let_go()


async def test_a_tap_that_comes_back_is_the_next_ones(bare, bridged):
    """It goes to who waits before a new one is made."""
    lease = bare.lease()
    tap = await lease.__aenter__()
    bridged.before["create_taps"] = asyncio.Event()
    waiting = Holders(bare, 1)
    await settle()
    await lease.__aexit__(None, None, None)
    await waiting.wait_all_held()
    assert waiting.held == [tap]
    bridged.before.clear()
    await waiting.let_go()


async def test_a_tap_is_parked_again_after_use(pool, bridged):
    bridged.before["create_taps"] = asyncio.Event()
    names = set(bridged.taps)
    for _ in range(12):
        async with pool.lease() as tap:
            assert tap.name in names
    assert pool.parked == 4
    assert bridged.calls == []


async def test_with_no_pool_each_tap_is_made_and_deleted(bare, bridged):
    async with bare.lease() as tap:
        assert counts(bridged) == [1]
        assert list(bridged.taps) == [tap.name]
    await settle()
    assert deletions(bridged) == [(tap.name,)]
    assert bridged.taps == {}


async def test_what_the_last_guest_was_sent_is_not_for_the_next(pool, bridged):
    bridged.before["create_taps"] = asyncio.Event()
    async with pool.lease() as tap:
        for _ in range(20):
            bridged.taps[tap.name].kernel.send(b"a frame for the guest that was here")
    for _ in range(pool.parked):
        async with pool.lease() as again:
            with pytest.raises(BlockingIOError):
                os.read(again.descriptor, 2000)


async def test_a_parked_tap_that_died_is_replaced(pool, bridged):
    before, old = list_open(), set(bridged.taps)
    dead = tuple(bridged.taps)[:2]
    await bridged.call(DeleteTaps(taps=dead))
    bridged.forget()
    async with AsyncExitStack() as leases:
        taps = [await leases.enter_async_context(pool.lease()) for _ in range(2)]
        assert bridged.begun == []
        assert {tap.name for tap in taps} == set(bridged.taps) & {tap.name for tap in taps}
        await settle()
        assert counts(bridged) == [4]
    await settle()
    assert len(list_open() - before) == ENDS * len(set(bridged.taps) - old)
    assert pool.parked == len(bridged.taps) == 4


async def test_where_all_parked_taps_died_new_ones_are_made(pool, bridged):
    await bridged.call(DeleteTaps(taps=tuple(bridged.taps)))
    async with pool.lease() as tap:
        assert tap.name in bridged.taps
    await settle()
    assert pool.parked == len(bridged.taps) == 4


async def test_a_tap_that_died_in_use_is_not_parked(pool, bridged):
    bridged.before["create_taps"] = asyncio.Event()
    async with pool.lease() as tap:
        await bridged.call(DeleteTaps(taps=(tap.name,)))
    assert pool.parked == 3


# Leaving early


async def test_a_waiter_who_leaves_before_the_call_costs_nothing(empty, bridged):
    waiter = asyncio.create_task(empty.take())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await settle()
    assert empty.parked == len(bridged.taps) == 4


@pytest.mark.parametrize("when", ["before", "after"])
async def test_waiters_who_leave_during_the_call_leave_no_tap(empty, bridged, when):
    before = list_open()
    gate = getattr(bridged, when)["create_taps"] = asyncio.Event()
    waiters = [asyncio.create_task(empty.take()) for _ in range(20)]
    await settle()
    for waiter in waiters:
        waiter.cancel()
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    gate.set()
    await settle()
    assert empty.parked == len(bridged.taps) == 4
    assert len(list_open() - before) == 4 * ENDS


async def test_a_waiter_who_leaves_with_the_tap_in_hand_gives_it_back(bare, bridged):
    lease = bare.lease()
    tap = await lease.__aenter__()
    bridged.before["create_taps"] = asyncio.Event()
    waiter = asyncio.create_task(bare.take())
    await settle()
    await lease.__aexit__(None, None, None)  # the waiter's now, who has not run since
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    bridged.before["create_taps"].set()
    await settle()
    assert any(tap.name in deleted for deleted in deletions(bridged))
    assert bridged.taps == {}


async def test_a_waiter_who_leaves_with_a_tap_gives_it_to_who_waits(bare, bridged):
    lease = bare.lease()
    tap = await lease.__aenter__()
    bridged.before["create_taps"] = asyncio.Event()
    leaver = asyncio.create_task(bare.take())
    await settle()
    stayer = Holders(bare, 1)
    await settle()
    await lease.__aexit__(None, None, None)
    leaver.cancel()
    await stayer.wait_all_held()
    assert stayer.held == [tap]
    bridged.before.clear()
    await stayer.let_go()


async def test_a_lease_that_is_never_left_keeps_its_tap(pool, bridged):
    """The collector must not take a running guest's tap."""
    tap = await pool.lease().__aenter__()
    gc.collect()
    await settle()
    assert tap.alive
    assert tap.name in bridged.taps
    os.close(tap.descriptor)


# Failures


async def test_a_failure_reaches_everyone_who_waits_and_nobody_else(empty, bridged):
    bridged.fail_next("create_taps", REFUSED)
    outcomes = await asyncio.gather(*(empty.take() for _ in range(5)), return_exceptions=True)
    assert outcomes == [REFUSED] * 5
    assert bridged.taps == {}
    async with empty.lease() as tap:
        assert tap.name in bridged.taps


async def test_a_failure_nobody_waits_for_is_in_the_log(empty, bridged, caplog):
    bridged.fail_next("create_taps", REFUSED)
    with caplog.at_level(logging.WARNING):
        empty.fill()
        await settle()
    assert [record.why for record in caplog.records if hasattr(record, "why")] == ["not today"]
    empty.fill()
    await settle()
    assert empty.parked == 4


async def test_a_warm_pool_outlives_a_helper_that_fails(pool, bridged):
    bridged.missing["create_taps"] = REFUSED
    async with AsyncExitStack() as leases:
        for _ in range(4):
            await leases.enter_async_context(pool.lease())
            await settle()
        with pytest.raises(Problem, match="not today"):
            await pool.take()
        del bridged.missing["create_taps"]
        await leases.enter_async_context(pool.lease())


async def test_a_deletion_that_fails_closes_the_descriptors(pool, bridged):
    before, old = list_open(), set(bridged.taps)
    async with AsyncExitStack() as leases:
        for _ in range(3):
            await leases.enter_async_context(pool.lease())
        await settle()
        bridged.fail_next("delete_taps", REFUSED)
    await settle()
    await bridged.close()  # notices taps that nobody holds any more
    assert len(list_open() - before) == ENDS * len(set(bridged.taps) - old)
    assert len(bridged.taps) == 4


# Starting over


async def test_renewing_deletes_what_is_parked_and_what_comes_back(pool, bridged):
    old = set(bridged.taps)
    async with pool.lease() as tap:
        await settle()
        pool.renew()
        assert pool.parked == 0
        await settle()
        assert list(bridged.taps) == [tap.name]
        assert tap.alive
    await settle()
    assert bridged.taps == {}
    async with pool.lease() as fresh:
        assert fresh.name not in old


async def test_taps_that_were_under_way_when_everything_was_renewed_are_not_used(empty, bridged):
    bridged.after["create_taps"] = gate = asyncio.Event()
    holders = Holders(empty, 1)
    await settle()
    old = set(bridged.taps)
    assert len(old) == 5
    empty.renew()
    gate.set()
    await holders.wait_all_held()
    await settle()
    assert old.isdisjoint(bridged.taps)
    assert holders.held[0].name in bridged.taps
    await holders.let_go()


# The end


async def test_closing_deletes_everything_in_one_call(pool, bridged):
    names = set(bridged.taps)
    await pool.close()
    (deleted,) = deletions(bridged)
    assert set(deleted) == names
    assert bridged.taps == {}


async def test_closing_an_empty_pool_asks_for_nothing(empty, bridged):
    await empty.close()
    assert bridged.calls == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_closing_during_a_refill_leaves_nothing(empty, bridged, when):
    before = list_open()
    getattr(bridged, when)["create_taps"] = asyncio.Event()
    empty.fill()
    await settle()
    await empty.close()
    await bridged.close()
    assert bridged.taps == {}
    assert not list_open() - before


async def test_closing_waits_for_a_deletion_that_is_under_way(pool, bridged):
    bridged.before["delete_taps"] = gate = asyncio.Event()
    async with AsyncExitStack() as leases:
        for _ in range(2):
            await leases.enter_async_context(pool.lease())
        await settle()
    await settle()
    closing = asyncio.create_task(pool.close())
    await settle()
    assert not closing.done()
    gate.set()
    await closing
    assert bridged.taps == {}


async def test_a_leased_tap_outlives_the_pool(pool, bridged):
    """Its guest may outlive the daemon."""
    tap = await pool.lease().__aenter__()
    await settle()
    await pool.close()
    assert list(bridged.taps) == [tap.name]
    os.close(tap.descriptor)


async def test_a_bridge_that_is_gone_is_told_to_who_waits(empty, bridged):
    bridged.fail_next("create_taps", LOST)
    with pytest.raises(Problem) as caught:
        await empty.take()
    assert caught.value is LOST
