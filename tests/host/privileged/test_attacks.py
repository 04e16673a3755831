"""Attacks that once worked: by a guest, by the owner's own process, by another user, by a neighbour on the LAN."""

import json
import socket

import pytest
from tests.host.privileged.conftest import ADDRESS, BRIDGE, LAN, PRIVATE, World
from tests.host.privileged.places import QUICK_S, Place
from tests.host.privileged.test_firewall import MARK, PORT, PUBLIC, listening
from tests.host.privileged.test_ports import ANY, HOST, LOOPBACK, port_of
from tests.host.privileged.wire import BROADCAST, arp, ethernet, udp4

from banger.privileged.contract.network import EnsureBridge, PublishPorts
from banger.privileged.contract.values import Policy, Refusal

LOW_PORT = 111  # a source port below 1024 says "root of that host" to NFS and rsh


@pytest.fixture
def world(world: World) -> World:
    world.root.open_bridge(Policy(denied=PRIVATE))
    return world


class TestOwner:
    """The owner's process gets nothing by the helper that it could not have without."""

    @pytest.mark.parametrize("address", [ANY, LOOPBACK, "127.0.0.53"])
    def test_a_ping_socket_proves_no_port(self, world: World, address: str) -> None:
        """Everybody may bind one to any number, to 53 for example."""
        guest, _ = world.add_guest()
        world.host.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")  # as systemd sets it
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as ping:
            ping.bind((address, 53))
            assert ping.getsockname() == (address, 53)
            port = port_of(address, 53, "udp")
            with pytest.raises(Refusal) as caught:
                world.root(
                    PublishPorts(bridge=BRIDGE, guest_address=guest.address, ports=(port,)), (ping.fileno(),)
                )
            assert caught.value.code == "unauthorized"

    @pytest.mark.parametrize(
        ("protocol", "kind", "number"),
        [
            ("udp", socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE),
            ("tcp", socket.SOCK_STREAM, socket.IPPROTO_SCTP),
        ],
    )
    def test_a_protocol_with_ports_of_its_own_proves_nothing(
        self, world: World, protocol: str, kind: int, number: int
    ) -> None:
        guest, _ = world.add_guest()
        try:
            other = socket.socket(socket.AF_INET, kind, number)
        except OSError:
            pytest.skip("this kernel has no such sockets")
        with other, world.host.bound(LOOPBACK, PORT, kind):
            other.bind((LOOPBACK, PORT))
            port = port_of(LOOPBACK, PORT, protocol)
            with pytest.raises(Refusal) as caught:
                world.root(
                    PublishPorts(bridge=BRIDGE, guest_address=guest.address, ports=(port,)), (other.fileno(),)
                )
            assert caught.value.code == "unauthorized"

    def test_a_subnet_with_an_address_of_the_hosts_is_refused(self, world: World) -> None:
        """One of its own, on no network: only the table `local` has a route to it."""
        world.host.run("ip", "address", "add", "10.210.0.9/32", "dev", "lo")
        with pytest.raises(Refusal) as caught:
            world.root(EnsureBridge(bridge=BRIDGE, address="10.210.0.1/24"))
        assert caught.value.code == "conflict"


