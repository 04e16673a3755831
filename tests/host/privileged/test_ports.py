"""Published ports, and the proof that whoever publishes one may have it."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from tests.host.privileged.conftest import ADDRESS, BRIDGE, PRIVATE, Root, World
from tests.host.privileged.places import QUICK_S, Place, try_tcp
from tests.host.privileged.test_firewall import answers_udp
from tests.host.privileged.wire import ethernet, udp4

from banger.privileged.contract.network import DeleteTaps, PublishPorts, UnpublishPorts
from banger.privileged.contract.values import Policy, PublishedPort, Refusal

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
HOST, ANY, LOOPBACK = "192.0.2.1", "0.0.0.0", "127.0.0.1"
OUTER, INNER = 8080, 80


def port_of(
    host_address: str = LOOPBACK, outer: int = OUTER, protocol: str = "tcp", inner: int = INNER
) -> PublishedPort:
    return PublishedPort(protocol=protocol, host_address=host_address, host_port=outer, guest_port=inner)


@contextmanager
def proofs(*ports: PublishedPort) -> Iterator[tuple[int, ...]]:
    with ExitStack() as undo:
        held = []
        for port in ports:
            bound = undo.enter_context(socket.socket(socket.AF_INET, KINDS[port.protocol]))
            bound.bind((port.host_address, port.host_port))
            held.append(bound.fileno())
        yield tuple(held)


def publish(root: Root, address: str, *ports: PublishedPort) -> None:
    with proofs(*ports) as held:
        root(PublishPorts(bridge=BRIDGE, guest_address=address, ports=ports), held)


def unpublish(root: Root, address: str, *ports: PublishedPort) -> None:
    root(UnpublishPorts(bridge=BRIDGE, guest_address=address, ports=ports))


@pytest.fixture
def world(world: World) -> World:
    world.root.open_bridge(Policy(denied=PRIVATE))
    return world


class TestReach:
    @pytest.mark.parametrize(
        ("published", "from_host", "from_outside"),
        [
            (LOOPBACK, (LOOPBACK,), ()),
            (HOST, (HOST,), (HOST,)),
            (ANY, (LOOPBACK, HOST, ADDRESS), (HOST,)),
        ],
    )
    @pytest.mark.parametrize("nat", [False, True])
    def test_a_tcp_port_is_reached_where_it_is_published(
        self,
        world: World,
        published: str,
        from_host: tuple[str, ...],
        from_outside: tuple[str, ...],
        nat: bool,
    ) -> None:
        guest, pretend = world.add_guest(nat=nat)
        with pretend.place.bound(guest.address, INNER):
            publish(world.root, guest.address, port_of(published))
            for address in (LOOPBACK, HOST, ADDRESS):
                assert (try_tcp(world.host, address, OUTER) == "open") == (address in from_host), address
            assert (try_tcp(world.outside, HOST, OUTER) == "open") == (HOST in from_outside)
            unpublish(world.root, guest.address, port_of(published))
            assert try_tcp(world.host, from_host[0], OUTER) == "refused"
            assert try_tcp(world.outside, HOST, OUTER) == "refused"

    @pytest.mark.parametrize(
        ("published", "address"), [(LOOPBACK, LOOPBACK), (HOST, HOST), (ANY, LOOPBACK), (ANY, HOST)]
    )
    def test_a_udp_port_is_reached_where_it_is_published(
        self, world: World, published: str, address: str
    ) -> None:
        guest, pretend = world.add_guest()
        with pretend.place.bound(guest.address, INNER, socket.SOCK_DGRAM) as server:
            publish(world.root, guest.address, port_of(published, protocol="udp"))
            assert answers_udp(world.host, server, address, OUTER)
            if published != LOOPBACK:
                assert answers_udp(world.outside, server, HOST, OUTER)

    def test_tcp_and_udp_are_two_ports(self, world: World) -> None:
        one, first = world.add_guest()
        two, second = world.add_guest()
        with (
            first.place.bound(one.address, INNER),
            second.place.bound(two.address, INNER, socket.SOCK_DGRAM) as server,
        ):
            publish(world.root, one.address, port_of())
            publish(world.root, two.address, port_of(protocol="udp"))
            assert try_tcp(world.host, LOOPBACK, OUTER) == "open"
            assert answers_udp(world.host, server, LOOPBACK, OUTER)

    def test_the_guest_sees_who_calls_from_outside(self, world: World) -> None:
        guest, pretend = world.add_guest()
        with pretend.place.bound(guest.address, INNER) as server:
            publish(world.root, guest.address, port_of(ANY))
            for place, peer in ((world.outside, "192.0.2.2"), (world.host, HOST)):
                assert try_tcp(place, HOST, OUTER) == "open"
                connection, (seen, _) = server.accept()
                connection.close()
                assert seen == peer
            assert try_tcp(world.host, LOOPBACK, OUTER) == "open"
            connection, (seen, _) = server.accept()
            connection.close()
            assert seen == ADDRESS

    def test_a_neighbour_does_not_reach_what_is_published_on_loopback(self, world: World) -> None:
        """DNAT comes before the kernel's look for martians."""
        guest, pretend = world.add_guest()
        mac = _mac(world.host, "up0")
        for published in ("127.0.0.9", ANY):
            with pretend.place.bound(guest.address, INNER, socket.SOCK_DGRAM) as server:
                publish(world.root, guest.address, port_of(published, protocol="udp"))
                assert answers_udp(world.host, server, "127.0.0.9", OUTER)
                server.settimeout(QUICK_S)
                for source in ("192.0.2.2", "127.0.0.1"):
                    _send_frame(world.outside, "up1", mac, udp4(source, "127.0.0.9", 4000, OUTER))
                    with pytest.raises(TimeoutError):
                        server.recv(100)
                unpublish(world.root, guest.address, port_of(published, protocol="udp"))

    def test_a_guest_does_not_reach_published_ports(self, world: World) -> None:
        one, first = world.add_guest(nat=True)
        two, second = world.add_guest(nat=True)
        with second.place.bound(two.address, INNER), first.place.bound(one.address, INNER):
            publish(world.root, two.address, port_of(ANY))
            for guest in (first, second):
                for address in (ADDRESS, HOST):
                    assert try_tcp(guest.place, address, OUTER) == "unreachable"

    def test_a_published_port_goes_with_its_guest(self, world: World) -> None:
        guest, other = world.add_speaker().guest, world.add_speaker().guest
        publish(world.root, guest.address, port_of(ANY), port_of(LOOPBACK, protocol="udp"))
        publish(world.root, other.address, port_of(ANY, 8081))
        world.root.release(guest)
        ruleset = world.host.run("nft", "list", "ruleset")
        assert guest.address not in ruleset
        assert f"tcp . 8081 : {other.address} . 80" in ruleset

    def test_with_forwarding_off_only_loopback_can_be_published(self, world: World) -> None:
        guest, pretend = world.add_guest()
        world.host.set_value("net/ipv4/ip_forward", 0)
        for address in (ANY, HOST):
            with pytest.raises(Refusal, match="does not forward") as refusal:
                publish(world.root, guest.address, port_of(address))
            assert refusal.value.hint == "sudo sysctl -w net.ipv4.ip_forward=1"
        with pretend.place.bound(guest.address, INNER):
            publish(world.root, guest.address, port_of())
            assert try_tcp(world.host, LOOPBACK, OUTER) == "open"


