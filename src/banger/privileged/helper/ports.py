"""Proof that the owner may have a port: a socket that is bound to it.

Whoever could not bind the port cannot have it led to a guest: no port below 1024 without the right to it, none that
somebody else has. The socket must be of TCP or UDP itself (the numbers of others are not ports of theirs, and a ping
socket takes any from everybody), bound in this network namespace (in one of their own everybody may bind
everything), to an address that this host has (IP_FREEBIND takes any), and to no single interface.
"""

import ipaddress
import os
import socket
import stat
from collections.abc import Sequence

from banger.privileged.contract.values import PublishedPort, Refusal, refuse
from banger.privileged.helper.firewall import ANY_ADDRESS
from banger.privileged.helper.host import Host

_SO_NETNS_COOKIE = 71  # Linux 5.14, socket.h
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
}
_INTERFACE_NAME_BYTES = 16


def verify_sockets(host: Host, ports: Sequence[PublishedPort], descriptors: Sequence[int]) -> None:
    """Raises Refusal unless the n-th descriptor is a socket bound to the n-th port. They stay the caller's."""
    if len(ports) != len(descriptors):
        raise refuse(f"{len(ports)} ports come with {len(descriptors)} sockets")
    addresses = {interface.ip for interface in host.netlink.list_addresses()}
    for port, descriptor in zip(ports, descriptors, strict=True):
        _verify_address(port.host_address, addresses)
        _verify_socket(port, descriptor)


def _verify_address(text: str, addresses: set[ipaddress.IPv4Address]) -> None:
    address = ipaddress.IPv4Address(text)
    if text != ANY_ADDRESS and not address.is_loopback and address not in addresses:
        raise refuse(f"{address} is no address of this host", "ip -brief address")


def _verify_socket(port: PublishedPort, descriptor: int) -> None:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise _unproven(port, "what came along is no socket")
    with socket.socket(fileno=os.dup(descriptor)) as bound:
        kind = (bound.type, bound.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL))
        if bound.family != socket.AF_INET or kind != _KINDS[port.protocol]:
            raise _unproven(port, f"the socket is not of IPv4 and {port.protocol}")
        if bound.getsockname() != (port.host_address, port.host_port):
            raise _unproven(port, "the socket is not bound to it")
        if bound.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _INTERFACE_NAME_BYTES).strip(b"\0"):
            raise _unproven(port, "the socket is bound to one interface")
        if _namespace_of(bound) != _own_namespace():
            raise _unproven(port, "the socket belongs to another network namespace")


def _namespace_of(bound: socket.socket) -> bytes:
    try:
        return bound.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError as error:
        raise Refusal("unavailable", "publishing ports needs Linux 5.14 or newer") from error


def _own_namespace() -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        return _namespace_of(own)


def _unproven(port: PublishedPort, why: str) -> Refusal:
    return Refusal(
        "unauthorized",
        f"port {port.host_address}:{port.host_port}/{port.protocol} cannot be published: {why}",
    )
