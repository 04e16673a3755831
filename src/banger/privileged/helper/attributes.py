"""Netlink attributes as bytes and back (netlink(7)): length, type, value, padded to four bytes. Pure."""

import struct

_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF  # without the bits for nested and for network byte order


def pack_attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def pack_text(kind: int, text: str) -> bytes:
    return pack_attribute(kind, text.encode() + b"\0")


def pack_u32(kind: int, number: int) -> bytes:
    return pack_attribute(kind, struct.pack("=I", number))


def pack_u8(kind: int, number: int) -> bytes:
    return pack_attribute(kind, bytes((number,)))


def unpack_attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes by type; of several with one type the last. Stops at one that is cut off."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            break
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def unpack_text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")


def unpack_u32(value: bytes | None) -> int:
    """Zero for an attribute that is not there."""
    return int(struct.unpack("=I", value)[0]) if value is not None and len(value) == 4 else 0
