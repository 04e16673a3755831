"""What the agent reports, as values: health, usage, files, listeners. Pure, both directions.

Text that names files keeps undecodable bytes as surrogates (`os.fsencode` brings them back).
"""

import ipaddress
import re
import struct
from typing import NamedTuple

from banger.guest.frames import Fields, MalformedFrame, decode_fields, encode_fields

_LISTENER = struct.Struct("<BBHI")
_PROTOCOLS = {6: "tcp", 17: "udp"}
_ADDRESS_BYTES = {4: 4, 6: 16}
_LENGTH = struct.Struct("<I")
_ROOM = struct.Struct("<QQQ")
_MAX_ENTRY_BYTES = 65536
_MAX_WORD = 64
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Health(NamedTuple):
    uptime_us: int
    boot_id: str
    load1: float
    memory_total_bytes: int
    memory_available_bytes: int
    agent_rss_bytes: int
    init_mode: str


class FileSystem(NamedTuple):
    """A mounted one in the guest. `available_bytes` is what an ordinary user may still take."""

    path: str
    size_bytes: int
    free_bytes: int
    available_bytes: int


class Usage(NamedTuple):
    """What the guest uses. The bytes are those of its network cards since it booted; `connections` are established
    TCP connections to the port that was asked about, None when none was."""

    received_bytes: int
    sent_bytes: int
    file_systems: tuple[FileSystem, ...]
    connections: int | None = None


class Entry(NamedTuple):
    """A file in the guest. `mode` includes the type bits; `target` is a symbolic link's."""

    name: str
    mode: int
    size_bytes: int
    uid: int
    gid: int
    mtime_ns: int
    target: str | None = None


class Listener(NamedTuple):
    """A socket that listens in the guest. `pid` 0 and an empty command mean that the owner is not known."""

    protocol: str
    address: str
    port: int
    pid: int
    command: str


def parse_health(fields: Fields) -> Health:
    return Health(
        need_number(fields, 1),
        clean_boot_id(need_bytes(fields, 2)),
        need_number(fields, 3) / 100,
        need_number(fields, 4),
        need_number(fields, 5),
        need_number(fields, 6),
        clean_word(need_bytes(fields, 7)),
    )


def encode_health(health: Health) -> bytes:
    return encode_fields(
        (
            (1, health.uptime_us),
            (2, health.boot_id),
            (3, round(health.load1 * 100)),
            (4, health.memory_total_bytes),
            (5, health.memory_available_bytes),
            (6, health.agent_rss_bytes),
            (7, health.init_mode),
        )
    )


def parse_usage(fields: Fields) -> Usage:
    return Usage(
        need_number(fields, 1),
        need_number(fields, 2),
        tuple(_parse_file_system(encoded) for encoded in fields.find_all(3)),
        fields.find_number(4),
    )


def _parse_file_system(encoded: bytes) -> FileSystem:
    if len(encoded) < _ROOM.size:
        raise MalformedFrame("a file system is cut off")
    return FileSystem(clean_word(encoded[_ROOM.size :]), *_ROOM.unpack_from(encoded))


def encode_usage(usage: Usage) -> bytes:
    encoded = encode_fields(
        (
            (1, usage.received_bytes),
            (2, usage.sent_bytes),
            *((3, _ROOM.pack(*system[1:]) + system.path.encode()) for system in usage.file_systems),
        )
    )
    return encoded if usage.connections is None else encoded + encode_fields([(4, usage.connections)])


def parse_entry(encoded: bytes) -> Entry:
    fields = decode_fields(encoded)
    return Entry(
        need_text(fields, 1),
        need_number(fields, 2),
        need_number(fields, 3),
        need_number(fields, 4),
        need_number(fields, 5),
        need_number(fields, 6),
        fields.find_text(7),
    )


def encode_entry(entry: Entry) -> bytes:
    encoded = encode_fields(
        (
            (1, entry.name),
            (2, entry.mode),
            (3, entry.size_bytes),
            (4, entry.uid),
            (5, entry.gid),
            (6, entry.mtime_ns),
        )
    )
    return encoded if entry.target is None else encoded + encode_fields([(7, entry.target)])


class EntryParser:
    """The byte stream of file_list: `u32 length, entry`, cut anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Entry]:
        self._buffer += data
        entries: list[Entry] = []
        at = 0
        while len(self._buffer) - at >= _LENGTH.size:
            length = _LENGTH.unpack_from(self._buffer, at)[0]
            if length > _MAX_ENTRY_BYTES:
                raise MalformedFrame(f"a directory entry claims {length} bytes")
            end = at + _LENGTH.size + length
            if end > len(self._buffer):
                break
            entries.append(parse_entry(bytes(self._buffer[at + _LENGTH.size : end])))
            at = end
        del self._buffer[:at]
        return entries

    @property
    def is_whole(self) -> bool:
        return not self._buffer


def encode_listed(entry: Entry) -> bytes:
    encoded = encode_entry(entry)
    return _LENGTH.pack(len(encoded)) + encoded


def parse_listener(encoded: bytes) -> Listener:
    if len(encoded) < _LISTENER.size:
        raise MalformedFrame("a listener is cut off")
    protocol, family, port, pid = _LISTENER.unpack_from(encoded)
    if protocol not in _PROTOCOLS or family not in _ADDRESS_BYTES:
        raise MalformedFrame(f"a listener has protocol {protocol} and family {family}")
    end = _LISTENER.size + _ADDRESS_BYTES[family]
    if len(encoded) < end:
        raise MalformedFrame("a listener's address is cut off")
    address = ipaddress.ip_address(encoded[_LISTENER.size : end])
    return Listener(_PROTOCOLS[protocol], str(address), port, pid, clean_word(encoded[end:]))


def encode_listener(listener: Listener) -> bytes:
    address = ipaddress.ip_address(listener.address)
    protocol = next(number for number, name in _PROTOCOLS.items() if name == listener.protocol)
    head = _LISTENER.pack(protocol, address.version, listener.port, listener.pid)
    return head + address.packed + listener.command.encode()


def need_number(fields: Fields, tag: int) -> int:
    number = fields.find_number(tag)
    if number is None:
        raise MalformedFrame(f"field {tag} is missing")
    return number


def need_text(fields: Fields, tag: int) -> str:
    text = fields.find_text(tag)
    if text is None:
        raise MalformedFrame(f"field {tag} is missing")
    return text


def need_bytes(fields: Fields, tag: int) -> bytes:
    value = fields.find(tag)
    if value is None:
        raise MalformedFrame(f"field {tag} is missing")
    return value


def clean_word(untrusted: bytes) -> str:
    """What a guest calls something, fit to be shown and kept: printable, not long."""
    return "".join(c for c in untrusted.decode("utf-8", "replace") if c.isprintable())[:_MAX_WORD]


def clean_boot_id(untrusted: bytes) -> str:
    """The kernel's boot id, or "" for anything of another form."""
    text = untrusted.decode("ascii", "replace")
    return text if _UUID.fullmatch(text) else ""
