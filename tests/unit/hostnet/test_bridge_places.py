"""A guest's place on the bridge: what it costs, and that all of it goes however it ends."""

import asyncio
import socket

import pytest
from tests.unit.hostnet.places import (
    REFUSED,
    UNKNOWN,
    assert_nothing_is_left,
    foreground,
    free_ports,
    is_free,
    make_wish,
    open_bridge,
    render,
    settle,
)

from banger.base.problem import Code, Problem
from banger.model.machine import TapNetwork
from banger.model.vm import NetworkMode
from banger.privileged.contract.values import Guest

# A place and its end


async def test_a_warm_place_costs_one_call_and_so_does_its_end(bridge, root):
    async with bridge.lease(make_wish()):
        await settle()
        assert foreground(root) == ["admit_guest"]
        root.forget()
    assert foreground(root) == ["release_guest"]


async def test_the_order_of_a_place_with_ports_and_of_its_undo(bridge, root):
    wish = make_wish(nat=True, publish=free_ports(2) + free_ports(1, ":53/udp"))
    async with bridge.lease(wish) as lease:
        await settle()
        assert foreground(root) == ["admit_guest", "publish_ports"]
        guest = Guest(tap=lease.tap, mac="02:62:0a:d1:00:02", address="10.209.0.2", nat=True)
        assert root.guests == {lease.tap: guest}
        assert root.up == [lease.tap]
        assert set(render(root).values()) == {"10.209.0.2"}
        assert len(root.published) == 3
        assert bridge.names.addresses == {"vm1": "10.209.0.2"}
        assert bridge.names.forwarding == {"10.209.0.2"}
        root.forget()
    assert foreground(root) == ["unpublish_ports", "release_guest"]
    assert_nothing_is_left(root, bridge, wish)


async def test_a_lease_says_everything_that_vmm_and_guest_need(bridge, root):
    wish = make_wish(7, publish=free_ports(1))
    async with bridge.lease(wish) as lease:
        assert lease.mode is NetworkMode.BRIDGE
        assert lease.network == TapNetwork(mac="02:62:0a:d1:00:08", tap=lease.tap)
        assert (lease.guest_address, lease.address, lease.ssh_port) == ("10.209.0.8/24", "10.209.0.8", 22)
        assert (lease.gateway, lease.dns) == ("10.209.0.1", "10.209.0.1")
        with socket.socket(fileno=lease.tap_descriptor) as holder:
            holder.send(b"out")
            assert root.taps[lease.tap].kernel.recv(10) == b"out"
            holder.detach()


async def test_the_tap_is_the_next_guests(bridge, root):
    root.before["create_taps"] = asyncio.Event()
    async with bridge.lease(make_wish(1)) as lease:
        first = lease.tap
    async with bridge.lease(make_wish(2)), bridge.lease(make_wish(3)) as lease:
        assert lease.tap == first


async def test_fifty_places_at_once(bridge, root):
    places = [bridge.lease(make_wish(number)) for number in range(1, 51)]
    leases = await asyncio.gather(*(place.__aenter__() for place in places))
    await settle()
    assert len({lease.tap for lease in leases}) == len(root.guests) == len(root.up) == 50
    assert root.count("create_taps") <= 2
    assert root.count("admit_guest") == 50
    await asyncio.gather(*(place.__aexit__(None, None, None) for place in places))
    await settle()
    assert root.guests == {}
    assert len(root.taps) == 2
    assert root.count("delete_taps") == 1


@pytest.mark.parametrize("method", ["create_taps", "admit_guest", "publish_ports"])
@pytest.mark.parametrize("problem", [REFUSED, UNKNOWN], ids=["refused", "unknown"])
async def test_a_place_that_fails_at_a_step_leaves_nothing(root, method, problem):
    wish = make_wish(nat=True, publish=free_ports(2))
    async with open_bridge(root, pool_target=0) as bridge:
        root.fail_next(method, problem)
        with pytest.raises(Problem) as caught:
            async with bridge.lease(wish):
                raise AssertionError
        assert caught.value is problem
        await settle()
        assert_nothing_is_left(root, bridge, wish)
        assert root.taps == {}
        async with bridge.lease(wish) as lease:
            assert list(root.guests) == [lease.tap]
            assert len(root.published) == 2
        assert_nothing_is_left(root, bridge, wish)


