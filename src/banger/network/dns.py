"""The zone of the guests' names: a question's packet in, its answer's packet out. Pure; dnspython reads and writes
names and packets, and is the reason to import this module late.

Owns which names exist: NAME.vm, the zone's own name for the host, and their reverse names. A packet is read up to
what is needed and no further: records that a guest adds to a question are measured, never understood. Refuses
everything but one question of class IN. What is not ours becomes a `Forward` when the guest may ask the world.
"""

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import NamedTuple, TypeAlias

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from banger.network.reserved_names import LOCALHOST, list_guest_reverse_zones, list_reserved_zones

QUERY_BYTES_MAX = 4096  # a question is 300 bytes at most; EDNS padding makes it longer
PLAIN_BYTES_MAX = 512  # of an answer over UDP, RFC 1035
LABELS_MAX = 40  # an IPv6 reverse name has 35; the time to write a packet grows with the square: 3 ms for 127
ADDITIONAL_MAX = 4  # OPT, and a signature that nobody reads
UDP_BYTES_MAX = 1232  # of an answer over UDP with EDNS: never a fragment
STREAM_BYTES_MAX = 65535
TTL_S = 5  # a name is another VM's soon
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_QUESTION = struct.Struct("!HH")
_RESPONSE = dns.flags.QR
_OPCODE = 0x7800
_KEPT_FLAGS = dns.flags.RD | dns.flags.CD
_ASKED_FLAGS = dns.flags.RD | dns.flags.CD | dns.flags.AD
_META_TYPES = range(128, 255)  # TKEY, TSIG, IXFR, AXFR …: not data; 255 is ANY
_OCTETS = {str(octet).encode(): octet for octet in range(256)}

Name: TypeAlias = dns.name.Name
Records: TypeAlias = Sequence[dns.rrset.RRset]
_IN = dns.rdataclass.IN


class _Edns(NamedTuple):
    payload: int
    version: int
    wants_dnssec: bool


class _Query(NamedTuple):
    """One question, and what of its packet the answer depends on."""

    id: int
    flags: int
    name: Name
    kind: dns.rdatatype.RdataType
    rdclass: dns.rdataclass.RdataClass
    edns: _Edns | None
    stream: bool

    @property
    def answer_bytes_max(self) -> int:
        if self.stream:
            return STREAM_BYTES_MAX
        if self.edns is None:
            return PLAIN_BYTES_MAX
        return min(max(self.edns.payload, PLAIN_BYTES_MAX), UDP_BYTES_MAX)

    def find_fault(self) -> dns.rcode.Rcode | None:
        if self.edns is not None and self.edns.version > 0:
            return dns.rcode.BADVERS
        if self.rdclass != _IN or self.kind in _META_TYPES or self.kind == dns.rdatatype.OPT:
            return dns.rcode.REFUSED
        return None

    def respond(
        self, rcode: dns.rcode.Rcode, *, answer: Records = (), authority: Records = (), flags: int = 0
    ) -> bytes:
        message = dns.message.QueryMessage(self.id)
        message.flags = dns.flags.Flag(_RESPONSE | flags | self.flags & _KEPT_FLAGS)
        message.question = [dns.rrset.RRset(self.name, self.rdclass, self.kind)]
        message.answer = list(answer)
        message.authority = list(authority)
        if self.edns is not None:
            message.use_edns(0, dns.flags.DO if self.edns.wants_dnssec else 0, UDP_BYTES_MAX)
        message.set_rcode(rcode)
        return message.to_wire(max_size=self.answer_bytes_max, prefer_truncation=True)


