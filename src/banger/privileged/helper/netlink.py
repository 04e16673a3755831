"""A small rtnetlink (rtnetlink(7)): links, IPv4 addresses and IPv4 routes of this network namespace.

Raises OSError with the kernel's errno. Messages travel by `netlink_socket`, attributes are built and taken apart by
`attributes`.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from banger.privileged.helper.attributes import (
    pack_attribute,
    pack_text,
    pack_u8,
    pack_u32,
    unpack_attributes,
    unpack_text,
    unpack_u32,
)
from banger.privileged.helper.netlink_socket import NetlinkSocket

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR, _GETROUTE = 20, 22, 26
_EXCLUSIVE, _CREATE = 0x200, 0x400

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, destination's length, …, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, index

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 10, 18
_IFLA_GROUP, _IFLA_EXT_MASK = 27, 29
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BR_STP_STATE, _BR_MCAST_SNOOPING, _BR_MULTI_BOOLOPT = 5, 23, 46
_NO_LINK_LOCAL_LEARN = 1 << 0  # BR_BOOLOPT_NO_LL_LEARN
_BRPORT_ISOLATED = 33
_SKIP_STATISTICS = 1 << 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 9, 15
_UNICAST, _LOCAL_TABLE, _CLONED = 1, 255, 0x200
_UP = 1


class Link(NamedTuple):
    """`kind` is what the kernel calls it (`bridge`, `tun`, `veth`, …), empty for hardware."""

    ifindex: int
    name: str
    kind: str
    master: int
    up: bool
    group: int
    mac: str


class KernelRoute(NamedTuple):
    """A unicast route. `gateway` is empty for a network on the link itself."""

    destination: ipaddress.IPv4Network
    device: int
    gateway: str


class Netlink(NetlinkSocket):
    """Links, addresses and routes."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def find_link(self, name: str) -> Link | None:
        body = _LINK.pack(0, 0, 0, 0, 0) + pack_text(_IFLA_IFNAME, name)
        body += pack_u32(_IFLA_EXT_MASK, _SKIP_STATISTICS)
        try:
            replies = self.exchange([(_GETLINK, 0, body)])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return next((_parse_link(body) for kind, body in replies if kind == _NEWLINK), None)

    def list_links(self, *, master: int = 0) -> list[Link]:
        body = _LINK.pack(0, 0, 0, 0, 0) + pack_u32(_IFLA_EXT_MASK, _SKIP_STATISTICS)
        if master:
            body += pack_u32(_IFLA_MASTER, master)
        return [_parse_link(entry) for entry in self.dump(_GETLINK, body, _NEWLINK)]

    def list_addresses(self, index: int = 0) -> list[ipaddress.IPv4Interface]:
        """IPv4 addresses of a link, or of all."""
        body = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, index)
        return [_parse_address(entry) for entry in self.dump(_GETADDR, body, _NEWADDR)]

    def list_routes(self) -> list[KernelRoute]:
        """Unicast routes of all tables but `local`, those the kernel has cloned left out."""
        body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        routes = (_parse_route(entry) for entry in self.dump(_GETROUTE, body, 24))
        return [route for route in routes if route is not None]

    def add_bridge(self, name: str, mac: str) -> None:
        """Down, without spanning tree and without multicast snooping. The fixed MAC keeps it from changing with the
        ports that come and go. Frames to reserved multicast MACs, which no rule sees, teach it nothing: the next frames
        for whoever they claim to be from would go to the liar."""
        data = pack_u32(_BR_STP_STATE, 0) + pack_u8(_BR_MCAST_SNOOPING, 0)
        data += pack_attribute(_BR_MULTI_BOOLOPT, struct.pack("=II", *2 * (_NO_LINK_LOCAL_LEARN,)))
        info = pack_text(_INFO_KIND, "bridge") + pack_attribute(_INFO_DATA, data)
        body = _LINK.pack(0, 0, 0, 0, 0) + pack_text(_IFLA_IFNAME, name)
        body += pack_attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        body += pack_attribute(_IFLA_LINKINFO, info)
        self.exchange([(_NEWLINK, _CREATE | _EXCLUSIVE, body)])

    def delete_link(self, index: int) -> None:
        self.exchange([(_DELLINK, 0, _LINK.pack(0, 0, index, 0, 0))])

    def delete_group(self, group: int) -> None:
        """All links of the group, in one go: the kernel waits for their readers once, not for each."""
        self.exchange([(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + pack_u32(_IFLA_GROUP, group))])

    def set_group(self, indices: Iterable[int], group: int) -> None:
        """A link that is there no more is passed over."""
        self.exchange(
            [
                (_SETLINK, 0, _LINK.pack(0, 0, index, 0, 0) + pack_u32(_IFLA_GROUP, group))
                for index in indices
            ],
            ignored=errno.ENODEV,
        )

    def set_up(self, name: str, *, up: bool) -> None:
        body = _LINK.pack(0, 0, 0, _UP if up else 0, _UP) + pack_text(_IFLA_IFNAME, name)
        self.exchange([(_SETLINK, 0, body)])

    def attach(self, names: Iterable[str], master: int, *, isolated: bool) -> None:
        """The links become ports of the bridge."""
        requests = []
        for name in names:
            body = _LINK.pack(0, 0, 0, 0, 0) + pack_text(_IFLA_IFNAME, name) + pack_u32(_IFLA_MASTER, master)
            requests += [(_SETLINK, 0, body), (_NEWLINK, 0, _port_body(name, isolated=isolated))]
        self.exchange(requests)

    def set_isolated(self, names: Iterable[str], *, isolated: bool) -> None:
        """Isolated ports of a bridge do not reach one another. A port that is there no more is passed over."""
        self.exchange(
            [(_NEWLINK, 0, _port_body(name, isolated=isolated)) for name in names], ignored=errno.ENODEV
        )

    def add_address(self, index: int, interface: ipaddress.IPv4Interface) -> None:
        body = _ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, 0, index)
        body += pack_attribute(_IFA_LOCAL, interface.ip.packed) + pack_attribute(
            _IFA_ADDRESS, interface.ip.packed
        )
        self.exchange([(_NEWADDR, _CREATE | _EXCLUSIVE, body)])


