"""The bytes of the guest agent's protocol: frames, fields, and finding the start of a conversation. Pure.

The contract is `guest-agent/protocol.md`; `guest-agent/vectors.json` is tested against this module and
against the agent's own parser. Nothing here waits, and nothing here trusts its input: whatever breaks the
format raises `MalformedFrame`.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"\xf0\x9f\x94\xa8banger/1\r\n\x1a\n"
NONCE_BYTES = 16
MAX_PAYLOAD_BYTES = 16384
WINDOW_BYTES = 262144  # what each stream of a channel may have outstanding before the first WINDOW

_HEADER = struct.Struct("<BBHII")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_FIELD = struct.Struct("<BI")
HEADER_BYTES = _HEADER.size
FLUSH = bytes(HEADER_BYTES + MAX_PAYLOAD_BYTES)  # completes any half frame, then is malformed itself


class FrameType(IntEnum):
    HELLO = 1
    WELCOME = 2
    OPEN = 3
    STARTED = 4
    DATA = 5
    EOF = 6
    WINDOW = 7
    CONTROL = 8
    CLOSE = 9
    END = 10


class Stream(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2


# By type: shortest and longest payload, highest stream. Type 0 and unknown types fit nothing.
_OPENING_BYTES = len(MAGIC) + NONCE_BYTES
_SHAPES = (
    (1, 0, 0),
    (_OPENING_BYTES, MAX_PAYLOAD_BYTES, 0),  # HELLO
    (_OPENING_BYTES, MAX_PAYLOAD_BYTES, 0),  # WELCOME
    (2, MAX_PAYLOAD_BYTES, 0),  # OPEN
    (0, MAX_PAYLOAD_BYTES, 0),  # STARTED
    (0, MAX_PAYLOAD_BYTES, Stream.STDERR),  # DATA
    (0, 0, Stream.STDERR),  # EOF
    (4, 4, Stream.STDERR),  # WINDOW
    (2, MAX_PAYLOAD_BYTES, 0),  # CONTROL
    (0, 0, 0),  # CLOSE
    (4, MAX_PAYLOAD_BYTES, 0),  # END
    (1, 0, 0),
)
_UNKNOWN_TYPE = len(_SHAPES) - 1


class MalformedFrame(ValueError):
    """The peer broke the protocol."""


class Frame(NamedTuple):
    """One frame. `type` and `stream` are plain numbers here, for speed; both were checked."""

    type: int
    stream: int
    channel: int
    payload: bytes


def encode_frame(frame_type: int, stream: int, channel: int, payload: bytes = b"") -> bytes:
    assert len(payload) <= MAX_PAYLOAD_BYTES, len(payload)
    return _HEADER.pack(frame_type, stream, 0, channel, len(payload)) + payload


def encode_data(stream: int, channel: int, data: memoryview) -> bytes:
    """As many DATA frames as the bytes need, joined, to be written at once."""
    parts: list[bytes | memoryview] = []
    for start in range(0, len(data), MAX_PAYLOAD_BYTES):
        piece = data[start : start + MAX_PAYLOAD_BYTES]
        parts += (_HEADER.pack(FrameType.DATA, stream, 0, channel, len(piece)), piece)
    return b"".join(parts)


def encode_u16(value: int) -> bytes:
    return _U16.pack(value)


def encode_u32(value: int) -> bytes:
    return _U32.pack(value)


def decode_u16(payload: bytes) -> tuple[int, bytes]:
    """The number that a payload of OPEN or CONTROL begins with, and the rest."""
    if len(payload) < 2:
        raise MalformedFrame(f"a number of 2 bytes is missing in {len(payload)}")
    return _U16.unpack_from(payload)[0], payload[2:]


def decode_u32(payload: bytes) -> tuple[int, bytes]:
    if len(payload) < 4:
        raise MalformedFrame(f"a number of 4 bytes is missing in {len(payload)}")
    return _U32.unpack_from(payload)[0], payload[4:]


class FrameParser:
    """Bytes in, in pieces of any size; frames out. Holds less than one frame beyond what was last fed."""

    def __init__(self, data: bytes = b"") -> None:
        self._buffer = data
        self._at = 0

    def feed(self, data: bytes) -> None:
        self._buffer = data if self._at == len(self._buffer) else self._buffer[self._at :] + data
        self._at = 0

    @property
    def unparsed(self) -> bytes:
        """What no returned frame covers; after `MalformedFrame`, from the offending header on."""
        return self._buffer[self._at :]

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None until more is fed. The header alone can raise `MalformedFrame`."""
        start = self._at
        buffer = self._buffer
        body = start + HEADER_BYTES
        if body > len(buffer):
            return None
        frame_type, stream, zero, channel, length = _HEADER.unpack_from(buffer, start)
        shortest, longest, streams = _SHAPES[min(frame_type, _UNKNOWN_TYPE)]
        if (
            not shortest <= length <= longest
            or stream > streams
            or zero != 0
            or (channel == 0) != (frame_type <= FrameType.WELCOME)
        ):
            raise MalformedFrame(f"frame header {buffer[start:body].hex()} is malformed")
        end = body + length
        if end > len(buffer):
            return None
        self._at = end
        return Frame(frame_type, stream, channel, buffer[body:end])


