"""The address plan of the bridge: which address is whose, which subnet is free, what NAT does not reach."""

from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Code, Outcome, Problem
from banger.model.network import parse_bridge_cidr
from banger.network.bridge import METADATA, PRIVATE, BridgePlan, check_overlap, list_denied, suggest_cidr


class Route(NamedTuple):
    destination: str
    device: str = "eth0"
    gateway: str = ""


DEFAULT_ROUTE = Route("0.0.0.0/0", gateway="192.0.2.1")


def make_plan(cidr="10.209.0.1/24"):
    return BridgePlan("br-banger", parse_bridge_cidr(cidr))


def fill(plan):
    """Addresses until there are none."""
    used = []
    with pytest.raises(Problem) as caught:
        while True:
            used.append(plan.choose_address(used))
    return used, caught.value


def test_addresses_are_given_in_sequence_after_the_host():
    used = []
    for _ in range(4):
        used.append(make_plan().choose_address(used))
    assert used == ["10.209.0.2", "10.209.0.3", "10.209.0.4", "10.209.0.5"]


def test_the_lowest_free_address_is_given_again():
    used = {"10.209.0.2", "10.209.0.4", "10.209.0.5"}
    assert make_plan().choose_address(used) == "10.209.0.3"


def test_addresses_of_another_subnet_are_in_nobodys_way():
    assert make_plan().choose_address({"10.8.0.2", ""}) == "10.209.0.2"


def test_the_host_is_left_out_wherever_it_is():
    plan = make_plan("10.209.0.3/29")
    used, _ = fill(plan)
    assert used == ["10.209.0.1", "10.209.0.2", "10.209.0.4", "10.209.0.5", "10.209.0.6"]


def test_the_smallest_subnet_has_room_for_five_and_says_when_it_is_full():
    used, problem = fill(make_plan("10.209.0.1/29"))
    assert used == [f"10.209.0.{number}" for number in (2, 3, 4, 5, 6)]
    assert (problem.code, problem.outcome) == (Code.NO_SPACE, Outcome.NOT_STARTED)
    assert "10.209.0.0/29" in problem.brief
    assert "bridge_cidr" in problem.hint


def test_a_slash_24_has_room_for_253():
    used, _ = fill(make_plan())
    assert len(set(used)) == 253
    assert {"10.209.0.0", "10.209.0.1", "10.209.0.255"}.isdisjoint(used)


@pytest.mark.parametrize(
    ("cidr", "address", "owned"),
    [
        ("10.209.0.1/24", "10.209.0.2", True),
        ("10.209.0.1/24", "10.209.0.254", True),
        ("10.209.0.1/24", "10.209.0.1", False),
        ("10.209.0.1/24", "10.209.0.0", False),
        ("10.209.0.1/24", "10.209.0.255", False),
        ("10.209.0.1/24", "10.209.1.2", False),
        ("10.209.0.1/24", "", False),
        ("10.209.0.129/25", "10.209.0.128", False),  # the network's own now, a guest's before
        ("10.209.0.1/25", "10.209.0.127", False),
        ("10.209.0.1/16", "10.209.0.255", True),
    ],
)
def test_an_address_is_kept_only_where_a_guest_may_have_it(cidr, address, owned):
    assert make_plan(cidr).owns(address) is owned


@given(st.integers(16, 29), st.data())
def test_what_is_chosen_is_owned_and_new(length, data):
    network = IPv4Network((0x0A000000, length))
    offset = data.draw(st.integers(1, network.num_addresses - 2))
    plan = make_plan(f"{network[offset]}/{length}")
    used = data.draw(
        st.sets(st.integers(1, min(network.num_addresses - 2, 40)).map(lambda n: str(network[n])))
    )
    try:
        chosen = plan.choose_address(used)
    except Problem:
        assert len(used | {plan.host}) == network.num_addresses - 2
        return
    assert plan.owns(chosen)
    assert chosen not in used
    lower = (network[number] for number in range(1, int(IPv4Address(chosen)) - int(network[0])))
    assert all(str(address) in used or str(address) == plan.host for address in lower)


def test_the_plan_says_what_the_guest_is_told():
    plan = make_plan("10.209.8.1/21")
    assert (plan.host, plan.cidr, plan.prefix_length) == ("10.209.8.1", "10.209.8.1/21", 21)


@pytest.mark.parametrize("destination", ["10.209.0.0/24", "10.0.0.0/8", "10.209.0.128/25", "10.209.0.77/32"])
def test_a_route_into_the_subnet_is_a_conflict_that_names_it_and_a_way_out(destination):
    with pytest.raises(Problem) as caught:
        check_overlap(make_plan(), [DEFAULT_ROUTE, Route(destination, "wg0")])
    problem = caught.value
    assert (problem.code, problem.outcome) == (Code.CONFLICT, Outcome.NOT_STARTED)
    assert destination in problem.brief
    assert "wg0" in problem.brief
    assert "bridge_cidr" in problem.hint


