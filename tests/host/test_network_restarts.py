"""Daemon and helper come and go; guests and their network stay."""

from collections.abc import Iterator

import pytest
from tests.host.world import (
    BRIDGE_ADDRESS,
    FLOW,
    GATEWAY,
    HOST,
    INTERNET,
    LAN,
    LAN_HOST,
    PORT,
    World,
    kill,
    reached,
    wait_until,
)
from tests.support.banger import refused

ALLOWANCES = f'allow_networks = ["192.168.77.0/24"]\nallow_host_ports = [{PORT}]\nallow_guests = true\n'


@pytest.fixture
def flow(guests: World) -> Iterator[World]:
    """A connection from `a` through NAT to the outside that must outlive whatever happens."""
    user = guests.user
    unit = ("systemd-run", "--quiet", "--collect", "--unit=flow", "python3", "-c", FLOW, INTERNET, str(PORT))
    user.guest("a", *unit)
    yield guests
    user.guest("a", "sleep", "2.5")  # the flow gives up 2 s after it was cut
    assert (
        user.guest("a", "systemctl", "show", "--property=ActiveState", "flow").strip() == "ActiveState=active"
    )
    user.guest("a", "systemctl", "stop", "flow")


def identities(world: World) -> dict[str, tuple[str, ...]]:
    return {
        name: (world.user.boot_id(name), vm["address"], vm["runtime"]["tap"], str(vm["runtime"]["pid"]))
        for name in ("a", "b")
        for vm in [world.user.vm(name)]
    }


def prove_network(world: World) -> None:
    """NAT of one and none of the other, names, a new guest beside them."""
    user = world.user
    target = f"tcp:{INTERNET}:{PORT}"
    assert user.probe("a", target)[target] == f"outside sees {HOST}"
    assert reached(user.probe("b", target)) == {}
    assert user.call("dig", f"@{BRIDGE_ADDRESS}", "+short", "b.vm").stdout.strip() == user.address("b")
    user.create("c", "--nat")
    assert user.address("c") not in {user.address("a"), user.address("b")}
    assert user.probe("c", target)[target] == f"outside sees {HOST}"
    user.delete("c")


@pytest.mark.parametrize("victims", ["daemon", "helper", "both"])
def test_who_is_killed_is_followed_by_one_that_takes_over(flow: World, victims: str):
    world, user = flow, flow.user
    before = identities(world)
    if victims != "helper":
        user.kill_daemon()
    if victims != "daemon":
        world.helper.kill()
        world.helper.start()
    assert identities(world) == before
    prove_network(world)


def test_a_ruleset_that_somebody_flushes_comes_back(guests: World):
    """`systemctl restart nftables` does that; nobody starts a VM or changes one meanwhile."""
    user, target = guests.user, f"tcp:{INTERNET}:{PORT}"
    before = guests.traces()
    guests.host.run("nft", "flush", "ruleset")
    guests.wait_traces(before)
    assert user.probe("a", target)[target] == f"outside sees {HOST}"
    assert reached(user.probe("b", target)) == {}


def test_without_the_helper_guests_go_on_and_changes_are_refused_with_a_hint(flow: World):
    world, user = flow, flow.user
    world.helper.kill()
    try:
        refused(user, "vm", "set", "--nat", "b", status=69, words="helper", hint="hint: sudo banger system")
        assert user.vm("b")["spec"]["nat"] is False
        target = f"tcp:{INTERNET}:{PORT}"
        assert user.probe("a", target)[target] == f"outside sees {HOST}"
        assert [vm["state"] for vm in user.json("vm", "list")["vms"]] == ["running", "running"]
    finally:
        world.helper.start()
    user.run("vm", "set", "--nat", "b")
    user.run("vm", "set", "--no-nat", "b")


def test_published_ports_survive_the_daemon(guests: World):
    user = guests.user
    user.run("vm", "publish", "b", f"19001:{PORT}")
    kill(user.daemon_pid())
    user.run("daemon", "start")
    target = "tcp:127.0.0.1:19001"
    wait_until(lambda: "b sees" in guests.probe(guests.host, target)[target], "the port leads to b again")
    user.run("vm", "unpublish", "b", f"19001:{PORT}")
    assert reached(guests.probe(guests.host, target)) == {}


def test_what_the_owner_allows_holds_for_guests_that_run_already(guests: World):
    user = guests.user
    a, b = user.address("a"), user.address("b")
    targets = [f"tcp:{address}:{PORT}" for address in (LAN, GATEWAY, BRIDGE_ADDRESS, LAN_HOST)]
    user.configure(ALLOWANCES)
    user.kill_daemon()
    try:
        allowed = {
            f"tcp:{LAN}:{PORT}": f"outside sees {LAN_HOST}",
            f"tcp:{BRIDGE_ADDRESS}:{PORT}": f"host sees {a}",
            f"tcp:{b}:{PORT}": f"b sees {a}",
        }
        wait_until(
            lambda: reached(user.probe("a", *targets, f"tcp:{b}:{PORT}")) == allowed, "a reaches what it may"
        )
        assert set(reached(user.probe("b", *targets))) == {f"tcp:{BRIDGE_ADDRESS}:{PORT}"}, "no NAT, no LAN"
    finally:
        user.configure("")
        user.kill_daemon()
        user.run("daemon", "start")
    wait_until(
        lambda: reached(user.probe("a", *targets, f"tcp:{b}:{PORT}")) == {}, "a reaches none of it any more"
    )
