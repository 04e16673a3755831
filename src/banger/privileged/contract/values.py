"""The words of the contract: bridge and tap names, addresses, guests, published ports. Standard library only.

Owns the patterns of what is ours: a bridge is `br-banger…`, a tap `bng-` and eight hexadecimal digits. There is no
way to say `eth0`, `docker0`, a path or a rule.
"""

import ipaddress
import re
from dataclasses import dataclass

BRIDGE_PATTERN = re.compile(r"br-banger[0-9a-z]{0,6}")
VM_PATTERN = re.compile(r"[0-9a-f]{12}")
TAP_PREFIX = "bng-"
TAP_PATTERN = re.compile(r"bng-[0-9a-f]{8}")
MAC_PATTERN = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
ZONES = ("vm",)  # no domain of the world: whoever serves `com` answers for all of it to everybody on the host
PREFIX_LENGTHS = range(16, 30)  # a /16 has room for 65,533 guests, a /29 for five
PRIVATE_NETWORKS = tuple(
    ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
PROTOCOLS = ("tcp", "udp")


class Refusal(Exception):
    """What the helper says instead of acting: nothing has been changed.

    `code` is one of the daemon's error codes (`bad_request`, `conflict`, `unavailable`, …); `hint` is a command.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def refuse(message: str, hint: str = "") -> Refusal:
    return Refusal("bad_request", message, hint)


def validate_bridge(name: str) -> None:
    if BRIDGE_PATTERN.fullmatch(name) is None:
        raise refuse(
            f"{name!r} is not a bridge of banger's",
            "a bridge is called br-banger, followed by at most six of a-z and 0-9",
        )


def validate_tap(name: str) -> None:
    if TAP_PATTERN.fullmatch(name) is None:
        raise refuse(f"{name!r} is not a tap of banger's")


def parse_address(text: str) -> ipaddress.IPv4Address:
    """A dotted quad, written as it is printed. Raises Refusal."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise refuse(f"{text!r} is not an IPv4 address") from None
    if str(address) != text:
        raise refuse(f"{text!r} is not an IPv4 address")
    return address


def parse_network(text: str) -> ipaddress.IPv4Network:
    """`A.B.C.D/N` without host bits. Raises Refusal."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        raise refuse(f"{text!r} is not an IPv4 network", "write 192.168.1.0/24") from None
    if str(network) != text:
        raise refuse(f"{text!r} is not an IPv4 network", "write 192.168.1.0/24")
    return network


def parse_bridge_address(text: str) -> ipaddress.IPv4Interface:
    """The host's own address on the bridge with the subnet's length, in a private range. Raises Refusal."""
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError:
        raise refuse(f"{text!r} is not an address with a prefix length", "write 10.209.0.1/24") from None
    if str(interface) != text:
        raise refuse(f"{text!r} is not an address with a prefix length", "write 10.209.0.1/24")
    network = interface.network
    if network.prefixlen not in PREFIX_LENGTHS:
        raise refuse(f"a subnet of /{network.prefixlen} is not possible", "choose /16 to /29")
    if not any(network.subnet_of(private) for private in PRIVATE_NETWORKS):
        raise refuse(
            f"{network} is not private", "choose a subnet of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
        )
    if interface.ip in (network.network_address, network.broadcast_address):
        raise refuse(
            f"{interface.ip} is not an address of a host in {network}",
            f"write {network[1]}/{network.prefixlen}",
        )
    return interface


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A running VM as the network sees it: on this tap, with this MAC, it may speak as this address only."""

    tap: str
    mac: str
    address: str
    nat: bool

    def validate(self) -> None:
        validate_tap(self.tap)
        if MAC_PATTERN.fullmatch(self.mac) is None or int(self.mac[:2], 16) & 0b11 != 0b10:
            raise refuse(f"{self.mac!r} is not a locally administered unicast MAC address")
        parse_address(self.address)


@dataclass(frozen=True, kw_only=True)
class PublishedPort:
    """A port of the host that leads to a guest's. `host_address` is an address of the host's, or 0.0.0.0 for all."""

    protocol: str
    host_address: str
    host_port: int
    guest_port: int

    def validate(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise refuse(f"{self.protocol!r} cannot be published", "use tcp or udp")
        parse_address(self.host_address)
        for port in (self.host_port, self.guest_port):
            if not 0 < port < 65536:
                raise refuse(f"{port} is not a port")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What guests may reach beyond the default (the public network, and that with NAT only).

    `denied` are networks that a guest with NAT does not reach, `allowed` exceptions from it; `host_ports` are TCP and
    UDP ports of the host's own that every guest reaches; `guests` lets guests reach one another.
    """

    denied: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    host_ports: tuple[int, ...] = ()
    guests: bool = False

    def validate(self) -> None:
        for text in (*self.denied, *self.allowed):
            parse_network(text)
        for port in self.host_ports:
            if not 0 < port < 65536:
                raise refuse(f"{port} is not a port")


def validate_vm(vm: str) -> None:
    if VM_PATTERN.fullmatch(vm) is None:
        raise refuse(f"{vm!r} is not the id of a VM")
