"""What a bridge may be called and which subnet it may have. Pure.

The root helper's contract has the same rules and imports nothing of ours; a test holds the two together.
"""

import ipaddress
import re

from banger.base.problem import bad_request

DEFAULT_BRIDGE = "br-banger"
DEFAULT_CIDR = "10.209.0.1/24"
_BRIDGE = re.compile(r"br-banger[0-9a-z]{0,6}")
_PRIVATE = tuple(ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def validate_bridge_name(name: str) -> str:
    if _BRIDGE.fullmatch(name) is None:
        raise bad_request(
            f"{name!r} is not a bridge of banger's",
            hint="a bridge is called br-banger, followed by at most six of a-z and 0-9",
        )
    return name


def parse_bridge_cidr(text: str) -> ipaddress.IPv4Interface:
    """The host's own address on the bridge, with the length of the subnet's prefix."""
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise bad_request(
            f"{text!r} is not an address with a prefix length", hint=f"for example {DEFAULT_CIDR}"
        ) from error
    network = interface.network
    if str(interface) != text or not 16 <= network.prefixlen <= 29:
        raise bad_request(f"{text!r} is not a subnet of /16 to /29", hint=f"for example {DEFAULT_CIDR}")
    if not any(network.subnet_of(private) for private in _PRIVATE):
        raise bad_request(
            f"{network} is not private", hint="choose it in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
        )
    if interface.ip in (network.network_address, network.broadcast_address):
        raise bad_request(
            f"{interface.ip} is no address of a host in {network}",
            hint=f"for example {network[1]}/{network.prefixlen}",
        )
    return interface


def parse_network(text: str) -> str:
    """`A.B.C.D/N` without host bits, as it is written."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise bad_request(f"{text!r} is not an IPv4 network", hint="for example 192.168.1.0/24") from error
    if str(network) != text:
        raise bad_request(f"{text!r} is not an IPv4 network", hint=f"write {network}")
    return text
