"""A small rtnetlink (rtnetlink(7)): links, IPv4 addresses and IPv4 routes of this network namespace.

Owns one socket, opened at the first request. Requests are acknowledged; several go to the kernel in one datagram.
Raises OSError with the kernel's errno. Attributes are built and taken apart by `attributes`.
"""

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
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

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR, _GETROUTE = 20, 22, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE = 1, 4, 0x300, 0x200, 0x400
_DUMP_INTERRUPTED = 0x10
_SOL_NETLINK, _CAP_ACK, _STRICT_CHECK = 270, 10, 12

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
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

_BATCH = 64  # acknowledgements wait in the socket's buffer
_DUMP_TRIES = 5
_RECEIVE_BYTES = 256 * 1024
_TIMEOUT_S = 10.0


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


class Netlink:
    """One at a time: callers do not share it between threads at once."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequence = 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def find_link(self, name: str) -> Link | None:
        body = _LINK.pack(0, 0, 0, 0, 0) + pack_text(_IFLA_IFNAME, name)
        body += pack_u32(_IFLA_EXT_MASK, _SKIP_STATISTICS)
        try:
            replies = self._exchange([(_GETLINK, 0, body)])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return next((_parse_link(body) for kind, body in replies if kind == _NEWLINK), None)

    def list_links(self, *, master: int = 0) -> list[Link]:
        body = _LINK.pack(0, 0, 0, 0, 0) + pack_u32(_IFLA_EXT_MASK, _SKIP_STATISTICS)
        if master:
            body += pack_u32(_IFLA_MASTER, master)
        return [_parse_link(entry) for entry in self._dump(_GETLINK, body, _NEWLINK)]

    def list_addresses(self, index: int = 0) -> list[ipaddress.IPv4Interface]:
        """IPv4 addresses of a link, or of all."""
        body = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, index)
        return [_parse_address(entry) for entry in self._dump(_GETADDR, body, _NEWADDR)]

    def list_routes(self) -> list[KernelRoute]:
        """Unicast routes of all tables but `local`, those the kernel has cloned left out."""
        body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        routes = (_parse_route(entry) for entry in self._dump(_GETROUTE, body, 24))
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
        self._exchange([(_NEWLINK, _CREATE | _EXCLUSIVE, body)])

    def delete_link(self, index: int) -> None:
        self._exchange([(_DELLINK, 0, _LINK.pack(0, 0, index, 0, 0))])

    def delete_group(self, group: int) -> None:
        """All links of the group, in one go: the kernel waits for their readers once, not for each."""
        self._exchange([(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + pack_u32(_IFLA_GROUP, group))])

    def set_group(self, indices: Iterable[int], group: int) -> None:
        """A link that is there no more is passed over."""
        self._exchange(
            [
                (_SETLINK, 0, _LINK.pack(0, 0, index, 0, 0) + pack_u32(_IFLA_GROUP, group))
                for index in indices
            ],
            ignored=errno.ENODEV,
        )

    def set_up(self, name: str, *, up: bool) -> None:
        body = _LINK.pack(0, 0, 0, _UP if up else 0, _UP) + pack_text(_IFLA_IFNAME, name)
        self._exchange([(_SETLINK, 0, body)])

    def attach(self, names: Iterable[str], master: int, *, isolated: bool) -> None:
        """The links become ports of the bridge."""
        requests = []
        for name in names:
            body = _LINK.pack(0, 0, 0, 0, 0) + pack_text(_IFLA_IFNAME, name) + pack_u32(_IFLA_MASTER, master)
            requests += [(_SETLINK, 0, body), (_NEWLINK, 0, _port_body(name, isolated=isolated))]
        self._exchange(requests)

    def set_isolated(self, names: Iterable[str], *, isolated: bool) -> None:
        """Isolated ports of a bridge do not reach one another. A port that is there no more is passed over."""
        self._exchange(
            [(_NEWLINK, 0, _port_body(name, isolated=isolated)) for name in names], ignored=errno.ENODEV
        )

    def add_address(self, index: int, interface: ipaddress.IPv4Interface) -> None:
        body = _ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, 0, index)
        body += pack_attribute(_IFA_LOCAL, interface.ip.packed) + pack_attribute(
            _IFA_ADDRESS, interface.ip.packed
        )
        self._exchange([(_NEWADDR, _CREATE | _EXCLUSIVE, body)])

    def _exchange(
        self, requests: list[tuple[int, int, bytes]], *, ignored: int = 0
    ) -> list[tuple[int, bytes]]:
        """What came back besides acknowledgements. All are tried; the first error is raised, unless it is ignored."""
        replies: list[tuple[int, bytes]] = []
        failure = 0
        for start in range(0, len(requests), _BATCH):
            batch = requests[start : start + _BATCH]
            first = self._send([(kind, flags | _ACK, body) for kind, flags, body in batch])
            waiting = len(batch)
            while waiting:
                for kind, _, sequence, body in self._receive():
                    if not first <= sequence < first + len(batch):
                        continue
                    if kind == _ERROR:
                        waiting -= 1
                        code = -struct.unpack_from("=i", body)[0]
                        failure = failure or (code if code != ignored else 0)
                    else:
                        replies.append((kind, body))
        if failure:
            raise OSError(failure, os.strerror(failure))
        return replies

    def _dump(self, kind: int, body: bytes, wanted: int) -> list[bytes]:
        """All entries of a table. Read anew when it was changed meanwhile."""
        entries: list[bytes] = []
        for _ in range(_DUMP_TRIES):
            entries, whole = self._read_dump(self._send([(kind, _DUMP, body)]), wanted)
            if whole:
                break
        return entries

    def _read_dump(self, expected: int, wanted: int) -> tuple[list[bytes], bool]:
        entries: list[bytes] = []
        whole = True
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != expected:
                    continue
                whole = whole and not flags & _DUMP_INTERRUPTED
                if kind in (_DONE, _ERROR):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    return entries, whole
                if kind == wanted:
                    entries.append(body)

    def _send(self, requests: list[tuple[int, int, bytes]]) -> int:
        """The sequence number of the first; the others follow it."""
        first = self._sequence + 1
        data = b""
        for kind, flags, body in requests:
            self._sequence += 1
            padded = body + bytes(-len(body) % 4)
            data += _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._sequence, 0) + padded
        self._open().send(data)
        return first

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._open().recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3

    def _open(self) -> socket.socket:
        if self._socket is None:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            opened.settimeout(_TIMEOUT_S)
            opened.bind((0, 0))
            for option in (_CAP_ACK, _STRICT_CHECK):
                opened.setsockopt(_SOL_NETLINK, option, 1)
            self._socket = opened
        return self._socket


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