def _port_body(name: str, *, isolated: bool) -> bytes:
    data = pack_u8(_BRPORT_ISOLATED, 1 if isolated else 0)
    info = pack_text(_INFO_SLAVE_KIND, "bridge") + pack_attribute(_INFO_SLAVE_DATA, data)
    return _LINK.pack(0, 0, 0, 0, 0) + pack_text(_IFLA_IFNAME, name) + pack_attribute(_IFLA_LINKINFO, info)


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = unpack_attributes(body, _LINK.size)
    info = unpack_attributes(attributes.get(_IFLA_LINKINFO, b""))
    return Link(
        ifindex=index,
        name=unpack_text(attributes.get(_IFLA_IFNAME, b"")),
        kind=unpack_text(info.get(_INFO_KIND, b"")),
        master=unpack_u32(attributes.get(_IFLA_MASTER)),
        up=bool(flags & _UP),
        group=unpack_u32(attributes.get(_IFLA_GROUP)),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def _parse_address(body: bytes) -> ipaddress.IPv4Interface:
    _, length, _, _, _ = _ADDRESS.unpack_from(body)
    attributes = unpack_attributes(body, _ADDRESS.size)
    packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    return ipaddress.IPv4Interface((packed, length))


def _parse_route(body: bytes) -> KernelRoute | None:
    _, length, _, _, table, _, _, kind, flags = _ROUTE.unpack_from(body)
    attributes = unpack_attributes(body, _ROUTE.size)
    table = unpack_u32(attributes.get(_RTA_TABLE)) or table
    if kind != _UNICAST or table == _LOCAL_TABLE or flags & _CLONED:
        return None
    device, gateway = unpack_u32(attributes.get(_RTA_OIF)), attributes.get(_RTA_GATEWAY, b"")
    if _RTA_MULTIPATH in attributes:  # the first of several ways stands for all
        hop = attributes[_RTA_MULTIPATH]
        size, _, _, device = _NEXT_HOP.unpack_from(hop)
        gateway = unpack_attributes(hop[:size], _NEXT_HOP.size).get(_RTA_GATEWAY, b"")
    destination = ipaddress.IPv4Network((attributes.get(_RTA_DST, bytes(4)), length))
    return KernelRoute(destination, device, str(ipaddress.IPv4Address(gateway)) if gateway else "")
