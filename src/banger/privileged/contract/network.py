"""What is asked of root about the network: bridge, taps, tables, published ports, names. Standard library only."""

import ipaddress
from dataclasses import dataclass

from banger.privileged.contract.base import DESCRIPTORS_MAX, Done, Request
from banger.privileged.contract.values import (
    ZONES,
    Guest,
    Policy,
    PublishedPort,
    parse_address,
    parse_bridge_address,
    refuse,
    validate_bridge,
    validate_tap,
)

TAPS_MAX = 1024
GUESTS_MAX = 1024


@dataclass(frozen=True, kw_only=True)
class Ensured:
    """`fresh` when bridge or tables had to be made: nobody is admitted then."""

    fresh: bool


@dataclass(frozen=True, kw_only=True)
class Route:
    """An IPv4 route of the host, of any table but `local`. `gateway` is empty for a network on the link itself."""

    destination: str
    device: str
    gateway: str


@dataclass(frozen=True, kw_only=True)
class Routes:
    routes: tuple[Route, ...]


@dataclass(frozen=True, kw_only=True)
class Tap:
    """`up` from admission to release: a tap that is not up waits in the pool."""

    name: str
    up: bool


@dataclass(frozen=True, kw_only=True)
class Taps:
    """`CreateTaps` sends a descriptor for each, in this order."""

    taps: tuple[Tap, ...]


@dataclass(frozen=True, kw_only=True)
class ForwardDrop:
    """Somebody else's chain that drops IPv4 that is forwarded, whatever our own table says."""

    family: str
    table: str
    chain: str
    owner: str  # docker, ufw, firewalld or unknown


@dataclass(frozen=True, kw_only=True)
class HostState:
    """What NAT and names depend on. `nft` is the library's version, empty where it is missing."""

    ip_forward: bool
    nft: str
    resolved: bool
    drops: tuple[ForwardDrop, ...]


@dataclass(frozen=True, kw_only=True)
class ListRoutes(Request[Routes]):
    """The host's routes, our own bridge's left out."""

    method = "list_routes"
    result = Routes


@dataclass(frozen=True, kw_only=True)
class InspectHost(Request[HostState]):
    """Reads only."""

    method = "inspect_host"
    result = HostState


@dataclass(frozen=True, kw_only=True)
class EnsureBridge(Request[Ensured]):
    """The bridge exists, is up and has this address (`A.B.C.D/N`). A bridge of ours with another name or address and
    without taps is removed first; with taps it is a `conflict`, and so is a route of the host's into the subnet.
    `unavailable` where this host can have no taps or no nftables, `unauthorized` for a subnet that root does
    not allow."""

    method = "ensure_bridge"
    result = Ensured
    bridge: str
    address: str

    def validate(self) -> None:
        validate_bridge(self.bridge)
        parse_bridge_address(self.address)


@dataclass(frozen=True, kw_only=True)
class RemoveBridge(Request[Done]):
    """Bridge, tables and names' routing go. `conflict` while there are taps. Idempotent."""

    method = "remove_bridge"
    result = Done
    bridge: str

    def validate(self) -> None:
        validate_bridge(self.bridge)


@dataclass(frozen=True, kw_only=True)
class CreateTaps(Request[Taps]):
    """New taps on the bridge, down. Each lives as long as someone holds its descriptor, and no longer."""

    method = "create_taps"
    result = Taps
    bridge: str
    count: int

    def validate(self) -> None:
        validate_bridge(self.bridge)
        if not 1 <= self.count <= DESCRIPTORS_MAX:
            raise refuse(f"{self.count} taps at once are not possible", f"ask for 1 to {DESCRIPTORS_MAX}")


@dataclass(frozen=True, kw_only=True)
class DeleteTaps(Request[Done]):
    """Taps that are there no more are no error."""

    method = "delete_taps"
    result = Done
    taps: tuple[str, ...]

    def validate(self) -> None:
        if not 0 < len(self.taps) <= TAPS_MAX:
            raise refuse(f"{len(self.taps)} taps cannot be deleted at once", f"name 1 to {TAPS_MAX}")
        for tap in self.taps:
            validate_tap(tap)


@dataclass(frozen=True, kw_only=True)
class ListTaps(Request[Taps]):
    """Taps of ours on the bridge; none when there is no bridge."""

    method = "list_taps"
    result = Taps
    bridge: str

    def validate(self) -> None:
        validate_bridge(self.bridge)