async def test_a_port_that_is_taken_fails_the_place_before_the_helper_hears_of_ports(bridge, root):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        free = free_ports(1)
        with pytest.raises(Problem, match=f"{port}/tcp of the host is taken") as caught:
            async with bridge.lease(make_wish(publish=[*free, f"{port}:80"])):
                raise AssertionError
    assert caught.value.code is Code.CONFLICT
    assert "publish_ports" not in root.begun
    assert_nothing_is_left(root, bridge, make_wish(publish=free))


async def test_nat_on_a_host_that_does_not_forward_fails_with_the_helpers_hint(bridge, root):
    root.ip_forward = False
    with pytest.raises(Problem) as caught:
        async with bridge.lease(make_wish(nat=True)):
            raise AssertionError
    assert (caught.value.code, caught.value.hint) == (
        Code.UNAVAILABLE,
        "sudo sysctl -w net.ipv4.ip_forward=1",
    )
    async with bridge.lease(make_wish(nat=False)):
        assert len(root.guests) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("method", ["create_taps", "admit_guest", "publish_ports"])
async def test_a_caller_who_leaves_at_a_step_leaves_nothing(root, method, when, times):
    """Not even when it is cancelled once more while it cleans up."""
    wish = make_wish(nat=True, publish=free_ports(2))

    async def stay():
        async with bridge.lease(wish):
            raise AssertionError

    async with open_bridge(root, pool_target=0) as bridge:
        gate = getattr(root, when)[method] = asyncio.Event()
        root.before["release_guest"] = slow = asyncio.Event()
        staying = asyncio.create_task(stay())
        await settle()
        assert method in root.begun
        for _ in range(times):
            staying.cancel()
            await settle()
        gate.set()
        slow.set()
        with pytest.raises(asyncio.CancelledError):
            await staying
        await settle()
        assert_nothing_is_left(root, bridge, wish)
        assert root.taps == {}


async def test_whoever_leaves_during_the_release_does_not_interrupt_it(bridge, root):
    wish = make_wish(publish=free_ports(1))
    place = bridge.lease(wish)
    await place.__aenter__()
    root.before["release_guest"] = gate = asyncio.Event()
    leaving = asyncio.create_task(place.__aexit__(None, None, None))
    await settle()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    await settle()
    assert_nothing_is_left(root, bridge, wish)


# A release that fails


@pytest.mark.parametrize(
    "methods", [("unpublish_ports",), ("release_guest",), ("unpublish_ports", "release_guest")]
)
async def test_a_release_goes_on_and_the_next_guest_finds_nothing_of_it(bridge, root, methods):
    wish = make_wish(publish=free_ports(1))
    place = bridge.lease(wish)
    lease = await place.__aenter__()
    for method in methods:
        root.fail_next(method, REFUSED)
    await place.__aexit__(None, None, None)
    await settle()
    assert bridge.names.addresses == {}
    assert is_free(f"{wish.publish[0].host_port}:80")
    assert root.count("release_guest") == 1
    assert lease.tap not in root.taps  # whatever it is still admitted for
    assert (lease.tap in root.guests) == ("release_guest" in methods)
    assert len(root.published) == (len(methods) == 2)
    async with bridge.lease(make_wish(2)) as other:
        assert list(root.guests) == [other.tap]
        assert root.published == {}


async def test_while_nothing_can_be_undone_no_guest_comes(bridge, root):
    place = bridge.lease(make_wish())
    await place.__aenter__()
    root.fail_next("release_guest", REFUSED)
    await place.__aexit__(None, None, None)
    root.fail_next("apply_guests", REFUSED)
    with pytest.raises(Problem, match="not today"):
        async with bridge.lease(make_wish(2)):
            raise AssertionError
    async with bridge.lease(make_wish(2)):
        assert len(root.guests) == 1
