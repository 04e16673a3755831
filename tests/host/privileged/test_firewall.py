"""What guests can and cannot do, with real packets through a real kernel."""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from tests.host.privileged.conftest import ADDRESS, BRIDGE, LAN, PRIVATE, Speaker, World
from tests.host.privileged.places import PATIENCE_S, QUICK_S, Place, try_ping, try_tcp
from tests.host.privileged.wire import (
    BROADCAST,
    arp,
    ethernet,
    udp4,
    udp6_all_nodes,
    vlan,
)

from banger.privileged.contract import network
from banger.privileged.contract.values import Policy
from banger.privileged.helper.bridge import derive_mac

PUBLIC = "203.0.113.7"
PORT = 8080
BRIDGE_MAC = derive_mac(IPv4Address(ADDRESS))
MARK, LAST = b"a frame of a guest's", b"an honest frame after it"
_ETH_P_ALL = 0x0003


@contextmanager
def listening(place: Place, interface: str) -> Iterator[socket.socket]:
    """Hears every frame that comes up at an interface."""
    with place.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as ear:
        ear.bind((interface, _ETH_P_ALL))
        yield ear


def hears_first(ear: socket.socket, *marks: bytes) -> bytes:
    """Which of the marks comes first."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        if select.select((ear,), (), (), left)[0]:
            frame = ear.recv(70000)
            for mark in marks:
                if mark in frame:
                    return mark
    raise AssertionError("nothing came")


def echo_udp(place: Place, address: str, port: int) -> socket.socket:
    return place.bound(address, port, socket.SOCK_DGRAM)


def answers_udp(
    place: Place, server: socket.socket, address: str, port: int, *, timeout_s: float = PATIENCE_S
) -> bool:
    """A datagram gets from `place` to the server and the answer back."""
    with place.open_socket(socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        server.settimeout(timeout_s)
        try:
            client.sendto(b"ping", (address, port))
            _, peer = server.recvfrom(100)
            server.sendto(b"pong", peer)
            return client.recv(100) == b"pong"
        except OSError:
            return False


@pytest.fixture
def world(request: pytest.FixtureRequest, world: World) -> World:
    world.root.open_bridge(Policy(denied=PRIVATE))
    world.host.set_value("net/bridge/bridge-nf-call-iptables", getattr(request, "param", 0))
    return world


both_ways = pytest.mark.parametrize(
    "world", [0, 1], ids=["layer 2 only", "bridge-nf-call-iptables"], indirect=True
)


class TestSpeaking:
    """Layer 2: a guest speaks as itself or not at all."""

    def hears(self, world: World, speaker: Speaker, frame: bytes) -> bool:
        """Whether the frame gets as far as the host; one that may comes after it."""
        guest = speaker.guest
        honest = arp(1, guest.mac, guest.address, ADDRESS) + LAST
        with listening(world.host, BRIDGE) as ear:
            speaker.write(frame)
            speaker.write(ethernet(guest.mac, BROADCAST, 0x0806, honest))
            return hears_first(ear, MARK, LAST) == MARK

    def test_a_guest_speaks_as_itself(self, world: World) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        packet = udp4(guest.address, ADDRESS, 4000, 4000, MARK)
        assert self.hears(world, speaker, ethernet(guest.mac, BRIDGE_MAC, 0x0800, packet))

    @pytest.mark.parametrize(
        "what", ["mac", "address", "both", "another guest's", "loopback", "the bridge's", "nobody's"]
    )
    def test_a_guest_does_not_speak_as_another(self, world: World, what: str) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        other = world.add_speaker().guest
        mac, address = {
            "mac": ("02:00:00:00:00:99", guest.address),
            "address": (guest.mac, "10.209.0.99"),
            "both": ("02:00:00:00:00:99", "10.209.0.99"),
            "another guest's": (other.mac, other.address),
            "loopback": (guest.mac, "127.0.0.1"),
            "the bridge's": (guest.mac, ADDRESS),
            "nobody's": (guest.mac, "0.0.0.0"),
        }[what]
        frame = ethernet(mac, BRIDGE_MAC, 0x0800, udp4(address, ADDRESS, 4000, 4000, MARK))
        assert not self.hears(world, speaker, frame)

    def test_a_guest_that_is_not_admitted_does_not_speak(self, world: World) -> None:
        stranger, speaker = world.add_speaker(admitted=False), world.add_speaker()
        guest = stranger.guest
        world.host.run("ip", "link", "set", guest.tap, "up")
        with listening(world.host, BRIDGE) as ear:
            stranger.write(
                ethernet(guest.mac, BRIDGE_MAC, 0x0800, udp4(guest.address, ADDRESS, 4000, 4000, MARK))
            )
            honest = arp(1, speaker.guest.mac, speaker.guest.address, ADDRESS) + LAST
            speaker.write(ethernet(speaker.guest.mac, BROADCAST, 0x0806, honest))
            assert hears_first(ear, MARK, LAST) == LAST

    @pytest.mark.parametrize("tag", [0, 1, 5, 0xE000], ids=["priority", "vlan 1", "vlan 5", "high priority"])
    @pytest.mark.parametrize("depth", [1, 2])
    def test_vlan_tags_are_dropped(self, world: World, tag: int, depth: int) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        packet = udp4(guest.address, ADDRESS, 4000, 4000, MARK)
        frame = vlan(guest.mac, BRIDGE_MAC, tag, 0x0800, packet)
        if depth == 2:
            frame = vlan(guest.mac, BRIDGE_MAC, 7, 0x8100, frame[14:])
        assert not self.hears(world, speaker, frame)

    def test_ipv6_is_dropped(self, world: World) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        assert not self.hears(world, speaker, udp6_all_nodes(guest.mac, MARK))

    @pytest.mark.parametrize("kind", [0x88CC, 0x8863, 0x88A8, 0x0806 + 1, 0x0026])
    def test_other_protocols_are_dropped(self, world: World, kind: int) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        assert not self.hears(world, speaker, ethernet(guest.mac, BROADCAST, kind, MARK + bytes(46)))

    def test_arp_of_its_own_is_heard(self, world: World) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        packet = arp(1, guest.mac, guest.address, "10.209.0.77") + MARK
        assert self.hears(world, speaker, ethernet(guest.mac, BROADCAST, 0x0806, packet))

    @pytest.mark.parametrize(
        ("outer", "mac", "address"),
        [
            ("own", "other", "own"),
            ("own", "own", "other"),
            ("other", "own", "own"),
            ("other", "other", "other"),
            ("own", "own", ADDRESS),
        ],
    )
    @pytest.mark.parametrize("operation", [1, 2])
    def test_arp_does_not_lie(self, world: World, outer: str, mac: str, address: str, operation: int) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        other = world.add_speaker().guest
        macs = {"own": guest.mac, "other": other.mac}
        addresses = {"own": guest.address, "other": other.address}
        packet = arp(operation, macs[mac], addresses.get(address, address), ADDRESS) + MARK
        assert not self.hears(world, speaker, ethernet(macs[outer], BROADCAST, 0x0806, packet))

    @pytest.mark.parametrize("last", [0x00, 0x02, 0x03, 0x0E])
    def test_a_reserved_multicast_mac_is_no_way_around_the_bridge(self, world: World, last: int) -> None:
        """The bridge hands such frames up as the tap's own; they must not get to the host's services."""
        speaker = world.add_speaker()
        guest = speaker.guest
        with world.host.bound("192.0.2.1", PORT, socket.SOCK_DGRAM) as service:
            packet = udp4(guest.address, "192.0.2.1", 4000, PORT, MARK)
            assert (
                not self.hears(
                    world, speaker, ethernet(guest.mac, f"01:80:c2:00:00:{last:02x}", 0x0800, packet)
                )
                or last == 0
            )
            assert not select.select((service,), (), (), 0)[0]

    def test_the_host_sends_no_ipv6_to_guests(self, world: World) -> None:
        guest = world.add_speaker().guest
        assert world.host.get_value(f"net/ipv6/conf/{BRIDGE}/disable_ipv6") == 1
        assert world.host.get_value(f"net/ipv6/conf/{guest.tap}/disable_ipv6") == 1


@both_ways
class TestGuests:
    def test_guests_do_not_reach_one_another(self, world: World) -> None:
        one, first = world.add_guest(nat=True)
        two, second = world.add_guest(nat=True)
        with second.place.bound(two.address, PORT):
            assert not try_ping(first.place, two.address, timeout_s=QUICK_S)
            assert try_tcp(first.place, two.address, PORT, timeout_s=QUICK_S) != "open"
            second.place.run("ip", "neigh", "replace", one.address, "lladdr", one.mac, "dev", "eth0")
            first.place.run("ip", "neigh", "replace", two.address, "lladdr", two.mac, "dev", "eth0")
            assert try_tcp(first.place, two.address, PORT, timeout_s=QUICK_S) == "silent"
            # and not by way of the host
            first.place.run("ip", "neigh", "replace", two.address, "lladdr", BRIDGE_MAC, "dev", "eth0")
            assert try_tcp(first.place, two.address, PORT, timeout_s=QUICK_S) != "open"
            first.place.run("ip", "route", "add", f"{two.address}/32", "via", ADDRESS)
            assert try_tcp(first.place, two.address, PORT, timeout_s=QUICK_S) != "open"

    def test_isolation_holds_when_somebody_flushes_the_ruleset(self, world: World) -> None:
        _, first = world.add_guest()
        two, second = world.add_guest()
        world.host.run("nft", "flush", "ruleset")
        with second.place.bound(two.address, PORT):
            assert try_ping(first.place, ADDRESS)
            assert not try_ping(first.place, two.address, timeout_s=QUICK_S)

    def test_the_policy_lets_guests_reach_one_another(self, world: World) -> None:
        one, first = world.add_guest()
        two, second = world.add_guest()
        apply = network.ApplyGuests(bridge=BRIDGE, policy=Policy(guests=True), guests=(one, two))
        world.root(apply)
        three, third = world.add_guest()
        with second.place.bound(two.address, PORT), third.place.bound(three.address, PORT):
            assert try_tcp(first.place, two.address, PORT) == "open"
            assert try_tcp(second.place, three.address, PORT) == "open"
            world.root(replace(apply, policy=Policy(), guests=(one, two, three)))
            assert try_tcp(first.place, two.address, PORT, timeout_s=QUICK_S) != "open"
            assert try_tcp(second.place, three.address, PORT, timeout_s=QUICK_S) != "open"


@both_ways
class TestHost:
    @pytest.mark.parametrize("address", [ADDRESS, "192.0.2.1"])
    def test_a_guest_does_not_reach_the_hosts_services(self, world: World, address: str) -> None:
        _, pretend = world.add_guest(nat=True)
        with world.host.bound("0.0.0.0", PORT), echo_udp(world.host, "0.0.0.0", PORT) as udp:
            assert try_tcp(pretend.place, address, PORT) == "unreachable"
            assert not answers_udp(pretend.place, udp, address, PORT, timeout_s=QUICK_S)

    def test_a_guest_does_not_reach_the_hosts_loopback(self, world: World) -> None:
        speaker = world.add_speaker(nat=True)
        guest = speaker.guest
        assert world.host.get_value(f"net/ipv4/conf/{BRIDGE}/route_localnet") == 1
        with echo_udp(world.host, "0.0.0.0", PORT) as service:
            service.settimeout(QUICK_S)
            packet = udp4(guest.address, "127.0.0.1", 4000, PORT, MARK)
            speaker.write(ethernet(guest.mac, BRIDGE_MAC, 0x0800, packet))
            with pytest.raises(TimeoutError):
                service.recv(100)

    def test_a_guest_reaches_the_name_server_and_can_ping_the_bridge(self, world: World) -> None:
        _, pretend = world.add_guest()
        reply = world.root.handlers.handle(network.OpenDns(bridge=BRIDGE), ())
        udp, tcp = (socket.socket(fileno=held) for held in reply.descriptors)
        with udp, tcp:
            assert answers_udp(pretend.place, udp, ADDRESS, 53)
            assert try_tcp(pretend.place, ADDRESS, 53) == "open"
            assert try_tcp(pretend.place, "192.0.2.1", 53) == "unreachable"
        assert try_ping(pretend.place, ADDRESS)
        assert not try_ping(pretend.place, "192.0.2.1", timeout_s=QUICK_S)

    def test_the_policy_opens_ports_of_the_host(self, world: World) -> None:
        guest, pretend = world.add_guest()
        world.root(
            network.ApplyGuests(bridge=BRIDGE, policy=Policy(host_ports=(PORT, 9, 9)), guests=(guest,))
        )
        with world.host.bound("0.0.0.0", PORT), world.host.bound("0.0.0.0", PORT + 1):
            assert try_tcp(pretend.place, ADDRESS, PORT) == "open"
            assert try_tcp(pretend.place, ADDRESS, PORT + 1) == "unreachable"
            assert try_tcp(pretend.place, "192.0.2.1", PORT) == "unreachable"

    def test_the_host_reaches_guests(self, world: World) -> None:
        guest, pretend = world.add_guest()
        with pretend.place.bound(guest.address, PORT):
            assert try_tcp(world.host, guest.address, PORT) == "open"
        assert try_ping(world.host, guest.address)


@both_ways
class TestNat:
    def test_a_guest_with_nat_reaches_the_public_network_as_the_host(self, world: World) -> None:
        _, pretend = world.add_guest(nat=True)
        with world.outside.bound(PUBLIC, PORT) as server:
            assert try_tcp(pretend.place, PUBLIC, PORT) == "open"
            connection, (peer, _) = server.accept()
            connection.close()
            assert peer == "192.0.2.1"

    def test_a_guest_without_nat_reaches_nothing(self, world: World) -> None:
        guest, pretend = world.add_guest()
        world.outside.run("ip", "route", "add", "10.209.0.0/24", "via", "192.0.2.1")
        with world.outside.bound(PUBLIC, PORT), listening(world.outside, "up1") as ear:
            assert try_tcp(pretend.place, PUBLIC, PORT) == "unreachable"
            assert not try_ping(pretend.place, PUBLIC, timeout_s=QUICK_S)
            with world.host.open_socket(socket.SOCK_DGRAM) as last:
                last.sendto(LAST, (PUBLIC, PORT))
            assert hears_first(ear, socket.inet_aton(guest.address), LAST) == LAST

    def test_private_networks_are_denied_unless_allowed(self, world: World) -> None:
        guest, pretend = world.add_guest(nat=True)
        with world.outside.bound(f"{LAN}.2", PORT):
            assert try_tcp(pretend.place, f"{LAN}.2", PORT) == "unreachable"
            allowed = Policy(denied=PRIVATE, allowed=(f"{LAN}.0/24", f"{LAN}.2/32"))
            world.root(network.ApplyGuests(bridge=BRIDGE, policy=allowed, guests=(guest,)))
            assert try_tcp(pretend.place, f"{LAN}.2", PORT) == "open"

    def test_what_is_allowed_is_allowed_with_nat_only(self, world: World) -> None:
        guest, pretend = world.add_guest()
        allowed = Policy(denied=PRIVATE, allowed=(f"{LAN}.0/24",))
        world.root(network.ApplyGuests(bridge=BRIDGE, policy=allowed, guests=(guest,)))
        with world.outside.bound(f"{LAN}.2", PORT):
            assert try_tcp(pretend.place, f"{LAN}.2", PORT) == "unreachable"

    def test_nothing_is_reached_before_the_daemon_has_said_its_policy(self, world: World) -> None:
        world.root(network.RemoveBridge(bridge=BRIDGE))
        world.root.open_bridge()
        _, pretend = world.add_guest(nat=True)
        with world.outside.bound(PUBLIC, PORT):
            assert try_tcp(pretend.place, PUBLIC, PORT) == "unreachable"

    def test_nat_is_changed_for_a_guest_that_runs_and_a_running_connection_is_cut(self, world: World) -> None:
        guest, pretend = world.add_guest()
        with world.outside.bound(PUBLIC, PORT) as server:
            assert try_tcp(pretend.place, PUBLIC, PORT) == "unreachable"
            world.root.admit(replace(guest, nat=True))
            with pretend.place.open_socket() as client:
                client.connect((PUBLIC, PORT))
                connection, _ = server.accept()
                with connection:
                    client.sendall(b"one")
                    assert connection.recv(10) == b"one"
                    world.root.admit(guest)
                    connection.sendall(b"from outside")
                    client.settimeout(QUICK_S)
                    with pytest.raises(TimeoutError):
                        client.recv(100)
                    client.settimeout(PATIENCE_S)
                    client.sendall(b"two")
                    with pytest.raises(ConnectionResetError):
                        client.recv(100)
                    connection.settimeout(QUICK_S)
                    with pytest.raises(TimeoutError):
                        connection.recv(10)
            assert try_tcp(pretend.place, PUBLIC, PORT) == "unreachable"

    def test_udp_from_outside_stops_with_nat(self, world: World) -> None:
        guest, pretend = world.add_guest(nat=True)
        with (
            echo_udp(world.outside, PUBLIC, PORT) as server,
            pretend.place.open_socket(socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(PATIENCE_S)
            client.sendto(b"ask", (PUBLIC, PORT))
            _, peer = server.recvfrom(100)
            server.sendto(b"one", peer)
            assert client.recv(100) == b"one"
            world.root.admit(replace(guest, nat=False))
            server.sendto(b"two", peer)
            client.settimeout(QUICK_S)
            with pytest.raises(TimeoutError):
                client.recv(100)

    def test_an_outsider_does_not_reach_a_guest(self, world: World) -> None:
        guest, pretend = world.add_guest(nat=True)
        world.outside.run("ip", "route", "add", "10.209.0.0/24", "via", "192.0.2.1")
        with pretend.place.bound(guest.address, PORT):
            assert try_tcp(world.outside, guest.address, PORT, timeout_s=QUICK_S) == "silent"
            assert not try_ping(world.outside, guest.address, timeout_s=QUICK_S)

    def test_a_released_guest_is_silent(self, world: World) -> None:
        guest, pretend = world.add_guest(nat=True)
        world.root.release(guest)
        with world.outside.bound(PUBLIC, PORT):
            assert try_tcp(pretend.place, PUBLIC, PORT, timeout_s=QUICK_S) in ("silent", "unreachable")


def test_other_traffic_of_the_host_is_left_alone(world: World) -> None:
    """A second network that the host forwards for, as Docker's would be."""
    with Place() as other:
        world.host.run("ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1")
        world.host.run("ip", "link", "set", "other1", "netns", f"/proc/{os.getpid()}/fd/{other.descriptor}")
        world.host.run("ip", "address", "add", "10.77.0.1/24", "dev", "other0")
        world.host.run("ip", "link", "set", "other0", "up")
        other.run("ip", "address", "add", "10.77.0.2/24", "dev", "other1")
        other.run("ip", "link", "set", "other1", "up")
        other.run("ip", "route", "add", "default", "via", "10.77.0.1")
        world.outside.run("ip", "route", "add", "10.77.0.0/24", "via", "192.0.2.1")
        with (
            world.outside.bound(PUBLIC, PORT),
            other.bound("10.77.0.2", PORT),
            world.host.bound("0.0.0.0", PORT),
        ):
            assert try_tcp(other, PUBLIC, PORT) == "open"
            assert try_tcp(world.outside, "10.77.0.2", PORT) == "open"
            assert try_tcp(other, "10.77.0.1", PORT) == "open"