class TestGuest:
    @pytest.mark.parametrize("last", [0x00, 0x02, 0x03, 0x0E, 0x0F])
    def test_a_guest_does_not_get_what_is_for_another(self, world: World, last: int) -> None:
        """The bridge learns from frames to reserved multicast MACs before any rule has seen them."""
        victim, thief = world.add_speaker(), world.add_speaker()
        own = victim.guest
        victim.write(ethernet(own.mac, BROADCAST, 0x0806, arp(1, own.mac, own.address, ADDRESS)))
        assert find_port(world.host, own.mac) == own.tap
        thief.write(ethernet(own.mac, f"01:80:c2:00:00:{last:02x}", 0x0800, MARK + bytes(46)))
        assert find_port(world.host, own.mac) == own.tap

    def test_a_guest_does_not_speak_from_a_port_of_roots(self, world: World) -> None:
        guest, pretend = world.add_guest(nat=True)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with (
                world.outside.bound(PUBLIC, PORT, kind) as server,
                pretend.place.open_socket(kind) as client,
            ):
                client.bind((guest.address, LOW_PORT))
                client.connect((PUBLIC, PORT))
                if kind == socket.SOCK_DGRAM:
                    client.send(MARK)
                    seen = server.recvfrom(100)[1]
                else:
                    connection, seen = server.accept()
                    connection.close()
                assert seen[0] == HOST
                assert seen[1] >= 1024

    def test_a_guest_does_not_take_what_is_for_a_service_of_the_hosts(self, world: World) -> None:
        """It speaks first, from the service's port: answers to it would be the guest's, and so would questions."""
        _, pretend = world.add_guest(nat=True)
        with (
            pretend.place.bound("0.0.0.0", PORT, socket.SOCK_DGRAM) as thief,
            world.outside.bound(PUBLIC, PORT, socket.SOCK_DGRAM) as client,
            world.host.bound(HOST, PORT, socket.SOCK_DGRAM) as service,
        ):
            thief.sendto(MARK, (PUBLIC, PORT))
            assert client.recv(100) == MARK
            client.sendto(b"a question", (HOST, PORT))
            assert service.recv(100) == b"a question"

    def test_a_guest_learns_no_addresses_of_the_hosts(self, world: World) -> None:
        speaker = world.add_speaker()
        guest = speaker.guest
        with listening(world.host, BRIDGE) as ear:
            for target in (HOST, f"{LAN}.1", LOOPBACK, ADDRESS):
                speaker.write(
                    ethernet(guest.mac, BROADCAST, 0x0806, arp(1, guest.mac, guest.address, target))
                )
            answered = list_arp_answers(ear)
        assert answered == [ADDRESS]
        with listening(world.host, guest.tap) as ear:
            around = ethernet(guest.mac, "01:80:c2:00:00:0e", 0x0806, arp(1, guest.mac, guest.address, HOST))
            speaker.write(around)
            speaker.write(ethernet(guest.mac, BROADCAST, 0x0806, arp(1, guest.mac, guest.address, ADDRESS)))
            answered = list_arp_answers(ear)
        assert answered == [ADDRESS]


class TestNeighbour:
    @pytest.mark.parametrize("nat", [True, False])
    def test_a_neighbour_does_not_speak_as_a_guest(self, world: World, nat: bool) -> None:
        """Where the host lets any source address in (`rp_filter` 0)."""
        for name in ("all", "up0", "default"):
            world.host.set_value(f"net/ipv4/conf/{name}/rp_filter", 0)
        speaker = world.add_speaker(nat=nat)
        guest = speaker.guest
        mac = json.loads(world.host.run("ip", "-j", "link", "show", "up0"))[0]["address"]
        own = json.loads(world.outside.run("ip", "-j", "link", "show", "up1"))[0]["address"]
        with world.host.bound(ADDRESS, PORT, socket.SOCK_DGRAM) as service:
            service.settimeout(QUICK_S)
            with listening(world.outside, "up1") as wire:
                wire.send(ethernet(own, mac, 0x0800, udp4(guest.address, ADDRESS, 4000, PORT, MARK)))
            with pytest.raises(TimeoutError):
                service.recv(100)


def find_port(host: Place, mac: str) -> str:
    """Where the bridge sends what is for this MAC."""
    entries = json.loads(host.run("bridge", "-j", "fdb", "show", "br", BRIDGE))
    (name,) = {entry["ifname"] for entry in entries if entry["mac"] == mac}
    return str(name)


def list_arp_answers(ear: socket.socket) -> list[str]:
    """Whose addresses the bridge answered for."""
    ear.settimeout(QUICK_S)
    found = []
    try:
        while True:
            frame = ear.recv(70000)
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
                found.append(socket.inet_ntoa(frame[28:32]))
    except TimeoutError:
        return found