class TestConflicts:
    def test_a_port_of_another_guest_is_a_conflict_and_stays_its(self, world: World) -> None:
        one, two = (world.add_speaker().guest for _ in range(2))
        publish(world.root, one.address, port_of())
        before = world.host.traces()
        with pytest.raises(Refusal, match=rf"leads to {one.address}:80 already") as refusal:
            publish(world.root, two.address, port_of(LOOPBACK, 8081), port_of())
        assert refusal.value.code == "conflict"
        assert world.host.traces() == before
        unpublish(world.root, two.address, port_of())
        assert world.host.traces() == before

    def test_a_port_of_the_same_guest_leads_to_one_port(self, world: World) -> None:
        guest = world.add_speaker().guest
        publish(world.root, guest.address, port_of())
        with pytest.raises(Refusal, match="already"):
            publish(world.root, guest.address, port_of(inner=81))

    def test_publishing_and_unpublishing_are_idempotent(self, world: World) -> None:
        guest = world.add_speaker().guest
        before = world.host.traces()
        for _ in range(2):
            publish(world.root, guest.address, port_of(), port_of(ANY, 8081, "udp"))
        for _ in range(2):
            unpublish(world.root, guest.address, port_of(), port_of(ANY, 8081, "udp"))
        assert world.host.traces() == before

    @pytest.mark.parametrize("address", ["10.209.1.2", "10.209.0.0", "10.209.0.255", ADDRESS, "203.0.113.7"])
    def test_only_a_guests_address_can_be_published(self, world: World, address: str) -> None:
        with pytest.raises(Refusal, match="not a guest's address"):
            publish(world.root, address, port_of())


