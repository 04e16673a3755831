"""Flows that the kernel tracks (linux/netfilter/nfnetlink_conntrack.h): those of an address are forgotten, so that the
next guest at that address gets no packet of the one before, and none of its permissions.
"""

import errno
import ipaddress
import socket
import struct

from banger.privileged.helper.attributes import pack_attribute, unpack_attributes
from banger.privileged.helper.netlink_socket import NetlinkSocket

_NETFILTER = 12  # NETLINK_NETFILTER
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK in the upper byte
_GENERAL = struct.pack("=BBH", socket.AF_INET, 0, 0)  # nfgenmsg: family, version, resource
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_TUPLE_IP, _IP_SOURCE = 1, 1
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2
_BY_SOURCE = struct.pack("=I", 1)  # CTA_FILTER_F_CTA_IP_SRC
_NESTED = 0x8000
_NO_TRACKING = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT)


class Conntrack(NetlinkSocket):
    """Connection tracking of this network namespace. Seldom asked: its socket is open for one question only."""

    def __init__(self) -> None:
        super().__init__(_NETFILTER)

    def forget(self, address: str) -> int:
        """How many flows from or to the address were there. None where nothing is tracked."""
        try:
            flows = self._list(address)
            requests = [(_DELETE, 0, _GENERAL + flow) for flow in flows]
            self.exchange(requests, ignored=errno.ENOENT)  # it may have ended meanwhile
        except OSError as error:
            if error.errno in _NO_TRACKING:
                return 0
            raise
        finally:
            self.close()
        return len(flows)

    def _list(self, address: str) -> list[bytes]:
        """The attributes that name each flow. Whoever began a flow is its source in the original direction, whom it
        leads to is the source of the replies. The kernel filters; one before 5.8 sends all, so they are looked at."""
        packed = ipaddress.IPv4Address(address).packed
        wanted = pack_attribute(_NESTED | _TUPLE_IP, pack_attribute(_IP_SOURCE, packed))
        found: dict[bytes, None] = {}
        for tuple_, filter_ in ((_TUPLE_ORIGINAL, _FILTER_ORIGINAL), (_TUPLE_REPLY, _FILTER_REPLY)):
            body = _GENERAL + pack_attribute(_NESTED | tuple_, wanted)
            body += pack_attribute(_NESTED | _FILTER, pack_attribute(filter_, _BY_SOURCE))
            for entry in self.dump(_GET, body, _NEW):
                attributes = unpack_attributes(entry, len(_GENERAL))
                if _find_source(attributes.get(tuple_, b"")) == packed:
                    found[_name(attributes)] = None
        return list(found)


def _find_source(tuple_: bytes) -> bytes:
    return unpack_attributes(unpack_attributes(tuple_).get(_TUPLE_IP, b"")).get(_IP_SOURCE, b"")


def _name(attributes: dict[int, bytes]) -> bytes:
    name = pack_attribute(_NESTED | _TUPLE_ORIGINAL, attributes[_TUPLE_ORIGINAL])
    return name + (pack_attribute(_ZONE, attributes[_ZONE]) if _ZONE in attributes else b"")
