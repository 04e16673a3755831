"""Messages to the kernel and back (netlink(7)), whatever they are about.

Owns one socket, opened at the first request. Requests are acknowledged; several go to the kernel in one datagram.
"""

import os
import socket
import struct
from collections.abc import Iterator

_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_DUMP_INTERRUPTED = 0x10
_SOL_NETLINK, _CAP_ACK, _STRICT_CHECK = 270, 10, 12
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_BATCH = 64  # acknowledgements wait in the socket's buffer
_DUMP_TRIES = 5
_RECEIVE_BYTES = 256 * 1024
_TIMEOUT_S = 10.0


class NetlinkSocket:
    """One at a time: callers do not share it between threads at once. Raises OSError with the kernel's errno."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self._sequence = 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(
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

    def dump(self, kind: int, body: bytes, wanted: int) -> list[bytes]:
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
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol)
            opened.settimeout(_TIMEOUT_S)
            opened.bind((0, 0))
            for option in (_CAP_ACK, _STRICT_CHECK):
                opened.setsockopt(_SOL_NETLINK, option, 1)
            self._socket = opened
        return self._socket
