"""The blocks of a tar stream: entries as bytes and back. Pure.

POSIX.1-2001 (pax) with GNU's long names on input, and sparse files as GNU.sparse 1.0. Own code instead of Python's
tarfile, because that one decodes names to text, keeps every entry it has seen, recurses over headers without a bound,
reads no sparse file from a stream in one pass without seeking, and writes none. Times have whole seconds on output.
"""

import struct
from typing import NamedTuple

BLOCK_BYTES = 512
FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (b"%d" % number for number in range(7))
CONTIGUOUS, OLD_FILE = b"7", b"\0"
PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_TARGET = b"x", b"g", b"L", b"K"
EXTENSIONS = (PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_TARGET)
END = bytes(2 * BLOCK_BYTES)
MAX_SEGMENTS = 65536  # of a sparse file on input
_NAME_BYTES = 100
_HEADER = struct.Struct("<100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12s")
_BLANK_SUM = b" " * 8
_MAX_NUMBER = (1 << 63) - 1

Segments = tuple[tuple[int, int], ...]


class MalformedTar(ValueError):
    """What is no tar stream that we read; the text says why."""


class Entry(NamedTuple):
    """One file of a stream. `size` is the file's own; `segments` are (offset, length) of a sparse file's data."""

    name: bytes
    kind: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    segments: Segments | None = None


class Header(NamedTuple):
    """One block as it stands."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    target: bytes


def padding(size: int) -> int:
    return -size % BLOCK_BYTES


def render_entry(entry: Entry) -> bytes:
    """The entry's headers, and its map if it is sparse. The content follows, padded to whole blocks."""
    records: list[tuple[bytes, bytes]] = []
    name, size, sparse_map = entry.name, entry.size if entry.kind == FILE else 0, b""
    if entry.segments is not None:
        sparse_map = render_map(entry.segments)
        size = len(sparse_map) + sum(length for _, length in entry.segments)
        records += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name)]
        records.append((b"GNU.sparse.realsize", b"%d" % entry.size))
        name = b"GNUSparseFile.0/" + name.rpartition(b"/")[2][:80]
    elif len(name) > _NAME_BYTES:
        records.append((b"path", name))
    if len(entry.target) > _NAME_BYTES:
        records.append((b"linkpath", entry.target))
    uid = _shorten(b"uid", entry.uid, 8**7, records)
    gid = _shorten(b"gid", entry.gid, 8**7, records)
    mtime = _shorten(b"mtime", entry.mtime_ns // 10**9, 8**11, records)
    stored = _shorten(b"size", size, 8**11, records)
    head = b""
    if records:
        body = b"".join(_render_record(key, value) for key, value in records)
        head = _render_block(b"pax", PAX, 0o644, 0, 0, len(body), 0, b"") + body + bytes(padding(len(body)))
    block = _render_block(name, entry.kind, entry.mode & 0o7777, uid, gid, stored, mtime, entry.target)
    return head + block + sparse_map


def _shorten(key: bytes, number: int, limit: int, records: list[tuple[bytes, bytes]]) -> int:
    """What the header's field holds: 0 when the number needs a record."""
    if 0 <= number < limit:
        return number
    records.append((key, b"%d" % number))
    return 0


def _render_block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, target: bytes
) -> bytes:
    fields = [
        name[:_NAME_BYTES],
        b"%07o" % mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % mtime,
    ]
    rest = (kind, target[:_NAME_BYTES], b"ustar", b"00", b"", b"", b"0000000", b"0000000", b"", b"")
    total = sum(_HEADER.pack(*fields, _BLANK_SUM, *rest))
    return _HEADER.pack(*fields, b"%06o\0 " % total, *rest)


def _render_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value\\n`, where LENGTH counts itself."""
    body = len(key) + len(value) + 3
    length = body + len(b"%d" % body)
    if len(b"%d" % length) + body != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def render_map(segments: Segments) -> bytes:
    lines = [b"%d\n" % len(segments), *(b"%d\n%d\n" % segment for segment in segments)]
    text = b"".join(lines)
    return text + bytes(padding(len(text)))


def parse_block(block: bytes) -> Header:
    """Raises MalformedTar for a wrong checksum or number."""
    fields = _HEADER.unpack(block)
    if _parse_number(fields[6]) != sum(block) - sum(fields[6]) + sum(_BLANK_SUM):
        raise MalformedTar("a header's checksum is wrong")
    name, prefix = fields[0].partition(b"\0")[0], fields[15].partition(b"\0")[0]
    # Only POSIX's "ustar\0" has a prefix; GNU's "ustar " keeps times there.
    if prefix and fields[9] == b"ustar\0":
        name = prefix + b"/" + name
    mode, uid, gid, size, mtime = (_parse_number(field) for field in fields[1:6])
    return Header(name, mode, uid, gid, size, mtime, fields[7], fields[8].partition(b"\0")[0])


def _parse_number(field: bytes) -> int:
    """Octal with blanks around it, or GNU's base 256 behind a set high bit; never negative, never over 63 bits."""
    if field[0] & 0x80:
        number = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    else:
        digits = field.partition(b"\0")[0].strip(b" ")
        if digits.strip(b"01234567"):
            raise MalformedTar("a header's number is malformed")
        number = int(digits or b"0", 8)
    if number > _MAX_NUMBER:
        raise MalformedTar("a header's number is negative or too large")
    return number


def parse_records(body: bytes) -> dict[bytes, bytes]:
    """The records of a pax header. The last of a key wins."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + 12)
        length = parse_decimal(body[at:space]) if space > at else 0
        record = body[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if at + length > len(body) or not key or not equals or not value.endswith(b"\n"):
            raise MalformedTar("an extended header is malformed")
        records[key] = value[:-1]
        at += length
    return records


def parse_decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise MalformedTar("a number of an extended header is malformed")
    return int(text)


def parse_time(text: bytes) -> int:
    """Nanoseconds since the epoch, perhaps negative."""
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    time_ns = parse_decimal(whole) * 10**9
    if fraction:
        time_ns += parse_decimal(fraction[:9].ljust(9, b"0"))
    return -time_ns if text.startswith(b"-") else time_ns


def check_segments(segments: list[tuple[int, int]], size: int, data_bytes: int) -> Segments:
    """In order, apart, within the file, and of exactly the data that is there. Raises MalformedTar."""
    at = total = 0
    for offset, length in segments:
        if offset < at or offset + length > size:
            raise MalformedTar("the map of a sparse file is out of order or leaves the file")
        at = offset + length
        total += length
    if total != data_bytes:
        raise MalformedTar("the map of a sparse file does not fit its data")
    return tuple(segments)
