"""How the bridge comes to a host and leaves it, and what is said of it."""

import asyncio
import logging
import socket
from ipaddress import IPv4Address, IPv4Network

import pytest
from tests.unit.hostnet.places import PLAN, REFUSED, foreground, free_ports, make_bridge, make_wish, settle

from banger.base.problem import Code, Problem
from banger.privileged.contract.network import Route
from banger.services.hostnet.bridge import Allowances

# Opening


async def test_opening_looks_before_it_acts_and_the_policy_comes_before_the_names(root, tasks):
    bridge = make_bridge(root, tasks)
    await bridge.open()
    await settle()
    assert foreground(root) == [
        "hello", "list_routes", "ensure_bridge", "apply_guests", "list_taps", "open_dns", "route_names",
    ]  # fmt: skip
    assert (root.bridge, root.address, root.zone) == ("br-banger", "10.209.0.1/24", "vm")
    assert root.count("create_taps") == 1
    assert len(root.taps) == 2
    assert (bridge.names.zone, bridge.names.server) == ("vm", PLAN.interface)
    assert bridge.names_reason == ""
    await bridge.close()


async def test_nobody_waits_for_the_taps(root, tasks):
    root.before["create_taps"] = asyncio.Event()
    bridge = make_bridge(root, tasks)
    async with asyncio.timeout(1):
        await bridge.open()
    await bridge.close()


async def test_the_policy_is_the_default_and_what_the_owner_allows(root, tasks):
    root.routes.append(Route(destination="198.51.100.0/24", device="eth1", gateway=""))
    allowances = Allowances(networks=("192.168.1.0/24",), host_ports=(5432,), guests=True)
    bridge = make_bridge(root, tasks, allowances=allowances)
    await bridge.open()
    denied = [IPv4Network(text) for text in root.policy.denied]
    for address in ("198.51.100.7", "10.0.0.1", "169.254.169.254"):
        assert any(IPv4Address(address) in network for network in denied)
    assert not any(IPv4Address("203.0.113.7") in network for network in denied)
    assert root.policy.allowed == ("192.168.1.0/24",)
    assert (root.policy.host_ports, root.policy.guests) == ((5432,), True)
    await bridge.close()


async def test_a_subnet_that_is_in_use_is_refused_before_anything_is_made(root, tasks):
    root.routes.append(Route(destination="10.209.0.0/16", device="wg0", gateway=""))
    bridge = make_bridge(root, tasks)
    with pytest.raises(Problem) as caught:
        await bridge.open()
    assert caught.value.code is Code.CONFLICT
    assert "bridge_cidr" in caught.value.hint
    assert "ensure_bridge" not in root.begun
    await bridge.close()


@pytest.mark.parametrize("method", ["hello", "list_routes", "ensure_bridge", "apply_guests"])
async def test_an_opening_that_fails_leaves_no_bridge_and_may_be_repeated(root, tasks, method):
    bridge = make_bridge(root, tasks)
    root.fail_next(method, REFUSED)
    with pytest.raises(Problem) as caught:
        await bridge.open()
    assert caught.value is REFUSED
    await settle()
    assert (root.bridge, root.taps) == ("", {})
    await bridge.open()
    assert root.bridge == "br-banger"
    assert root.policy is not None
    await bridge.close()


async def test_opening_twice_at_once_is_opening_twice_in_turn(root, tasks):
    bridge = make_bridge(root, tasks)
    await asyncio.gather(bridge.open(), bridge.open())
    await settle()
    again = ["hello", "list_routes", "ensure_bridge", "apply_guests", "open_dns", "route_names"]
    assert foreground(root) == [*again[:4], "list_taps", *again[4:], *again]
    assert len(root.taps) == 2
    await bridge.close()


# Names


@pytest.mark.parametrize("method", ["open_dns", "route_names"])
async def test_without_names_guests_run_and_the_reason_is_told_until_it_has_gone(root, tasks, method):
    bridge = make_bridge(root, tasks)
    root.fail_next(method, Problem(Code.CONFLICT, "port 53 is taken"))
    await bridge.open()
    assert "port 53 is taken" in bridge.explain(nat=False)
    async with bridge.lease(make_wish()):
        assert len(root.guests) == 1
    await bridge.open()
    assert bridge.names_reason == ""
    assert "names" not in bridge.explain(nat=False)
    await bridge.close()


async def test_a_host_without_resolved_is_no_failure_and_guests_have_names(root, tasks, caplog):
    root.resolved = False
    bridge = make_bridge(root, tasks)
    with caplog.at_level(logging.WARNING):
        await bridge.open()
    assert "systemd-resolved" in bridge.explain(nat=False)
    assert caplog.records == []
    async with bridge.lease(make_wish(1)):
        assert bridge.names.addresses == {"vm1": "10.209.0.2"}
    await bridge.close()


async def test_opening_again_has_new_sockets_and_the_same_names(bridge, root):
    async with bridge.lease(make_wish(1, nat=True)), bridge.lease(make_wish(2)):
        before = bridge.names
        await bridge.open()
        assert not before.is_open
        assert bridge.names is not before
        assert bridge.names.addresses == {"vm1": "10.209.0.2", "vm2": "10.209.0.3"}
        assert bridge.names.forwarding == {"10.209.0.2"}


async def test_names_that_cannot_be_opened_again_are_gone(bridge, root):
    root.fail_next("open_dns", REFUSED)
    await bridge.open()
    assert bridge.names is None
    async with bridge.lease(make_wish()):
        assert len(root.guests) == 1


# The end


async def test_closing_takes_everything_away(root, tasks):
    bridge = make_bridge(root, tasks)
    await bridge.open()
    await settle()
    names = bridge.names
    await bridge.close()
    assert (root.bridge, root.zone, root.taps) == ("", "", {})
    assert not names.is_open


async def test_closing_keeps_the_bridge_while_a_guest_is_on_it(root, tasks):
    bridge = make_bridge(root, tasks)
    await bridge.open()
    wish = make_wish(publish=free_ports(1))
    lease = await bridge.lease(wish).__aenter__()
    await settle()
    await bridge.close()
    assert root.bridge == "br-banger"
    assert "remove_bridge" not in root.begun
    assert list(root.taps) == list(root.guests) == root.up == [lease.tap]
    assert len(root.published) == 1
    assert root.zone == ""
    assert not bridge.names.is_open
    socket.socket(fileno=lease.tap_descriptor).close()


@pytest.mark.parametrize("method", ["delete_taps", "unroute_names", "remove_bridge"])
async def test_closing_goes_on_when_a_step_fails(root, tasks, method):
    bridge = make_bridge(root, tasks)
    await bridge.open()
    await settle()
    root.fail_next(method, REFUSED)
    await bridge.close()
    assert root.list_methods()[-3:] == ["delete_taps", "unroute_names", "remove_bridge"]
    assert root.taps == {}


async def test_closing_what_was_never_opened_is_no_failure(root, tasks):
    root.missing = dict.fromkeys(("hello", "unroute_names", "remove_bridge"), REFUSED)
    bridge = make_bridge(root, tasks)
    with pytest.raises(Problem):
        await bridge.open()
    await bridge.close()


# Words


@pytest.mark.parametrize(("nat", "words"), [(True, "NAT: the public network"), (False, "nothing outside")])
async def test_what_a_guest_has_in_words(bridge, nat, words):
    assert bridge.explain(nat=nat).startswith("br-banger, ")
    assert words in bridge.explain(nat=nat)
