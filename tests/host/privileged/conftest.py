"""A host of its own for each test: a fresh network namespace, entered while the test runs."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from tests.host.privileged.places import Place
from tests.host.privileged.wire import VNET_HEADER, PretendGuest
from tests.support.tiers import require_host

from banger.privileged.contract import network
from banger.privileged.contract.base import Request
from banger.privileged.contract.values import Guest, Policy
from banger.privileged.helper.handlers import Handlers

BRIDGE = "br-banger"
ADDRESS = "10.209.0.1"
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
LAN = "192.168.77"


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    require_host({"nft": "nftables", "ip": "iproute2"})


@pytest.fixture
def host() -> Iterator[Place]:
    """The namespace that the test runs in; it forwards IPv4."""
    with Place() as place, place.inside():
        place.set_value("net/ipv4/ip_forward", 1)
        yield place


@pytest.fixture
def root(host: Place) -> Iterator["Root"]:
    handlers = Handlers(owner=0, build="test")
    yield Root(handlers)
    handlers.close()


@pytest.fixture
def world(host: Place, root: "Root") -> Iterator["World"]:
    """A host with a bridge, an uplink to the public network and one to a LAN."""
    with ExitStack() as undo:
        outside = undo.enter_context(Place())
        host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
        host.run("ip", "link", "set", "up1", "netns", f"/proc/{os.getpid()}/fd/{outside.descriptor}")
        host.run("ip", "address", "add", "192.0.2.1/24", "dev", "up0")
        host.run("ip", "address", "add", f"{LAN}.1/24", "dev", "up0")
        host.run("ip", "link", "set", "up0", "up")
        for address in ("192.0.2.2/24", f"{LAN}.2/24", "203.0.113.7/32"):
            outside.run("ip", "address", "add", address, "dev", "up1")
        outside.run("ip", "link", "set", "up1", "up")
        host.run("ip", "route", "add", "default", "via", "192.0.2.2")
        yield World(host, outside, root, undo)


class Root:
    """The helper's code, called as the server calls it."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def __call__(self, request: Request[Any], descriptors: tuple[int, ...] = ()) -> Any:
        return self.handlers.handle(request, descriptors).result

    def create_taps(self, count: int, bridge: str = BRIDGE) -> list[tuple[str, int]]:
        reply = self.handlers.handle(network.CreateTaps(bridge=bridge, count=count), ())
        return [(tap.name, held) for tap, held in zip(reply.result.taps, reply.descriptors, strict=True)]

    def open_bridge(self, policy: Policy | None = None, address: str = f"{ADDRESS}/24") -> None:
        self(network.EnsureBridge(bridge=BRIDGE, address=address))
        if policy is not None:
            self(network.ApplyGuests(bridge=BRIDGE, policy=policy, guests=()))

    def admit(self, guest: Guest) -> None:
        self(network.AdmitGuest(bridge=BRIDGE, guest=guest))

    def release(self, guest: Guest) -> None:
        self(network.ReleaseGuest(bridge=BRIDGE, guest=guest))


class World:
    """`host` is where the test itself runs; `outside` has 192.0.2.2, 203.0.113.7 and, as a LAN, 192.168.77.2."""

    def __init__(self, host: Place, outside: Place, root: Root, undo: ExitStack) -> None:
        self.host = host
        self.outside = outside
        self.root = root
        self._undo = undo
        self._guests = 0

    def add_speaker(self, *, nat: bool = False, admitted: bool = True) -> "Speaker":
        """A guest whose frames the test writes."""
        self._guests += 1
        ((tap, held),) = self.root.create_taps(1)
        self._undo.callback(os.close, held)
        guest = guest_of(tap, self._guests + 1, nat=nat)
        if admitted:
            self.root.admit(guest)
        return Speaker(guest, held)

    def add_guest(self, *, nat: bool = False) -> tuple[Guest, PretendGuest]:
        """A guest with a kernel's network stack."""
        guest, held = self.add_speaker(nat=nat)
        pretend = PretendGuest(held, guest.mac, guest.address, ADDRESS)
        self._undo.callback(pretend.close)
        return guest, pretend


class Speaker(NamedTuple):
    guest: Guest
    tap: int

    def write(self, frame: bytes) -> None:
        os.write(self.tap, VNET_HEADER + frame)


def guest_of(tap: str, number: int, *, nat: bool = False) -> Guest:
    return Guest(
        tap=tap,
        mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        address=f"10.209.{number >> 8}.{number & 255}",
        nat=nat,
    )