class OpeningSearch:
    """Finds the frame that begins a conversation in whatever stale bytes come before it.

    The host looks for WELCOME with the magic and its nonce, the guest for HELLO with the magic.
    """

    def __init__(self, frame_type: FrameType, needle: bytes) -> None:
        self._start = _HEADER.pack(frame_type, 0, 0, 0, 0)[:8]
        self._needle = needle
        self._tail = b""

    def feed(self, data: bytes) -> bytes | None:
        """All bytes from the frame's header on, or None until it has been seen. Keeps a few bytes only."""
        buffer = self._tail + data
        at = buffer.find(self._needle)
        while at >= 0:
            header = at - HEADER_BYTES
            if header >= 0 and buffer.startswith(self._start, header):
                length = _U32.unpack_from(buffer, at - 4)[0]
                if _OPENING_BYTES <= length <= MAX_PAYLOAD_BYTES:
                    return buffer[header:]
            at = buffer.find(self._needle, at + 1)
        self._tail = buffer[-(HEADER_BYTES + len(self._needle) - 1) :]
        return None


FieldValue = int | str | bytes


def encode_fields(fields: Iterable[tuple[int, FieldValue]]) -> bytes:
    """Numbers as u64, text as UTF-8 in which undecodable bytes of a file name survive, bytes as they are."""
    parts: list[bytes] = []
    for tag, value in fields:
        encoded = _encode_value(value)
        parts += (_FIELD.pack(tag, len(encoded)), encoded)
    return b"".join(parts)


def _encode_value(value: FieldValue) -> bytes:
    if isinstance(value, int):
        return _U64.pack(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value


def decode_u64(encoded: bytes) -> int:
    if len(encoded) != _U64.size:
        raise MalformedFrame(f"a number has {len(encoded)} bytes, not 8")
    number: int = _U64.unpack(encoded)[0]
    return number


class Fields:
    """Decoded fields. Getters give None or nothing for what is missing; required fields are the caller's
    to check. A number of the wrong size raises `MalformedFrame`."""

    def __init__(self, pairs: Iterable[tuple[int, bytes]] = ()) -> None:
        self._pairs = tuple(pairs)

    def __repr__(self) -> str:
        return f"Fields({self._pairs!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def find_all(self, tag: int) -> tuple[bytes, ...]:
        return tuple(value for pair_tag, value in self._pairs if pair_tag == tag)

    def find(self, tag: int) -> bytes | None:
        for pair_tag, value in self._pairs:
            if pair_tag == tag:
                return value
        return None

    def find_number(self, tag: int) -> int | None:
        value = self.find(tag)
        return None if value is None else decode_u64(value)

    def find_text(self, tag: int) -> str | None:
        """Text as file names are kept: bytes that are no UTF-8 become surrogates and survive a round trip."""
        value = self.find(tag)
        return None if value is None else value.decode("utf-8", "surrogateescape")


def decode_fields(payload: bytes) -> Fields:
    pairs: list[tuple[int, bytes]] = []
    at = 0
    while at < len(payload):
        body = at + _FIELD.size
        if body > len(payload):
            raise MalformedFrame("a field's header is cut off")
        tag, length = _FIELD.unpack_from(payload, at)
        at = body + length
        if at > len(payload):
            raise MalformedFrame(f"field {tag} claims {length} bytes and has {len(payload) - body}")
        pairs.append((tag, payload[body:at]))
    return Fields(pairs)
