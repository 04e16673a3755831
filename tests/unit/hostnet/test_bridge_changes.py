"""NAT and published ports of guests that run."""

import asyncio
import socket

import pytest
from tests.unit.hostnet.places import (
    REFUSED,
    UNKNOWN,
    foreground,
    free_ports,
    is_free,
    list_open,
    lose_tables,
    make_wish,
    render,
    settle,
)

from banger.base.problem import Code, Problem
from banger.model.ports import parse_publish
from banger.privileged.contract.network import PublishPorts

# NAT


async def test_nat_is_changed_for_a_guest_that_runs(bridge, root):
    wish = make_wish()
    async with bridge.lease(wish) as lease:
        root.forget()
        await bridge.set_nat(wish.vm_id, True)
        assert foreground(root) == ["admit_guest"]
        assert root.guests[lease.tap].nat
        assert bridge.names.forwarding == {"10.209.0.2"}
        await bridge.set_nat(wish.vm_id, False)
        assert not root.guests[lease.tap].nat
        assert bridge.names.forwarding == set()


async def test_nat_that_is_refused_is_as_it_was_even_when_all_is_made_anew(bridge, root):
    wish = make_wish()
    async with bridge.lease(wish) as lease:
        root.ip_forward = False
        with pytest.raises(Problem, match="does not forward"):
            await bridge.set_nat(wish.vm_id, True)
        assert bridge.names.forwarding == set()
        await bridge.open()
        assert not root.guests[lease.tap].nat


async def test_nat_set_stays_when_all_is_made_anew(bridge, root):
    wish = make_wish()
    async with bridge.lease(wish) as lease:
        await bridge.set_nat(wish.vm_id, True)
        await bridge.open()
        assert root.guests[lease.tap].nat
        lose_tables(root)
        await bridge.set_nat(wish.vm_id, False)
        assert not root.guests[lease.tap].nat


async def test_nat_that_is_being_set_while_all_is_made_anew_is_not_lost(bridge, root):
    wish = make_wish()
    async with bridge.lease(wish) as lease:
        root.after["admit_guest"] = gate = asyncio.Event()
        setting = asyncio.create_task(bridge.set_nat(wish.vm_id, True))
        await settle()
        await bridge.open()
        gate.set()
        await setting
        assert root.guests[lease.tap].nat


# Published ports of a guest that runs


async def test_publishing_holds_the_port_and_unpublishing_frees_it(bridge, root):
    wish = make_wish()
    (tcp,), (udp,) = free_ports(1), free_ports(1, ":53/udp")
    async with bridge.lease(wish):
        await bridge.publish(wish.vm_id, map(parse_publish, (tcp, udp)))
        assert len(root.published) == 2
        assert not is_free(tcp)
        assert not is_free(udp)
        await bridge.unpublish(wish.vm_id, (parse_publish(tcp),))
        assert list(render(root)) == [udp.partition(":")[0] + "/udp"]
        assert is_free(tcp)
        assert not is_free(udp)
    assert is_free(udp)
    assert root.published == {}


async def test_nobody_is_answered_on_a_port_that_is_only_held(bridge, root):
    """The kernel leads connections to the guest; what comes to the socket itself must not hang."""
    wish = make_wish()
    (port,) = free_ports(1)
    async with bridge.lease(wish):
        await bridge.publish(wish.vm_id, (parse_publish(port),))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port.partition(":")[0])), 1)


async def test_publishing_is_all_or_none(bridge, root):
    wish = make_wish()
    (free,) = free_ports(1)
    async with bridge.lease(wish):
        before = list_open()
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = f"{server.getsockname()[1]}:80"
            with pytest.raises(Problem, match="is taken") as caught:
                await bridge.publish(wish.vm_id, map(parse_publish, (free, taken)))
        assert caught.value.code is Code.CONFLICT
        assert root.published == {}
        assert is_free(free)
        assert not list_open() - before
        await bridge.publish(wish.vm_id, (parse_publish(free),))
        assert len(root.published) == 1


@pytest.mark.parametrize(("problem", "calls"), [(REFUSED, 0), (UNKNOWN, 1)], ids=["refused", "unknown"])
async def test_what_the_helper_may_have_done_is_taken_back(bridge, root, problem, calls):
    wish = make_wish()
    ports = free_ports(2)
    async with bridge.lease(wish):
        root.forget()
        root.fail_next("publish_ports", problem)
        with pytest.raises(Problem) as caught:
            await bridge.publish(wish.vm_id, map(parse_publish, ports))
        assert caught.value is problem
        assert root.count("unpublish_ports") == calls
        assert all(map(is_free, ports))
        await bridge.publish(wish.vm_id, map(parse_publish, ports))
        assert len(root.published) == 2


async def test_a_port_of_another_guest_is_a_conflict(bridge, root):
    one, two = make_wish(1, publish=free_ports(1)), make_wish(2)
    async with bridge.lease(one), bridge.lease(two):
        with pytest.raises(Problem) as caught:
            await bridge.publish(two.vm_id, one.publish)
        assert caught.value.code is Code.CONFLICT
        assert list(render(root).values()) == ["10.209.0.2"]


async def test_publishing_nothing_asks_for_nothing(bridge, root):
    wish = make_wish()
    async with bridge.lease(wish):
        root.forget()
        await bridge.publish(wish.vm_id, ())
        await bridge.unpublish(wish.vm_id, ())
        assert foreground(root) == []


async def test_an_unpublishing_that_fails_keeps_the_port(bridge, root):
    wish = make_wish(publish=free_ports(1))
    async with bridge.lease(wish):
        root.fail_next("unpublish_ports", REFUSED)
        with pytest.raises(Problem):
            await bridge.unpublish(wish.vm_id, wish.publish)
        assert not is_free(f"{wish.publish[0].host_port}:80")
        await bridge.unpublish(wish.vm_id, wish.publish)
        assert root.published == {}


async def test_ports_published_while_all_is_made_anew_are_not_lost(bridge, root):
    wish = make_wish()
    ports = tuple(map(parse_publish, free_ports(1)))
    async with bridge.lease(wish):
        root.after["publish_ports"] = gate = asyncio.Event()
        publishing = asyncio.create_task(bridge.publish(wish.vm_id, ports))
        await settle()
        opening = asyncio.create_task(bridge.open())
        await settle()
        gate.set()
        await asyncio.gather(publishing, opening)
        assert len(root.published) == 1


async def test_every_port_comes_with_its_socket(bridge, root):
    """The fake of root verifies each socket; a call with more ports than sockets would be refused."""
    wish = make_wish(publish=free_ports(3) + free_ports(2, ":53/udp"))
    async with bridge.lease(wish):
        (request,) = [request for request in root.calls if isinstance(request, PublishPorts)]
        assert len(request.ports) == len(root.published) == 5