class Forward:
    """A question that somebody else may answer. Only its name, type and flags go out, in a packet of our own."""

    def __init__(self, query: _Query) -> None:
        self._query = query
        message = dns.message.QueryMessage(0)
        message.flags = dns.flags.Flag(query.flags & _ASKED_FLAGS)
        message.question = [dns.rrset.RRset(query.name, query.rdclass, query.kind)]
        if query.edns is not None:
            message.use_edns(
                0, dns.flags.DO if query.edns.wants_dnssec else 0, min(query.answer_bytes_max, UDP_BYTES_MAX)
            )
        self.packet = message.to_wire()

    @property
    def stream(self) -> bool:
        """Whether it came by TCP."""
        return self._query.stream

    def is_answered_by(self, packet: bytes, query_id: int) -> bool:
        """Whether it is an answer with this id to this very question (in whatever case)."""
        if len(packet) < _HEADER.size:
            return False
        answer_id, flags, questions, *_ = _HEADER.unpack_from(packet)
        if answer_id != query_id or not flags & _RESPONSE or flags & _OPCODE or questions != 1:
            return False
        try:
            name, size = dns.name.from_wire(packet, _HEADER.size)
            kind, rdclass = _QUESTION.unpack_from(packet, _HEADER.size + size)
        except (dns.exception.DNSException, struct.error):
            return False
        return (name, kind, rdclass) == (self._query.name, self._query.kind, self._query.rdclass)

    def finish(self, packet: bytes) -> bytes:
        """The answer as the guest gets it: with its own id, and cut where it is too long for it."""
        if len(packet) > self._query.answer_bytes_max:
            flags = _HEADER.unpack_from(packet)[1]
            return self._query.respond(
                dns.rcode.Rcode(flags & 0xF), flags=flags & dns.flags.RA | dns.flags.TC
            )
        return struct.pack("!H", self._query.id) + packet[2:]

    def fail(self) -> bytes:
        """Nobody has answered."""
        return self._query.respond(dns.rcode.SERVFAIL, flags=dns.flags.RA)


class Zone:
    """The names of one subnet. `server` is the address of the host, which bears the zone's own name."""

    def __init__(self, name: str, server: IPv4Interface) -> None:
        self._apex = dns.name.from_text(name)
        self._server = server.ip
        self._addresses: dict[Name, IPv4Address] = {}
        self._names: dict[IPv4Address, Name] = {server.ip: self._apex}
        self._reverse = {dns.name.from_text(zone) for zone in list_guest_reverse_zones(server.network)}
        reserved = {dns.name.from_text(zone) for zone in list_reserved_zones()}
        self._zones = {zone.labels: zone for zone in reserved | self._reverse}
        self._zone_labels_max = max(map(len, self._zones))
        self._localhost = dns.name.from_text(LOCALHOST)

    def add(self, label: str, address: str) -> str | None:
        """Replaces the address that the name had, and returns it."""
        previous = self.remove(label)
        name = self._complete(label)
        self._addresses[name] = IPv4Address(address)
        self._names[self._addresses[name]] = name
        return previous

    def remove(self, label: str) -> str | None:
        """Returns the address that the name had. Idempotent."""
        name = self._complete(label)
        address = self._addresses.pop(name, None)
        if address is None:
            return None
        if self._names.get(address) == name:
            del self._names[address]
        return str(address)

    def _complete(self, label: str) -> Name:
        return Name([label.encode("ascii"), *self._apex.labels])

    def answer(
        self, packet: bytes, *, stream: bool = False, may_forward: bool = False
    ) -> bytes | Forward | None:
        """None for what is best left without an answer: answers, and what is too short to be anything."""
        if not _HEADER.size <= len(packet) <= QUERY_BYTES_MAX:
            return None
        flags = _HEADER.unpack_from(packet)[1]
        if flags & _RESPONSE:
            return None
        if flags & _OPCODE:
            return _reject(packet, dns.rcode.NOTIMP)
        try:
            query = _parse(packet, stream)
        except (dns.exception.DNSException, struct.error):
            return _reject(packet, dns.rcode.FORMERR)
        if (fault := query.find_fault()) is not None:
            return query.respond(fault)
        return self._answer_question(query, may_forward)

    def _answer_question(self, query: _Query, may_forward: bool) -> bytes | Forward:
        available = dns.flags.RA if may_forward else 0
        if (found := self._look_up(query.name)) is not None:
            return _render(query, *found, available | dns.flags.AA)
        if len(query.name) == 2 and query.kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            # One bare label is a machine of the host's own network (LLMNR, `_gateway`), if it is anything.
            return query.respond(dns.rcode.NXDOMAIN, flags=available)
        if not may_forward or not query.flags & dns.flags.RD:
            return query.respond(dns.rcode.REFUSED, flags=available)
        return Forward(query)

    def _look_up(self, name: Name) -> "tuple[Name, _Data | None] | None":
        """The zone that the name is in and what the name has there; None for what is not answered here."""
        if name.is_subdomain(self._apex):
            return self._apex, self._find(name)
        if name.is_subdomain(self._localhost):
            return self._localhost, {dns.rdatatype.A: "127.0.0.1", dns.rdatatype.AAAA: "::1"}
        zone = self._find_zone(name)
        if zone in self._reverse:
            return zone, self._find_reverse(name, zone)
        if zone is not None:
            return zone, _apex_data(zone) if name == zone else None
        return None

    def _find_zone(self, name: Name) -> Name | None:
        """The longest reverse or reserved zone that the name is in."""
        labels = tuple(label.lower() for label in name.labels[-self._zone_labels_max :])
        for start in range(len(labels)):
            if (zone := self._zones.get(labels[start:])) is not None:
                return zone
        return None

    def _find(self, name: Name) -> "_Data | None":
        if name == self._apex:
            return _apex_data(self._apex) | {dns.rdatatype.A: str(self._server)}
        address = self._addresses.get(name)
        return None if address is None else {dns.rdatatype.A: str(address)}

    def _find_reverse(self, name: Name, zone: Name) -> "_Data | None":
        """None where no address is at or below the name."""
        if name == zone:
            return _apex_data(zone)
        octets = [_OCTETS.get(label) for label in reversed(name.labels[:-3])]  # without in-addr.arpa.
        if None in octets or len(octets) > 4:
            return None
        prefix = bytes(octet for octet in octets if octet is not None)
        if len(prefix) < 4:
            return {} if any(address.packed.startswith(prefix) for address in self._names) else None
        owner = self._names.get(IPv4Address(prefix))
        return None if owner is None else {dns.rdatatype.PTR: owner.to_text()}


