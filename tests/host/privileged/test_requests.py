"""Each request against a real kernel: it works, it can be repeated, and what is refused changes nothing."""

import fcntl
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.host.privileged.conftest import ADDRESS, BRIDGE, PRIVATE, Root, guest_of
from tests.host.privileged.places import Place

from banger.privileged.contract import base
from banger.privileged.contract.network import (
    AdmitGuest,
    ApplyGuests,
    CreateTaps,
    DeleteTaps,
    EnsureBridge,
    InspectHost,
    ListRoutes,
    ListTaps,
    OpenDns,
    RemoveBridge,
    RouteNames,
    UnrouteNames,
)
from banger.privileged.contract.processes import Hello, SignalVmm
from banger.privileged.contract.values import Policy, Refusal
from banger.privileged.helper.handlers import Handlers

TUNGETIFF = 0x800454D2


def links(host: Place) -> dict[str, dict]:
    return {link["ifname"]: link for link in json.loads(host.run("ip", "-d", "-j", "address"))}


def refused(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        call()
    return refusal.value


class TestBridge:
    def test_it_has_its_address_and_nothing_of_ipv6(self, host: Place, root: Root) -> None:
        root.open_bridge()
        bridge = links(host)[BRIDGE]
        assert "UP" in bridge["flags"]
        assert [(each["local"], each["prefixlen"]) for each in bridge["addr_info"]] == [(ADDRESS, 24)]
        data = bridge["linkinfo"]["info_data"]
        assert (data["stp_state"], data["mcast_snooping"]) == (0, 0)
        assert bridge["address"] == "06:62:0a:d1:00:01"
        assert host.get_value(f"net/ipv6/conf/{BRIDGE}/disable_ipv6") == 1
        assert host.get_value(f"net/ipv4/conf/{BRIDGE}/route_localnet") == 1

    def test_its_mac_does_not_change_with_the_taps(self, host: Place, root: Root) -> None:
        root.open_bridge()
        for _, held in root.create_taps(8):
            os.close(held)
        assert links(host)[BRIDGE]["address"] == "06:62:0a:d1:00:01"

    def test_ensuring_it_again_changes_nothing(self, host: Place, root: Root) -> None:
        root.open_bridge()
        before = host.traces()
        root.open_bridge()
        assert host.traces() == before
        (_, held) = root.create_taps(1)[0]
        root.open_bridge()
        os.close(held)

    def test_what_was_lost_is_made_anew(self, host: Place, root: Root) -> None:
        root.open_bridge()
        before = host.traces()
        host.run("nft", "flush", "ruleset")
        root.open_bridge()
        assert host.traces() == before
        host.run("nft", "delete", "table", "bridge", "banger")
        host.run("ip", "link", "set", BRIDGE, "down")
        root.open_bridge()
        assert host.traces() == before

    @pytest.mark.parametrize(
        ("name", "address"), [("br-banger2", "10.209.0.1/24"), (BRIDGE, "10.210.0.1/20")]
    )
    def test_another_name_or_address_replaces_it_unless_it_has_taps(
        self, host: Place, root: Root, name: str, address: str
    ) -> None:
        root.open_bridge()
        ((_, held),) = root.create_taps(1)
        before = host.traces()
        refusal = refused(lambda: root(EnsureBridge(bridge=name, address=address)))
        assert (refusal.code, refusal.hint) == ("conflict", "banger vm list, then: banger vm stop NAME")
        assert "it has 1 taps" in refusal.message
        assert host.traces() == before
        os.close(held)
        root(EnsureBridge(bridge=name, address=address))
        bridges = {key: link for key, link in links(host).items() if key.startswith("br-")}
        assert list(bridges) == [name]
        assert bridges[name]["addr_info"][0]["local"] == address.split("/", maxsplit=1)[0]
        assert f'iifname "{name}"' in host.run("nft", "list", "ruleset")

    @pytest.mark.parametrize(
        "route", ["10.209.0.0/24", "10.209.0.128/25", "10.208.0.0/14", "10.0.0.0/8", "10.209.0.9/32"]
    )
    @pytest.mark.parametrize("table", ["main", "77"])
    def test_a_route_of_the_host_is_a_conflict(self, host: Place, root: Root, route: str, table: str) -> None:
        host.add_link("vpn0")
        host.run("ip", "route", "add", route, "dev", "vpn0", "table", table)
        before = host.traces()
        refusal = refused(root.open_bridge)
        assert refusal.code == "conflict"
        assert refusal.message == f"10.209.0.0/24 overlaps {route}, which this host reaches by vpn0"
        assert refusal.hint.startswith("set bridge_cidr in config.toml")
        assert host.traces() == before

    def test_default_routes_are_no_conflict_however_they_are_written(self, host: Place, root: Root) -> None:
        host.add_link("up0")
        host.run("ip", "address", "add", "192.0.2.1/24", "dev", "up0")
        for route in ("default", "0.0.0.0/1", "128.0.0.0/1"):
            host.run("ip", "route", "add", route, "via", "192.0.2.2")
        host.run("ip", "route", "add", "blackhole", "10.0.0.0/8")
        root.open_bridge()
        told = root(ListRoutes()).routes
        assert {(route.destination, route.device, route.gateway) for route in told} == {
            ("0.0.0.0/0", "up0", "192.0.2.2"),
            ("0.0.0.0/1", "up0", "192.0.2.2"),
            ("128.0.0.0/1", "up0", "192.0.2.2"),
            ("192.0.2.0/24", "up0", ""),
        }

    def test_a_route_that_comes_later_does_not_take_the_bridge_from_its_guests(
        self, host: Place, root: Root
    ) -> None:
        root.open_bridge()
        ((_, held),) = root.create_taps(1)
        host.add_link("vpn0")
        host.run("ip", "route", "add", "10.0.0.0/8", "dev", "vpn0")
        root.open_bridge()
        os.close(held)
        assert refused(root.open_bridge).code == "conflict"

    def test_something_else_of_its_name_is_left_alone(self, host: Place, root: Root) -> None:
        host.add_link(BRIDGE)
        before = host.traces()
        for call in (root.open_bridge, lambda: root(RemoveBridge(bridge=BRIDGE))):
            refusal = refused(call)
            assert (refusal.code, refusal.message) == ("conflict", "br-banger is a veth, not a bridge")
        assert refused(lambda: root(CreateTaps(bridge=BRIDGE, count=1))).code == "not_found"
        assert host.traces() == before

    def test_removing_leaves_nothing_and_can_be_repeated(self, host: Place, root: Root) -> None:
        before = host.traces()
        root.open_bridge()
        ((_, held),) = root.create_taps(1)
        assert refused(lambda: root(RemoveBridge(bridge=BRIDGE))).code == "conflict"
        os.close(held)
        root(RemoveBridge(bridge="br-bangerx"))
        assert BRIDGE in links(host)
        for _ in range(2):
            root(RemoveBridge(bridge=BRIDGE))
            assert host.traces() == before

    def test_what_fails_half_way_leaves_nothing(
        self, host: Place, root: Root, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(30, "Read-only file system", "disable_ipv6")

        before = host.traces()
        monkeypatch.setattr("banger.privileged.helper.bridge.disable_ipv6", fail)
        assert refused(root.open_bridge).code == "unavailable"
        assert host.traces() == before


class TestTaps:
    def test_each_is_on_the_bridge_down_and_isolated(self, host: Place, root: Root) -> None:
        root.open_bridge()
        taps = root.create_taps(3)
        for name, held in taps:
            link = links(host)[name]
            assert "UP" not in link["flags"]
            assert link["master"] == BRIDGE
            assert link["linkinfo"]["info_data"] == {
                "type": "tap",
                "pi": False,
                "vnet_hdr": True,
                "multi_queue": False,
                "persist": False,
            }
            assert link["linkinfo"]["info_slave_data"]["isolated"] is True
            assert fcntl.ioctl(held, TUNGETIFF, bytes(40))[:12].decode() == name
            assert os.get_inheritable(held) is False
            assert host.get_value(f"net/ipv6/conf/{name}/disable_ipv6") == 1
        told = root(ListTaps(bridge=BRIDGE)).taps
        assert [(tap.name, tap.up) for tap in told] == sorted((name, False) for name, _ in taps)
        for _, held in taps:
            os.close(held)
        assert root(ListTaps(bridge=BRIDGE)).taps == ()

    def test_without_the_bridge_there_are_none(self, root: Root) -> None:
        assert root(ListTaps(bridge=BRIDGE)).taps == ()
        refusal = refused(lambda: root(CreateTaps(bridge=BRIDGE, count=1)))
        assert (refusal.code, refusal.message) == ("not_found", "there is no bridge br-banger")

    @pytest.mark.parametrize("count", [1, 3, 4, 64])
    def test_deleting_takes_those_and_no_others(self, host: Place, root: Root, count: int) -> None:
        root.open_bridge()
        taps = root.create_taps(count) if count < 64 else root.create_taps(60) + root.create_taps(4)
        ((kept, _),) = others = root.create_taps(1)
        host.add_link("bng-00000000")
        names = (*(name for name, _ in taps), "bng-00000000", "bng-ffffffff")
        for _ in range(2):
            root(DeleteTaps(taps=names))
            left = {name for name in links(host) if not name.startswith("peer")}
            assert left == {"lo", BRIDGE, kept, "bng-00000000"}
        assert links(host)[kept]["group"] == "default"
        for _, held in taps + others:
            os.close(held)

    def test_a_full_bridge_says_so_and_keeps_none_of_the_batch(self, host: Place, root: Root) -> None:
        root.open_bridge()
        taps = [tap for _ in range(15) for tap in root.create_taps(64)]
        assert len(taps) == 960
        refusal = refused(lambda: root.create_taps(64))
        assert (refusal.code, refusal.message) == ("unavailable", "br-banger has no room for 64 more taps")
        assert len(root(ListTaps(bridge=BRIDGE)).taps) == 960
        root(DeleteTaps(taps=tuple(name for name, _ in taps)))
        assert root(ListTaps(bridge=BRIDGE)).taps == ()
        for _, held in taps:
            os.close(held)


class TestGuests:
    def test_an_admission_and_a_release_leave_no_trace(self, host: Place, root: Root) -> None:
        root.open_bridge(Policy(denied=PRIVATE))
        ((tap, held),) = root.create_taps(1)
        guest = guest_of(tap, 2, nat=True)
        before = host.traces()
        for _ in range(2):
            root.admit(guest)
        assert "UP" in links(host)[tap]["flags"]
        ruleset = host.run("nft", "list", "ruleset")
        assert f'"{tap}" . {guest.mac} . {guest.address}' in ruleset
        assert [tap.up for tap in root(ListTaps(bridge=BRIDGE)).taps] == [True]
        for _ in range(2):
            root.release(guest)
            assert host.traces() == before
        os.close(held)
        root.release(guest)

    def test_two_hundred_leave_no_trace(self, host: Place, root: Root) -> None:
        root.open_bridge(Policy(denied=PRIVATE))
        before = host.traces()
        for number in range(2, 202):
            ((tap, held),) = root.create_taps(1)
            guest = guest_of(tap, number, nat=number % 2 == 0)
            root.admit(guest)
            root.release(guest)
            if number % 3:
                root(DeleteTaps(taps=(tap,)))
            os.close(held)
        assert host.traces() == before

    def test_two_hundred_at_once_leave_no_trace(self, host: Place, root: Root) -> None:
        root.open_bridge(Policy(denied=PRIVATE))
        before = host.traces()
        taps = [tap for _ in range(4) for tap in root.create_taps(50)]
        guests = [guest_of(tap, number, nat=True) for number, (tap, _) in enumerate(taps, start=2)]
        for guest in guests:
            root.admit(guest)
        assert host.run("nft", "list", "set", "inet", "banger", "nat").count("10.209.0.") == 200
        for guest in guests:
            root.release(guest)
        root(DeleteTaps(taps=tuple(name for name, _ in taps)))
        for _, held in taps:
            os.close(held)
        assert host.traces() == before

    @pytest.mark.parametrize("address", [ADDRESS, "10.209.0.0", "10.209.0.255", "10.209.1.2", "192.168.0.2"])
    def test_only_addresses_of_the_subnet_are_guests(self, host: Place, root: Root, address: str) -> None:
        root.open_bridge()
        ((tap, held),) = root.create_taps(1)
        guest = guest_of(tap, 2)
        wrong = type(guest)(tap=tap, mac=guest.mac, address=address, nat=False)
        before = host.traces()
        for request in (
            AdmitGuest(bridge=BRIDGE, guest=wrong),
            ApplyGuests(bridge=BRIDGE, policy=Policy(), guests=(wrong,)),
        ):
            refusal = refused(lambda request=request: root(request))
            assert refusal.code == "bad_request"
            assert refusal.message == f"{address} is not a guest's address in 10.209.0.0/24"
        assert host.traces() == before
        os.close(held)

    def test_the_bridges_mac_is_nobody_elses(self, root: Root) -> None:
        root.open_bridge()
        ((tap, held),) = root.create_taps(1)
        guest = guest_of(tap, 2)
        thief = type(guest)(tap=tap, mac="06:62:0a:d1:00:01", address=guest.address, nat=False)
        assert "own MAC" in refused(lambda: root.admit(thief)).message
        os.close(held)

    def test_only_a_tap_on_the_bridge_is_admitted(self, host: Place, root: Root) -> None:
        root.open_bridge()
        ((tap, held),) = root.create_taps(1)
        host.run("ip", "link", "set", tap, "nomaster")
        host.add_link("bng-00000000")
        host.run("ip", "link", "set", "bng-00000000", "master", BRIDGE)
        before = host.traces()
        for name in (tap, "bng-00000000", "bng-ffffffff"):
            refusal = refused(lambda name=name: root.admit(guest_of(name, 2)))
            assert (refusal.code, refusal.message) == ("not_found", f"there is no tap {name} on br-banger")
        root.release(guest_of("bng-00000000", 2))
        assert host.traces() == before
        os.close(held)

    def test_without_tables_nobody_is_admitted(self, host: Place, root: Root) -> None:
        root.open_bridge()
        ((tap, held),) = root.create_taps(1)
        host.run("nft", "flush", "ruleset")
        refusal = refused(lambda: root.admit(guest_of(tap, 2)))
        assert (refusal.code, refusal.hint) == ("not_found", "banger doctor")
        assert "flushed" in refusal.message
        assert "UP" not in links(host)[tap]["flags"]
        root.release(guest_of(tap, 2))
        os.close(held)

    def test_a_tap_that_vanishes_meanwhile_leaves_no_element(
        self, host: Place, root: Root, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def vanish(*_: object, **__: object) -> None:
            raise OSError(19, "No such device")

        root.open_bridge()
        ((tap, held),) = root.create_taps(1)
        before = host.traces()
        monkeypatch.setattr("banger.privileged.helper.netlink.Netlink.set_up", vanish)
        assert refused(lambda: root.admit(guest_of(tap, 2, nat=True))).code == "not_found"
        assert host.traces() == before
        os.close(held)

    def test_applying_makes_the_tables_anew(self, host: Place, root: Root) -> None:
        root.open_bridge()
        ((tap, held), (other, also_held)) = root.create_taps(2)
        root.admit(guest_of(tap, 2, nat=True))
        policy = Policy(
            denied=(*PRIVATE, "10.1.0.0/16"), allowed=("10.1.0.0/24",), host_ports=(8000,), guests=True
        )
        for _ in range(2):
            root(ApplyGuests(bridge=BRIDGE, policy=policy, guests=(guest_of(other, 3, nat=True),)))
        ruleset = host.run("nft", "list", "ruleset")
        assert tap not in ruleset
        assert f'"{other}" . 02:00:00:00:00:03 . 10.209.0.3' in ruleset
        assert links(host)[other]["linkinfo"]["info_slave_data"]["isolated"] is False
        ((third, third_held),) = root.create_taps(1)
        assert links(host)[third]["linkinfo"]["info_slave_data"]["isolated"] is False
        root(ApplyGuests(bridge=BRIDGE, policy=Policy(), guests=()))
        assert links(host)[third]["linkinfo"]["info_slave_data"]["isolated"] is True
        for descriptor in (held, also_held, third_held):
            os.close(descriptor)


class TestAbandoned:
    def test_everything_goes_when_there_is_no_tap(self, host: Place, root: Root) -> None:
        before = host.traces()
        assert root.handlers.release_abandoned() is True
        root.open_bridge()
        assert root.handlers.release_abandoned() is True
        assert host.traces() == before
        assert root.handlers.release_abandoned() is True

    def test_what_a_vm_uses_stays(self, host: Place, root: Root) -> None:
        root.open_bridge(Policy(denied=PRIVATE))
        ((tap, held), (gone, gone_held)) = root.create_taps(2)
        guest = guest_of(tap, 2, nat=True)
        root.admit(guest)
        before = host.traces()
        root.admit(guest_of(gone, 3, nat=True))
        os.close(gone_held)
        assert root.handlers.release_abandoned() is False
        after = host.traces()
        assert after[1] == before[1]
        assert gone not in after[0]
        assert root.handlers.release_abandoned() is False
        os.close(held)
        assert root.handlers.release_abandoned() is True
        assert set(links(host)) == {"lo"}

    def test_tables_without_a_bridge_go_and_what_only_has_the_name_stays(
        self, host: Place, root: Root
    ) -> None:
        host.add_link(f"{BRIDGE}x")
        before = host.traces()
        for table in ("bridge", "inet"):
            host.run("nft", "add", "table", table, "banger")
        assert root.handlers.release_abandoned() is True
        assert host.traces() == before

    def test_flushed_tables_are_no_obstacle(self, host: Place, root: Root) -> None:
        root.open_bridge()
        ((_, held),) = root.create_taps(1)
        host.run("nft", "flush", "ruleset")
        assert root.handlers.release_abandoned() is False
        os.close(held)
        assert root.handlers.release_abandoned() is True

    def test_a_helper_that_is_started_anew_knows_what_is_there(self, host: Place, root: Root) -> None:
        root.open_bridge(Policy(denied=PRIVATE))
        ((tap, held),) = root.create_taps(1)
        root.admit(guest_of(tap, 2, nat=True))
        anew = Root(Handlers(owner=0, build="anew"))
        before = host.traces()
        anew.open_bridge()
        assert host.traces() == before
        assert [each.name for each in anew(ListTaps(bridge=BRIDGE)).taps] == [tap]
        os.close(held)
        assert anew.handlers.release_abandoned() is True
        anew.handlers.close()


class TestMissing:
    """What this host lacks is said with the command that helps, and nothing has been changed."""

    def test_tun(self, host: Place, root: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        root.open_bridge()
        before = host.traces()
        monkeypatch.setattr("banger.privileged.helper.tap.Root.TUN._value_", str(tmp_path))
        refusal = refused(lambda: root.create_taps(2))
        assert (refusal.code, refusal.message, refusal.hint) == (
            "unavailable",
            "this host has no TUN device",
            "sudo modprobe tun",
        )
        assert host.traces() == before
        assert refused(lambda: root.open_bridge(address="10.210.0.1/24")).message == refusal.message
        assert host.traces() == before

    def test_nftables(self, host: Place, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
        before = host.traces()
        monkeypatch.setattr("banger.privileged.helper.nftables.LIBRARY", "libnothing.so.1")
        monkeypatch.setattr("banger.privileged.helper.nftables.PROGRAM", "nothing")
        refusal = refused(root.open_bridge)
        assert (refusal.code, refusal.message, refusal.hint) == (
            "unavailable",
            "nftables is not installed",
            "sudo apt-get install nftables",
        )
        assert host.traces() == before
        state = root(InspectHost())
        assert (state.nft, state.drops) == ("", ())
        root(RemoveBridge(bridge=BRIDGE))
        assert root.handlers.release_abandoned() is True

    def test_the_library_but_not_the_program(
        self, host: Place, root: Root, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("banger.privileged.helper.nftables.LIBRARY", "libnothing.so.1")
        TestGuests().test_an_admission_and_a_release_leave_no_trace(host, root)
        assert root(InspectHost()).nft != ""
        TestGuests().test_without_tables_nobody_is_admitted(host, root)

    def test_forwarding(self, host: Place, root: Root) -> None:
        root.open_bridge()
        ((tap, held),) = root.create_taps(1)
        host.set_value("net/ipv4/ip_forward", 0)
        before = host.traces()
        refusal = refused(lambda: root.admit(guest_of(tap, 2, nat=True)))
        assert (refusal.code, refusal.hint) == ("unavailable", "sudo sysctl -w net.ipv4.ip_forward=1")
        assert host.traces() == before
        root.admit(guest_of(tap, 2))
        assert host.get_value("net/ipv4/ip_forward") == 0
        os.close(held)

    def test_capabilities(self, host: Place) -> None:
        code = (
            "from banger.privileged.helper.handlers import Handlers\n"
            "from banger.privileged.contract.requests import *\n"
            "from banger.privileged.contract.values import Refusal\n"
            "try: Handlers(0, '').handle(EnsureBridge(bridge='br-banger', address='10.209.0.1/24'), ())\n"
            "except Refusal as refusal: print(refusal.code, refusal.message)"
        )
        before = host.traces()
        argv = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", code)
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert said.startswith("unavailable ")
        assert "not permitted" in said
        assert host.traces() == before


class TestNames:
    def test_without_resolved_names_are_unavailable(self, root: Root) -> None:
        root.open_bridge()
        refusal = refused(lambda: root(RouteNames(bridge=BRIDGE, zone="vm")))
        assert (refusal.code, refusal.message) == ("unavailable", "this host has no systemd-resolved")
        root(UnrouteNames(bridge=BRIDGE))
        assert root(InspectHost()).resolved is False

    def test_dns_sockets_are_bound_to_the_bridge(self, root: Root) -> None:
        root.open_bridge()
        reply = root.handlers.handle(OpenDns(bridge=BRIDGE), ())
        udp, tcp = (socket.socket(fileno=held) for held in reply.descriptors)
        with udp, tcp:
            assert (udp.type, udp.getsockname()) == (socket.SOCK_DGRAM, (ADDRESS, 53))
            assert (tcp.type, tcp.getsockname()) == (socket.SOCK_STREAM, (ADDRESS, 53))
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            refusal = refused(lambda: root(OpenDns(bridge=BRIDGE)))
            assert (refusal.code, refusal.message) == (
                "conflict",
                "port 53 of 10.209.0.1 is taken by another name server",
            )
        for held in root.handlers.handle(OpenDns(bridge=BRIDGE), ()).descriptors:
            os.close(held)

    def test_without_the_bridge_there_is_no_dns(self, root: Root) -> None:
        assert refused(lambda: root(OpenDns(bridge=BRIDGE))).code == "not_found"


class TestHost:
    def test_hello(self, root: Root) -> None:
        greeting = root(Hello())
        assert (greeting.version, greeting.build, greeting.pid, greeting.owner) == (
            base.VERSION,
            "test",
            os.getpid(),
            0,
        )

    def test_its_state_is_told_and_not_changed(self, host: Place, root: Root) -> None:
        before = host.traces()
        state = root(InspectHost())
        assert (state.ip_forward, state.resolved, state.drops) == (True, False, ())
        assert state.nft.split(".")[0] == "1"
        host.set_value("net/ipv4/ip_forward", 0)
        assert root(InspectHost()).ip_forward is False
        assert host.traces() == before

    def test_forwarding_that_others_drop_is_told_with_who_does(self, host: Place, root: Root) -> None:
        root.open_bridge()
        host.run("nft", "-f", "-", stdin=_OTHERS)
        drops = root(InspectHost()).drops
        assert {(drop.family, drop.table, drop.chain, drop.owner) for drop in drops} == {
            ("ip", "filter", "FORWARD", "docker"),
            ("inet", "uncomplicated", "ufw-forward-base", "ufw"),
            ("inet", "firewalld", "filter_FORWARD", "firewalld"),
            ("inet", "mine", "forward", "unknown"),
        }


_OTHERS = """
table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; chain DOCKER-USER { }; }
table inet uncomplicated { chain ufw-forward-base { type filter hook forward priority 0; policy drop; }; }
table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept;
  ct state established accept
  reject with icmpx admin-prohibited
}; chain filter_FORWARD_POST { type filter hook forward priority 11; policy accept; iifname "x" drop; }; }
table inet mine { chain forward { type filter hook forward priority 0; policy drop; };
  chain input { type filter hook input priority 0; policy drop; }; }
table inet kind { chain forward { type filter hook forward priority 0; policy accept; }; }
table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }
"""


class TestSignals:
    def test_a_process_of_the_owners_is_signalled(self, root: Root) -> None:
        with subprocess.Popen(("sleep", "60")) as process:
            root(SignalVmm(pid=process.pid, start_time=_start_time(process.pid), signal=signal.SIGKILL))
            assert process.wait(10) == -signal.SIGKILL

    def test_a_process_that_is_gone_is_no_error(self, root: Root) -> None:
        with subprocess.Popen(("true",)) as process:
            start_time = _start_time(process.pid)
        root(SignalVmm(pid=process.pid, start_time=start_time, signal=signal.SIGKILL))

    def test_a_pid_that_was_reused_is_refused(self, root: Root) -> None:
        with subprocess.Popen(("sleep", "60")) as process:
            for start_time in (1, _start_time(process.pid) + 1):
                request = SignalVmm(pid=process.pid, start_time=start_time, signal=signal.SIGKILL)
                assert refused(lambda request=request: root(request)).code == "unauthorized"
            assert process.poll() is None
            process.kill()

    def test_somebody_elses_process_is_refused(self) -> None:
        handlers = Handlers(owner=65534, build="")
        with subprocess.Popen(("sleep", "60")) as process:
            request = SignalVmm(pid=process.pid, start_time=_start_time(process.pid), signal=signal.SIGKILL)
            assert refused(lambda: handlers.handle(request, ())).code == "unauthorized"
            assert process.poll() is None
            process.kill()
        with subprocess.Popen(("sleep", "60"), user=65534) as process:
            request = SignalVmm(pid=process.pid, start_time=_start_time(process.pid), signal=signal.SIGTERM)
            handlers.handle(request, ())
            assert process.wait(10) == -signal.SIGTERM


def test_every_guests_mac_differs_from_every_bridges() -> None:
    from banger.network.bridge import BridgePlan
    from banger.privileged.helper.bridge import derive_mac

    plan = BridgePlan("br-banger", ipaddress.IPv4Interface(f"{ADDRESS}/24"))
    assert derive_mac(plan.interface.ip)[:2] != plan.derive_mac("10.209.0.2")[:2]


def _start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
