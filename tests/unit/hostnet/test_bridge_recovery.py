"""The bridge after the host has lost it, and after a daemon that has gone."""

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack

import pytest
from tests.unit.hostnet.places import (
    LOST,
    REFUSED,
    assert_nothing_is_left,
    foreground,
    free_ports,
    is_free,
    lose_bridge,
    lose_tables,
    make_bridge,
    make_runtime,
    make_wish,
    open_bridge,
    render,
    settle,
)

from banger.base.problem import Problem
from banger.base.tasks import beside
from banger.model.ports import parse_publish
from banger.privileged.contract.network import ApplyGuests, Route

# The host has lost it


async def test_when_the_tables_are_gone_everything_is_made_anew_once(bridge, root):
    one, two = make_wish(1, publish=free_ports(1)), make_wish(2)
    async with bridge.lease(one) as running:
        lose_tables(root)
        await settle()
        root.forget()
        async with bridge.lease(two) as lease:
            assert foreground(root) == [
                "admit_guest", "release_guest", "hello", "list_routes", "ensure_bridge",
                "apply_guests", "publish_ports", "open_dns", "route_names", "admit_guest",
            ]  # fmt: skip
            assert set(root.guests) == {running.tap, lease.tap}
            assert list(render(root).values()) == ["10.209.0.2"]
            assert bridge.names.addresses == {"vm1": "10.209.0.2", "vm2": "10.209.0.3"}


async def test_when_the_bridge_is_gone_its_taps_are_not_used_again(bridge, root):
    old = set(root.taps)
    lose_tables(root)
    root.fail_next("admit_guest", LOST)  # the parked taps live on, enslaved to nothing
    async with bridge.lease(make_wish()) as lease:
        assert lease.tap not in old
        await settle()
        assert old.isdisjoint(root.taps)
        assert len(root.taps) == 3


async def test_when_bridge_and_taps_are_gone_the_next_place_brings_them_back(bridge, root):
    await lose_bridge(root)
    async with bridge.lease(make_wish()) as lease:
        assert (root.bridge, root.zone) == ("br-banger", "vm")
        assert root.up == [lease.tap]


async def test_what_is_lost_again_at_once_is_a_failure(bridge, root):
    root.fail_next("admit_guest", LOST)
    root.fail_next("admit_guest", LOST)
    root.forget()
    with pytest.raises(Problem) as caught:
        async with bridge.lease(make_wish()):
            raise AssertionError
    assert caught.value is LOST
    assert (root.count("admit_guest"), root.count("ensure_bridge")) == (2, 1)
    assert_nothing_is_left(root, bridge, make_wish())


async def test_what_cannot_be_made_anew_is_the_failure(bridge, root):
    lose_tables(root)
    root.missing["ensure_bridge"] = REFUSED
    with pytest.raises(Problem) as caught:
        async with bridge.lease(make_wish()):
            raise AssertionError
    assert caught.value is REFUSED
    del root.missing["ensure_bridge"]
    async with bridge.lease(make_wish()):
        assert len(root.guests) == 1


async def test_many_who_notice_at_once_make_it_anew_once(bridge, root):
    lose_tables(root)
    root.forget()
    async with AsyncExitStack() as places:
        await asyncio.gather(
            *(places.enter_async_context(bridge.lease(make_wish(number))) for number in range(1, 11))
        )
        assert root.count("ensure_bridge") == root.count("apply_guests") == 1
        assert len(root.guests) == len(root.up) == 10


async def test_a_guest_that_is_being_released_while_all_is_made_anew_does_not_come_back(bridge, root):
    place = bridge.lease(make_wish())
    await place.__aenter__()
    root.after["release_guest"] = gate = asyncio.Event()
    leaving = asyncio.create_task(place.__aexit__(None, None, None))
    await settle()
    await bridge.open()
    gate.set()
    await leaving
    assert root.guests == {}


# Looking after the bridge


async def test_tables_that_somebody_flushes_come_back_without_a_start(bridge, root, monkeypatch):
    monkeypatch.setattr("banger.services.hostnet.bridge._WATCH_S", 0.01)
    ports = free_ports(1)
    async with bridge.lease(make_wish(publish=ports)) as lease, beside(bridge._watch()):
        lose_tables(root)
        async with asyncio.timeout(5):
            while not root.guests or not root.published:
                await asyncio.sleep(0.005)
        assert root.guests[lease.tap].address == lease.address
        assert len(root.published) == 1


async def test_a_link_that_comes_up_later_is_denied_as_well(bridge, root):
    async with bridge.lease(make_wish()):
        root.routes.append(Route(destination="198.51.100.0/24", device="eth1", gateway=""))
        names = bridge.names
        root.forget()
        await bridge._look_after()
        assert "198.51.100.0/24" in root.policy.denied
        assert len(root.guests) == 1
        assert root.begun == ["ensure_bridge", "list_routes", "apply_guests"]
        assert bridge.names is names  # nobody has to wait for an answer


