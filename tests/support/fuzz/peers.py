"""Peers that send the daemon what is almost right, and insist on an answer or on the end of the connection."""

import os
import socket
from contextlib import suppress
from random import Random

from tests.support.fuzz.frames import (
    STREAM_REQUEST,
    make_oversized,
    mutate_line,
    render_stream_frames,
    render_valid_requests,
)

from banger.api.method import MAX_LINE_BYTES

PATIENCE_S = 30.0
_EVENT, _STREAM = b'"event":', b'"stream":'
_LAST_WORDS = (  # after these the daemon ends the connection
    b"a line is not JSON",
    b"a request is a JSON object",
    b"bytes does not fit the protocol",
    b"a second line came before the first was answered",
    b"more was sent while a call was under way",
)


class Peer:
    """One sender. What it sends depends on its seed and on what the daemon answers, on no other peer."""

    def __init__(self, path: str, seed: str) -> None:
        self.seed = seed
        self.sent = 0
        self.answered = 0
        self.closed = 0
        self._path = path
        self._random = Random(seed)
        self._valid = render_valid_requests(self._random)
        self._socket: socket.socket | None = None
        self._last = b""
        self._rest = b""

    def begin(self) -> None:
        """Sends a frame, or the first part of one."""
        random = self._random
        line = random.choice(self._valid)
        chance = random.random()
        if chance < 0.00005:
            line = make_oversized(line, random)
        elif chance < 0.97:
            line = mutate_line(line, random)
        elif chance < 0.98:  # several frames in one write
            line = b"\n".join(mutate_line(line, random) for _ in range(random.randint(2, 30)))
        line += b"\n"
        self.sent += 1
        cut = random.randrange(len(line)) if random.random() < 0.05 else len(line)
        self._last, self._rest = line, line[cut:]
        self._send(line[:cut])

    def begin_oversized(self) -> None:
        """The largest there are."""
        self.sent += 1
        self._last = self._valid[0] + b" " * (3 * MAX_LINE_BYTES) + b"\n"
        self._send(self._last)

    def is_alive(self) -> bool:
        """Whether the daemon answers a request that is right."""
        self.close()
        self._send(b'{"v":1,"method":"daemon.status"}\n')
        return b'"result"' in (self._receive_reply() or b"")

    def carry_on(self) -> None:
        if self._rest:
            self._send(self._rest)
            self._rest = b""

    def finish(self) -> None:
        """Returns when the frame is answered or the connection has ended."""
        line = self._receive_reply()
        if line is None:
            self.closed += 1
        elif any(words in line for words in _LAST_WORDS):
            self._wait_end()
        elif line.find(_STREAM, 0, 90) >= 0 and b'"error":' not in line:
            self._finish_stream()
        else:
            self.answered += 1

    def fuzz_stream(self) -> None:
        """A command with frames that end well until the last; then the daemon has to end the connection."""
        self.close()
        self._send(STREAM_REQUEST)
        line = self._receive_reply()
        assert line is not None, self.explain("the daemon closed a stream's connection before its stream")
        assert _STREAM in line, self.explain(f"a stream was refused: {line!r}")
        frames = render_stream_frames(self._random)
        self.sent += len(frames)
        self._last = b"".join(frames)
        self._send(self._last)
        self._finish_stream()

    def _finish_stream(self) -> None:
        """Whatever stream was begun, it ends when we have sent all that we want to send."""
        assert self._socket is not None
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._wait_end()

    def _wait_end(self) -> None:
        assert self._socket is not None
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            raise AssertionError(self.explain("the daemon does not end the connection")) from None
        except OSError:
            pass
        self.closed += 1
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def explain(self, what: str) -> str:
        return f"{what}; peer {self.seed}, frame {self.sent}: {self._last[:2000]!r}"

    def _send(self, data: bytes) -> None:
        """On the connection there is, or, where the daemon has ended it for the last frame, on a new one."""
        for _ in range(2):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(PATIENCE_S)
                self._socket.connect(self._path)
            try:
                self._socket.sendall(data)
                return
            except TimeoutError:
                raise AssertionError(self.explain("the daemon does not take what is sent")) from None
            except OSError:
                self.close()

    def _receive_reply(self) -> bytes | None:
        """The last line of what came that is no event; None when the connection ended without one."""
        if self._socket is None:
            return None
        received = b""
        while True:
            try:
                data = self._socket.recv(262144)
            except TimeoutError:
                raise AssertionError(self.explain("the daemon neither answers nor closes")) from None
            except OSError:
                data = b""
            if not data:
                self.close()
                return None
            received += data
            if not received.endswith(b"\n"):
                continue
            line = received[received.rfind(b"\n", 0, -1) + 1 :]
            if line.find(_EVENT, 0, 90) < 0:
                return line


def read_resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