_Data: TypeAlias = dict[dns.rdatatype.RdataType, str]  # of one name, as in a zone file


def _apex_data(zone: Name) -> _Data:
    """The zone's name is its own name server's: so no name of a VM is taken by it (as in RFC 6303)."""
    text = zone.to_text()
    return {
        dns.rdatatype.SOA: f"{text} nobody.invalid. 1 3600 1200 604800 {TTL_S}",
        dns.rdatatype.NS: text,
    }


def _render(query: _Query, zone: Name, data: _Data | None, flags: int) -> bytes:
    """The record asked for; or, with the zone's SOA, that there is none, or no such name."""
    if data and query.kind == dns.rdatatype.ANY:  # one set is enough, RFC 8482
        kind, text = next(iter(data.items()))
    else:
        kind, text = query.kind, (data or {}).get(query.kind, "")
    if text:
        return query.respond(dns.rcode.NOERROR, answer=[_record(query.name, kind, text)], flags=flags)
    soa = _record(zone, dns.rdatatype.SOA, _apex_data(zone)[dns.rdatatype.SOA])
    rcode = dns.rcode.NXDOMAIN if data is None else dns.rcode.NOERROR
    return query.respond(rcode, authority=[soa], flags=flags)


def _record(owner: Name, kind: dns.rdatatype.RdataType, text: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(owner, TTL_S, _IN, kind, text)


def _reject(packet: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """A bare header: the question may be anything."""
    query_id, flags, *_ = _HEADER.unpack_from(packet)
    return _HEADER.pack(query_id, _RESPONSE | flags & (_OPCODE | dns.flags.RD) | rcode, 0, 0, 0, 0)


def _parse(packet: bytes, stream: bool) -> _Query:
    """Raises DNSException or struct.error unless it is one question, at most one OPT, and nothing behind."""
    query_id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if (questions, answers, authorities) != (1, 0, 0) or additional > ADDITIONAL_MAX:
        raise dns.exception.FormError
    name, size = dns.name.from_wire(packet, _HEADER.size)
    if len(name) > LABELS_MAX:
        raise dns.exception.FormError
    kind, rdclass = _QUESTION.unpack_from(packet, _HEADER.size + size)
    edns = _parse_additional(packet, _HEADER.size + size + _QUESTION.size, additional)
    return _Query(
        query_id,
        flags,
        name,
        dns.rdatatype.RdataType(kind),
        dns.rdataclass.RdataClass(rdclass),
        edns,
        stream,
    )


def _parse_additional(packet: bytes, position: int, count: int) -> _Edns | None:
    edns: _Edns | None = None
    for _ in range(count):
        owner, size = dns.name.from_wire(packet, position)
        kind, payload, bits, length = _RECORD.unpack_from(packet, position + size)
        position += size + _RECORD.size + length
        if position > len(packet):
            raise dns.exception.FormError
        if kind == dns.rdatatype.OPT:
            if edns is not None or owner != dns.name.root:
                raise dns.exception.FormError
            edns = _Edns(payload, bits >> 16 & 0xFF, bool(bits & dns.flags.DO))
    if position != len(packet):
        raise dns.exception.FormError
    return edns