async def test_a_new_link_that_could_not_be_denied_is_denied_the_next_time(bridge, root):
    async with bridge.lease(make_wish()):
        root.routes.append(Route(destination="198.51.100.0/24", device="eth1", gateway=""))
        root.fail_next("apply_guests", REFUSED)
        await bridge._look_after()
        assert "198.51.100.0/24" not in root.policy.denied
        await bridge._look_after()
        assert "198.51.100.0/24" in root.policy.denied


async def test_a_guest_that_comes_while_names_are_opened_anew_has_one(bridge, root):
    async with bridge.lease(make_wish(1)), AsyncExitStack() as places:
        lose_tables(root)
        root.after["open_dns"] = gate = asyncio.Event()
        async with beside(bridge._look_after()):
            await settle()
            assert bridge.names is None
            await places.enter_async_context(bridge.lease(make_wish(2)))
            gate.set()
            await settle()
        assert bridge.names.addresses == {"vm1": "10.209.0.2", "vm2": "10.209.0.3"}


async def test_names_that_could_not_be_served_are_tried_again(root, tasks):
    root.fail_next("open_dns", REFUSED)
    bridge = make_bridge(root, tasks)
    await bridge.open()
    assert bridge.names is None
    await bridge._look_after()
    assert (bridge.names is not None, bridge.names_reason) == (True, "")
    await bridge.close()


async def test_a_helper_that_serves_somebody_else_is_not_used(root, tasks, monkeypatch):
    bridge = make_bridge(root, tasks)
    mine = os.getuid()
    asked = iter((mine, mine + 1, mine + 1))  # the fake's own answer first
    monkeypatch.setattr("os.getuid", lambda: next(asked, mine))
    with pytest.raises(Problem, match=f"serves uid {mine}, not {mine + 1}"):
        await bridge.open()
    await bridge.close()
    assert root.bridge == ""


async def test_a_bridge_that_is_whole_is_left_alone(bridge, root):
    async with bridge.lease(make_wish()):
        root.forget()
        await bridge._look_after()
        assert root.begun == ["ensure_bridge", "list_routes"]


# Adoption


async def test_adoption_makes_no_call_and_opening_tells_the_host_of_exactly_the_adopted(root, tasks):
    ports = free_ports(2)
    one, two = make_wish(1, nat=True, publish=ports), make_wish(2)
    async with open_bridge(root) as before:
        held = []
        for wish in (one, two, make_wish(3)):
            place = before.lease(wish)
            held.append(await place.__aenter__())
    assert root.bridge == "br-banger"  # guests are on it
    assert len(root.taps) == 3
    root.forget()
    bridge = make_bridge(root, tasks)
    async with (
        bridge.adopt(one, make_runtime(1, held[0].tap)) as lease,
        bridge.adopt(two, make_runtime(2, held[1].tap)),
    ):
        assert root.begun == []
        assert (lease.tap, lease.address, lease.tap_descriptor) == (held[0].tap, "10.209.0.2", None)
        assert not is_free(ports[0])
        await bridge.open()
        assert set(root.guests) == {held[0].tap, held[1].tap}
        assert held[2].tap not in root.taps  # no VM has it: it was lent to a VMM when the daemon was killed
        assert {held[0].tap, held[1].tap} <= set(root.taps)
        assert root.guests[held[0].tap].nat
        assert set(render(root).values()) == {"10.209.0.2"}
        assert len(root.published) == 2
        assert bridge.names.addresses == {"vm1": "10.209.0.2", "vm2": "10.209.0.3"}
    assert root.guests == {}
    assert root.published == {}
    assert is_free(ports[0])
    for lease in held:  # the VMMs end
        socket.socket(fileno=lease.tap_descriptor).close()
    await bridge.close()
    assert root.bridge == ""


async def test_a_port_that_somebody_took_meanwhile_is_given_up_and_told(root, tasks, caplog):
    bridge = make_bridge(root, tasks)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"{server.getsockname()[1]}:80"
        kept = free_ports(1)
        wish = make_wish(1, publish=[taken, *kept])
        with caplog.at_level(logging.WARNING):
            place = bridge.adopt(wish, make_runtime(1, "bng-00000001"))
            await place.__aenter__()
        await bridge.open()
        assert [str(port) for _, _, port in root.published] == [kept[0].partition(":")[0]]
        assert any("not published any more" in record.message for record in caplog.records)
        await bridge.unpublish(wish.vm_id, (parse_publish(taken),))  # nothing of ours to take back
        assert len(root.published) == 1
        await place.__aexit__(None, None, None)
    await bridge.close()


async def test_a_guest_that_ends_before_the_bridge_is_open_is_not_told_of(root, tasks):
    bridge = make_bridge(root, tasks)
    async with bridge.adopt(make_wish(), make_runtime(1, "bng-00000001")):
        pass
    await bridge.open()
    assert [request.guests for request in root.calls if isinstance(request, ApplyGuests)] == [()]
    await bridge.close()


async def test_a_failed_opening_leaves_a_bridge_that_guests_are_on(bridge, root):
    async with bridge.lease(make_wish()) as lease:
        root.fail_next("apply_guests", REFUSED)
        with pytest.raises(Problem):
            await bridge.open()
        assert root.bridge == "br-banger"
        assert root.up == [lease.tap]
