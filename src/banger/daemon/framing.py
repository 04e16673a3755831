"""Bytes into lines and frames. Pure: knows the limits of the wire and nothing of sockets."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from banger.api.frames import MAX_PAYLOAD_BYTES
from banger.api.method import MAX_LINE_BYTES
from banger.base.problem import bad_request

_HEADER = struct.Struct(">BI")


class LineSplitter:
    """Collects bytes until a line is whole. At most one line and its beginning of the next are kept."""

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def pending(self) -> int:
        return len(self._pending)

    def feed(self, data: bytes) -> bytes | None:
        """The next whole line without its end, or None. Call with b"" for a line that waits already.

        Raises `bad_request` as soon as a line is longer than the limit, whether it has ended or not.
        """
        pending = self._pending
        if not pending and data.endswith(b"\n") and data.find(b"\n") == len(data) - 1:
            _check_length(len(data))
            return data[:-1]
        searched = len(pending) if data else 0
        pending += data
        end = pending.find(b"\n", searched)
        _check_length(end + 1 if end >= 0 else len(pending) + 1)
        if end < 0:
            return None
        line = bytes(pending[:end])
        del pending[: end + 1]
        return line


def _check_length(length: int) -> None:
    if length > MAX_LINE_BYTES:
        raise bad_request(f"a line of more than {MAX_LINE_BYTES} bytes does not fit the protocol")


class Frame(NamedTuple):
    kind: int
    payload: bytes


class FrameSplitter:
    """Collects bytes until frames are whole; keeps less than one frame between calls."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises `bad_request` on a payload beyond the limit."""
        pending = self._pending
        pending += data
        offset = 0
        try:
            while len(pending) - offset >= _HEADER.size:
                kind, length = _HEADER.unpack_from(pending, offset)
                if length > MAX_PAYLOAD_BYTES:
                    raise bad_request(
                        f"a frame of {length} bytes does not fit the protocol: at most {MAX_PAYLOAD_BYTES}"
                    )
                end = offset + _HEADER.size + length
                if end > len(pending):
                    return
                payload = bytes(pending[offset + _HEADER.size : end])
                offset = end
                yield Frame(kind, payload)
        finally:
            del pending[:offset]


def render_frame(kind: int, payload: bytes) -> bytes:
    assert len(payload) <= MAX_PAYLOAD_BYTES, len(payload)
    return _HEADER.pack(kind, len(payload)) + payload