@dataclass(frozen=True, kw_only=True)
class ApplyGuests(Request[Done]):
    """Our tables are made anew in one transaction: these guests, this policy, nothing published."""

    method = "apply_guests"
    result = Done
    bridge: str
    policy: Policy
    guests: tuple[Guest, ...]

    def validate(self) -> None:
        validate_bridge(self.bridge)
        self.policy.validate()
        if len(self.guests) > GUESTS_MAX:
            raise refuse(f"{len(self.guests)} guests are more than {GUESTS_MAX}")
        for guest in self.guests:
            guest.validate()
        for what in ("tap", "address"):
            if len({getattr(guest, what) for guest in self.guests}) < len(self.guests):
                raise refuse(f"two guests have the same {what}")


@dataclass(frozen=True, kw_only=True)
class AdmitGuest(Request[Done]):
    """The guest may speak: its elements are in the tables, then its tap goes up. Again with another `nat` changes
    that for a guest that runs. `unavailable` when `nat` is wanted and the host does not forward."""

    method = "admit_guest"
    result = Done
    bridge: str
    guest: Guest

    def validate(self) -> None:
        validate_bridge(self.bridge)
        self.guest.validate()


@dataclass(frozen=True, kw_only=True)
class ReleaseGuest(Request[Done]):
    """The tap goes down if it is still there, and the guest's elements are taken out. Idempotent."""

    method = "release_guest"
    result = Done
    bridge: str
    guest: Guest

    def validate(self) -> None:
        validate_bridge(self.bridge)
        self.guest.validate()


@dataclass(frozen=True, kw_only=True)
class PublishPorts(Request[Done]):
    """Each port comes with a socket that the caller has bound to it: proof that it may. All or none.
    `conflict` when a port leads to another guest already."""

    method = "publish_ports"
    result = Done
    descriptors = range(1, DESCRIPTORS_MAX + 1)
    bridge: str
    guest_address: str
    ports: tuple[PublishedPort, ...]

    def validate(self) -> None:
        _validate_ports(self.bridge, self.guest_address, self.ports)


@dataclass(frozen=True, kw_only=True)
class UnpublishPorts(Request[Done]):
    """Idempotent."""

    method = "unpublish_ports"
    result = Done
    bridge: str
    guest_address: str
    ports: tuple[PublishedPort, ...]

    def validate(self) -> None:
        _validate_ports(self.bridge, self.guest_address, self.ports)


@dataclass(frozen=True, kw_only=True)
class OpenDns(Request[Done]):
    """Sends two descriptors: a UDP socket and a listening TCP socket at port 53 of the bridge's address."""

    method = "open_dns"
    result = Done
    bridge: str

    def validate(self) -> None:
        validate_bridge(self.bridge)


@dataclass(frozen=True, kw_only=True)
class RouteNames(Request[Done]):
    """systemd-resolved asks the bridge's address for names below `zone`, and for nothing else. `unavailable` where
    there is no systemd-resolved."""

    method = "route_names"
    result = Done
    bridge: str
    zone: str

    def validate(self) -> None:
        validate_bridge(self.bridge)
        if self.zone not in ZONES:
            raise refuse(f"{self.zone!r} is no zone of banger's", f"use {' or '.join(ZONES)}")


@dataclass(frozen=True, kw_only=True)
class UnrouteNames(Request[Done]):
    """Idempotent; no error where there is no systemd-resolved."""

    method = "unroute_names"
    result = Done
    bridge: str

    def validate(self) -> None:
        validate_bridge(self.bridge)


def _validate_ports(bridge: str, guest_address: str, ports: tuple[PublishedPort, ...]) -> None:
    validate_bridge(bridge)
    parse_address(guest_address)
    if not 0 < len(ports) <= DESCRIPTORS_MAX:
        raise refuse(f"{len(ports)} ports at once are not possible", f"publish 1 to {DESCRIPTORS_MAX}")
    for port in ports:
        port.validate()
    if len({(port.protocol, port.host_address, port.host_port) for port in ports}) < len(ports):
        raise refuse("one port is published twice")


def subnet_of(address: str) -> ipaddress.IPv4Network:
    return parse_bridge_address(address).network
