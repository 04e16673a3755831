"""The address plan of bridge mode: one subnet, the host first, guests after it in sequence. Pure.

Refuses a subnet that the host routes elsewhere, and says which one is free. What a guest with NAT may not reach is
decided here as well: private networks, and whatever else lies on a link of the host's own.
"""

import ipaddress
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from banger.base.problem import Code, Outcome, Problem, conflict

ZONE = "vm"
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
# Clouds tell a machine its secrets at these, too, which look public: Azure's WireServer, Oracle's older metadata.
METADATA = ("168.63.129.16/32", "192.0.0.192/32")
_DEFAULT_PREFIX_MAX = 7  # private ranges begin with /8
_CANDIDATES = (
    *(f"10.{number}.0.1/24" for number in range(209, 256)),
    *(f"172.31.{number}.1/24" for number in range(209, 256)),
    *(f"192.168.{number}.1/24" for number in range(209, 256)),
)


class HostRoute(Protocol):
    """One of the host's routes; `gateway` is empty for what lies on the link itself."""

    @property
    def destination(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def gateway(self) -> str: ...


class BridgePlan(NamedTuple):
    """Name and addresses of the bridge."""

    name: str
    interface: ipaddress.IPv4Interface

    @property
    def host(self) -> str:
        return str(self.interface.ip)

    @property
    def cidr(self) -> str:
        return str(self.interface)

    @property
    def prefix_length(self) -> int:
        return self.interface.network.prefixlen

    def derive_mac(self, address: str) -> str:
        """A guest's, the same for the same address: what the host knows of an address's last guest by ARP is true of
        the next one, too. The bridge's own begins with 06."""
        return (b"\x02\x62" + ipaddress.IPv4Address(address).packed).hex(":")

    def owns(self, address: str) -> bool:
        """Whether a guest may have it."""
        network = self.interface.network
        reserved = {str(each) for each in (self.interface.ip, network[0], network[-1])}
        return bool(address) and address not in reserved and ipaddress.IPv4Address(address) in network

    def choose_address(self, used: Collection[str], after: str = "") -> str:
        """The next after the one handed out last that nobody has, from the beginning again at the end: what the host
        remembers of an address's last guest (connections, ARP) should not become the next one's. Raises `no_space`
        when the subnet is full."""
        network = self.interface.network
        first, count = int(network[1]), network.num_addresses - 2
        start = int(ipaddress.IPv4Address(after)) - first + 1 if self.owns(after) else 0
        for step in range(count):
            address = str(ipaddress.IPv4Address(first + (start + step) % count))
            if address != self.host and address not in used:
                return address
        raise Problem(
            Code.NO_SPACE,
            f"all addresses of {self.interface.network} are taken",
            hint='banger vm prune --dry-run, or a larger bridge_cidr in config.toml, for example "10.209.0.1/20"',
            outcome=Outcome.NOT_STARTED,
        )


def check_overlap(plan: BridgePlan, routes: Iterable[HostRoute]) -> None:
    """Raises `conflict` with the route that is in the way and a subnet that is free."""
    routes = [route for route in routes if route.device != plan.name]
    for route in routes:
        if _overlaps(plan.interface.network, route):
            free = suggest_cidr(routes)
            raise conflict(
                f"the bridge's subnet {plan.interface.network} overlaps the host's route to "
                f"{route.destination} on {route.device}",
                hint=f'set bridge_cidr = "{free}" in config.toml'
                if free
                else "set bridge_cidr in config.toml",
            )


def suggest_cidr(routes: Iterable[HostRoute]) -> str:
    """A subnet that no route covers, or nothing."""
    routes = list(routes)
    for cidr in _CANDIDATES:
        network = ipaddress.IPv4Interface(cidr).network
        if not any(_overlaps(network, route) for route in routes):
            return cidr
    return ""


def list_denied(plan: BridgePlan, routes: Iterable[HostRoute]) -> tuple[str, ...]:
    """Private, link-local and shared networks (cloud metadata lives there), and the host's own links."""
    networks = [ipaddress.IPv4Network(text) for text in (*PRIVATE, *METADATA)]
    for route in routes:
        network = ipaddress.IPv4Network(route.destination)
        if not route.gateway and route.device != plan.name and not _is_default(network):
            networks.append(network)
    return tuple(str(network) for network in ipaddress.collapse_addresses(networks))


def _overlaps(network: ipaddress.IPv4Network, route: HostRoute) -> bool:
    destination = ipaddress.IPv4Network(route.destination)
    return not _is_default(destination) and destination.overlaps(network)


def _is_default(destination: ipaddress.IPv4Network) -> bool:
    """VPNs write the default route as 0.0.0.0/1 and 128.0.0.0/1."""
    return destination.prefixlen <= _DEFAULT_PREFIX_MAX