class TestProof:
    def refused(self, world: World, port: PublishedPort, *held: int, code: str = "unauthorized") -> str:
        guest = world.add_speaker().guest
        before = world.host.traces()
        with pytest.raises(Refusal) as refusal:
            world.root(PublishPorts(bridge=BRIDGE, guest_address=guest.address, ports=(port,)), held)
        assert world.host.traces() == before
        assert refusal.value.code == code
        return refusal.value.message

    def test_a_file_proves_nothing(self, world: World) -> None:
        reader, writer = os.pipe()
        assert "no socket" in self.refused(world, port_of(), reader)
        os.close(reader)
        os.close(writer)

    @pytest.mark.parametrize(
        ("family", "kind", "address"),
        [
            (socket.AF_INET, socket.SOCK_DGRAM, (LOOPBACK, OUTER)),
            (socket.AF_INET6, socket.SOCK_STREAM, ("::", OUTER)),
            (socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", OUTER)),
            (socket.AF_UNIX, socket.SOCK_STREAM, "\x00127.0.0.1:8080"),
            (socket.AF_INET, socket.SOCK_STREAM, (LOOPBACK, OUTER + 1)),
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.2", OUTER)),
            (socket.AF_INET, socket.SOCK_STREAM, (ANY, OUTER)),
            (socket.AF_INET, socket.SOCK_STREAM, None),
        ],
    )
    def test_another_socket_proves_nothing(
        self, world: World, family: int, kind: int, address: object
    ) -> None:
        with socket.socket(family, kind) as bound:
            if address is not None:
                bound.bind(address)  # type: ignore[arg-type]
            assert "cannot be published" in self.refused(world, port_of(), bound.fileno())

    def test_a_socket_of_another_namespace_proves_nothing(self, world: World) -> None:
        """Everybody can make a network namespace and bind port 22 in it."""
        with Place() as elsewhere, elsewhere.bound(LOOPBACK, 22) as bound:
            assert "another network namespace" in self.refused(world, port_of(outer=22), bound.fileno())

    def test_a_socket_of_one_interface_proves_nothing(self, world: World) -> None:
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            bound.bind((ANY, OUTER))
            assert "one interface" in self.refused(world, port_of(ANY), bound.fileno())

    def test_an_address_that_is_not_the_hosts_cannot_be_taken(self, world: World) -> None:
        """IP_FREEBIND lets everybody bind to it."""
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_IP, 15, 1)
            bound.bind(("203.0.113.7", OUTER))
            assert "no address of this host" in self.refused(
                world, port_of("203.0.113.7"), bound.fileno(), code="bad_request"
            )

    def test_an_address_that_the_host_has_lost_does_not_catch_what_goes_there(self, world: World) -> None:
        guest, pretend = world.add_guest()
        world.host.run("ip", "address", "add", "198.51.100.1/32", "dev", "lo")
        publish(world.root, guest.address, port_of("198.51.100.1"))
        world.host.run("ip", "address", "del", "198.51.100.1/32", "dev", "lo")
        world.outside.run("ip", "address", "add", "198.51.100.1/32", "dev", "lo")
        with pretend.place.bound(guest.address, INNER), world.outside.bound("198.51.100.1", OUTER) as real:
            assert try_tcp(world.host, "198.51.100.1", OUTER) == "open"
            real.accept()[0].close()

    def test_each_port_wants_its_own_socket(self, world: World) -> None:
        guest = world.add_speaker().guest
        ports = (port_of(), port_of(outer=8081))
        with proofs(*ports) as held:
            for wrong in (held[:1], held[::-1], (held[0], held[0]), (*held, held[0])):
                with pytest.raises(Refusal):
                    world.root(PublishPorts(bridge=BRIDGE, guest_address=guest.address, ports=ports), wrong)

    def test_the_descriptors_stay_the_callers(self, world: World) -> None:
        guest = world.add_speaker().guest
        with proofs(port_of()) as held:
            world.root(PublishPorts(bridge=BRIDGE, guest_address=guest.address, ports=(port_of(),)), held)
            os.fstat(held[0])


def test_the_address_of_a_guest_that_is_gone_leads_nowhere(world: World) -> None:
    gone, stays = world.add_speaker().guest, world.add_speaker().guest
    publish(world.root, gone.address, port_of(ANY))
    publish(world.root, stays.address, port_of(ANY, 8081))
    world.root(DeleteTaps(taps=(gone.tap,)))
    assert world.root.handlers.release_abandoned() is False
    ruleset = world.host.run("nft", "list", "ruleset")
    assert gone.address not in ruleset
    assert f'"{stays.tap}" . {stays.mac} . {stays.address}' in ruleset
    assert f"tcp . 8081 : {stays.address} . 80" in ruleset


def _mac(place: Place, interface: str) -> str:
    return place.run("ip", "-o", "link", "show", interface).split("link/ether ")[1].split()[0]


def _send_frame(place: Place, interface: str, mac: str, packet: bytes) -> None:
    with place.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        sender.send(ethernet(_mac(place, interface), mac, 0x0800, packet))
