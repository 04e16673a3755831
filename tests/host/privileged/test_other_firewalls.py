"""Other firewalls in front of ours: they cut guests off, the helper names them, and what the doctor advises works.

The chains are those of Docker, ufw and firewalld as nftables lists them. The advice for a ruleset of one's own is run
as it stands; that for a tool is run where the tool is installed, and in the form that it leaves in the kernel elsewhere.
"""

import shlex
import shutil
from typing import NamedTuple

import pytest
from tests.host.privileged.conftest import PRIVATE, World
from tests.host.privileged.places import QUICK_S, Place, try_tcp

from banger.privileged.contract import network
from banger.privileged.contract.network import ForwardDrop
from banger.privileged.contract.values import Policy
from banger.services.checks.forwarding import plan_passage

PUBLIC, PORT = "203.0.113.7", 8080

DOCKER = """
table ip filter {
  chain DOCKER-USER { counter return; }
  chain DOCKER { }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
    counter jump DOCKER-USER
    oifname "docker0" ct state related,established counter accept
    iifname "docker0" oifname != "docker0" counter accept
  }
}
"""
UFW = """
table ip filter {
  chain ufw-user-forward { }
  chain ufw-before-forward { ct state related,established accept; meta l4proto icmp accept; jump ufw-user-forward; }
  chain FORWARD { type filter hook forward priority filter; policy drop; jump ufw-before-forward; }
}
"""
FIREWALLD = """
table inet firewalld {
  chain filter_FWD_trusted { accept; }
  chain filter_FWD_public { reject with icmpx admin-prohibited; }
  chain filter_FORWARD_ZONES { goto filter_FWD_public; }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
}
"""
OWN = "table inet mine { chain fwd-all { type filter hook forward priority filter; policy drop; }; }"
PLAIN = "table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }"


class Firewall(NamedTuple):
    """`told` is what its tool makes of the advice."""

    ruleset: str
    drop: ForwardDrop
    told: tuple[str, ...] = ()


def inserted(chain: str, *, table: str = "ip filter") -> tuple[str, ...]:
    return tuple(
        f"insert rule {table} {chain} {side} br-banger counter accept" for side in ("iifname", "oifname")
    )


FIREWALLS = {
    "docker": Firewall(
        DOCKER,
        ForwardDrop(family="ip", table="filter", chain="FORWARD", owner="docker"),
        inserted("DOCKER-USER"),
    ),
    "ufw": Firewall(
        UFW,
        ForwardDrop(family="ip", table="filter", chain="FORWARD", owner="ufw"),
        inserted("ufw-user-forward"),
    ),
    "firewalld": Firewall(
        FIREWALLD,
        ForwardDrop(family="inet", table="firewalld", chain="filter_FORWARD", owner="firewalld"),
        ("insert rule inet firewalld filter_FORWARD_ZONES iifname br-banger goto filter_FWD_trusted",),
    ),
    "own": Firewall(OWN, ForwardDrop(family="inet", table="mine", chain="fwd-all", owner="unknown")),
    "plain": Firewall(
        PLAIN,
        ForwardDrop(family="ip", table="filter", chain="FORWARD", owner="unknown"),
        inserted("FORWARD"),
    ),
}


def follow_advice(host: Place, firewall: Firewall) -> None:
    commands = [shlex.split(command)[1:] for command in plan_passage(firewall.drop, "br-banger")]
    if all(
        command[0] == "nft" or (command[0] == "iptables" and shutil.which("iptables")) for command in commands
    ):
        for command in commands:
            host.run(*command)
    else:
        for rule in firewall.told:
            host.run("nft", rule)


@pytest.mark.parametrize("name", FIREWALLS)
def test_a_firewall_that_drops_is_named_until_the_advice_is_followed(world: World, name: str):
    firewall = FIREWALLS[name]
    world.root.open_bridge(Policy(denied=PRIVATE))
    _, guest = world.add_guest(nat=True)
    world.outside.run("ip", "route", "replace", "10.209.0.0/24", "via", "192.0.2.1")
    with world.outside.bound(PUBLIC, PORT), guest.place.bound("0.0.0.0", PORT):
        assert try_tcp(guest.place, PUBLIC, PORT) == "open"
        assert world.root(network.InspectHost()).drops == ()

        world.host.run("nft", "-f", "-", stdin=firewall.ruleset)
        assert try_tcp(guest.place, PUBLIC, PORT, timeout_s=QUICK_S) != "open"
        assert world.root(network.InspectHost()).drops == (firewall.drop,)

        follow_advice(world.host, firewall)
        assert try_tcp(guest.place, PUBLIC, PORT) == "open"
        assert world.root(network.InspectHost()).drops == ()
        assert try_tcp(world.outside, guest.address, PORT, timeout_s=QUICK_S) != "open", "ours still decides"


def test_one_direction_alone_is_no_way_through_docker(world: World):
    world.root.open_bridge(Policy(denied=PRIVATE))
    _, guest = world.add_guest(nat=True)
    world.host.run("nft", "-f", "-", stdin=DOCKER)
    world.host.run("nft", inserted("DOCKER-USER")[0])
    with world.outside.bound(PUBLIC, PORT):
        assert try_tcp(guest.place, PUBLIC, PORT, timeout_s=QUICK_S) == "silent"
    assert [drop.owner for drop in world.root(network.InspectHost()).drops] == ["docker"]


def test_looking_changes_nothing(world: World):
    world.root.open_bridge()
    for firewall in (DOCKER, FIREWALLD):
        world.host.run("nft", "-f", "-", stdin=firewall)
    before = world.host.run("nft", "-s", "list", "ruleset")
    world.root(network.InspectHost())
    assert world.host.run("nft", "-s", "list", "ruleset") == before