def test_addresses_are_handed_out_in_turn():
    plan = make_plan("10.209.0.1/29")
    assert [plan.choose_address(set(), after) for after in ("", "10.209.0.2", "10.209.0.5", "10.209.0.6")] == [
        "10.209.0.2", "10.209.0.3", "10.209.0.6", "10.209.0.2",
    ]  # fmt: skip
    assert plan.choose_address({"10.209.0.6", "10.209.0.2"}, "10.209.0.5") == "10.209.0.3"
    assert plan.choose_address(set(), "192.168.0.7") == "10.209.0.2"  # another subnet's


def test_a_route_by_a_gateway_is_in_the_way_as_well():
    with pytest.raises(Problem, match="overlaps"):
        check_overlap(make_plan(), [Route("10.209.0.0/16", "eth0", gateway="192.0.2.1")])


def test_the_default_route_the_own_bridge_and_neighbours_are_no_obstacle():
    routes = [
        DEFAULT_ROUTE,
        Route("0.0.0.0/1", "tun0"),  # how VPNs write it
        Route("10.209.0.0/24", "br-banger"),
        Route("10.209.1.0/24"),
        Route("10.208.255.0/24"),
        Route("192.0.2.0/24"),
    ]
    check_overlap(make_plan(), routes)


def test_what_is_suggested_is_the_first_free_subnet_and_can_be_configured():
    routes = [DEFAULT_ROUTE, Route("10.209.0.0/24"), Route("10.210.0.0/15")]
    assert suggest_cidr(routes) == "10.212.0.1/24"
    with pytest.raises(Problem) as caught:
        check_overlap(make_plan(), routes)
    assert 'bridge_cidr = "10.212.0.1/24"' in caught.value.hint
    check_overlap(make_plan("10.212.0.1/24"), routes)
    assert suggest_cidr([]) == "10.209.0.1/24"


def test_where_all_of_10_is_taken_another_private_range_is_suggested():
    assert suggest_cidr([Route("10.0.0.0/8", "vpn0")]) == "172.31.209.1/24"


def test_where_everything_private_is_taken_nothing_is_made_up():
    routes = [Route(private, "vpn0") for private in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    assert suggest_cidr(routes) == ""
    with pytest.raises(Problem) as caught:
        check_overlap(make_plan(), routes)
    assert caught.value.hint == "set bridge_cidr in config.toml"


def test_the_own_bridge_is_not_in_the_way_of_a_suggestion():
    routes = [Route("10.209.0.0/24", "br-banger"), Route("10.209.0.0/25", "eth0")]
    with pytest.raises(Problem) as caught:
        check_overlap(make_plan(), routes)
    assert '"10.210.0.1/24"' in caught.value.hint


def test_nat_does_not_reach_private_networks_nor_what_is_on_the_hosts_own_links():
    routes = [
        DEFAULT_ROUTE,
        Route("192.0.2.0/30"),
        Route("198.51.100.0/24", "eth1"),
        Route("203.0.113.0/24", "eth0", gateway="192.0.2.1"),  # beyond a gateway: not ours to judge
        Route("192.168.77.0/24", "eth2"),  # covered already
        Route("10.209.0.0/24", "br-banger"),
    ]
    assert set(list_denied(make_plan(), routes)) == {*PRIVATE, *METADATA, "192.0.2.0/30", "198.51.100.0/24"}


def test_without_routes_the_private_networks_are_denied():
    assert set(list_denied(make_plan(), [])) == {*PRIVATE, *METADATA}


def test_a_default_route_on_a_link_denies_no_more_than_that():
    routes = [Route("0.0.0.0/0", "ppp0"), Route("0.0.0.0/1", "tun0"), Route("128.0.0.0/1", "tun0")]
    assert set(list_denied(make_plan(), routes)) == {*PRIVATE, *METADATA}


def test_denied_networks_do_not_overlap():
    """An interval set of nftables refuses overlaps."""
    routes = [Route("192.0.2.0/25"), Route("192.0.2.128/25", "eth1"), Route("192.0.2.7/32", "eth1")]
    denied = [IPv4Network(text) for text in list_denied(make_plan(), routes)]
    assert IPv4Network("192.0.2.0/24") in denied
    assert list(collapse_addresses(denied)) == sorted(denied)
    assert not any(one.overlaps(other) for one in denied for other in denied if one is not other)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "10.209.0.1", "192.168.0.1"],
)
def test_metadata_services_and_the_bridge_itself_are_denied(address):
    assert any(IPv4Address(address) in IPv4Network(text) for text in list_denied(make_plan(), []))
