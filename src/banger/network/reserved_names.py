"""Names that are never asked for outside of this host, and the reverse zones of a network. Pure, strings only.

What would leave is of no use outside or tells about the host's own networks: RFC 6303 (reverse zones of networks
that are not public), RFC 6761, 6762, 7686, 8375 and 9462 (names with a meaning of their own).
"""

import ipaddress
from collections.abc import Iterator

LOCALHOST = "localhost"
_NAMES = ("local", "invalid", "test", "onion", "home.arpa", "resolver.arpa")
_NETWORKS = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def list_reserved_zones() -> Iterator[str]:
    """Each is answered as an empty zone: it exists, nothing is below it."""
    yield from _NAMES
    for network in _NETWORKS:
        yield from list_reverse_zones(ipaddress.ip_network(network))


def list_reverse_zones(network: Network) -> Iterator[str]:
    """The zones of whole labels (octets, or hexadecimal digits) that together are the network's."""
    bits = 8 if network.version == 4 else 4
    whole = max(bits, -(-network.prefixlen // bits) * bits)
    for part in network.subnets(new_prefix=whole):
        labels = part.network_address.reverse_pointer.split(".")
        yield ".".join(labels[(network.max_prefixlen - whole) // bits :])


def list_guest_reverse_zones(subnet: ipaddress.IPv4Network) -> Iterator[str]:
    """What the subnet's name server answers for: a part of a /24 has no zone of its own, so it is the whole /24."""
    wide = subnet.supernet(new_prefix=24) if subnet.prefixlen > 24 else subnet
    return list_reverse_zones(wide)
