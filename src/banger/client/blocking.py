"""The blocking client: one socket, one call at a time. What the CLI uses.

Owns connecting (and starting the daemon when nobody listens), calls with their events, and the hand-over to
a stream of frames. Imports `_socket`, not `socket`: the latter costs as much as the interpreter's own start.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket

from banger.client import places, wire
from banger.client.statuses import CONTROL, MAX_LINE_BYTES, STDIN
from banger.client.wire import Failure, RemoteProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    Params = dict[str, Any]
    OnEvent = Callable[[dict[str, Any]], None]
    OnIdle = Callable[[], None]

_IDLE_MS = 100
_RECEIVE_BYTES = 65536


class Connection:
    """A connection to the daemon. Calls follow one another; a stream takes the connection over."""

    def __init__(self, connected: socket) -> None:
        self._socket = connected
        self._received = bytearray()
        self.op = ""

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves. Work that is under way for this connection is cancelled and undone by the daemon."""
        self._socket.close()

    @property
    def daemon_pid(self) -> int:
        return _peer(self._socket)[0]

    @property
    def is_idle(self) -> bool:
        """False when the daemon has closed it, or anything else is there to be read. Between calls only."""
        import select

        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not self._received and not poll.poll(0)

    def call(
        self,
        method: str,
        params: Params | None = None,
        *,
        on_event: OnEvent | None = None,
        on_idle: OnIdle | None = None,
        op: str | None = None,
        detach: bool = False,
    ) -> dict[str, Any]:
        """The result. Events go to `on_event`; `on_idle` runs about ten times a second while nothing comes.

        `self.op` is the operation's id as soon as the daemon has named it, for who is interrupted meanwhile.
        Raises RemoteProblem for the daemon's error, Failure when the connection breaks.
        """
        self.op = op or ""
        if on_idle is not None:
            import select  # noqa: F401 (before anything is asked: a Ctrl-C in the midst of an import can get lost)
        self._send(wire.encode_request(method, params or {}, op=op, detach=detach))
        while True:
            line = self._receive_line(on_idle)
            self.op = line.get("op") or self.op
            if "event" in line:
                if on_event is not None:
                    on_event(line["event"])
            elif "error" in line:
                raise _explained(RemoteProblem.from_reply(line))
            else:
                result = line.get("result")
                return result if isinstance(result, dict) else {}

    def stream(self, method: str, params: Params, *, op: str | None = None) -> CommandConnection:
        """Begins a stream method. From here on the connection belongs to the CommandConnection."""
        self._send(wire.encode_request(method, params, op=op))
        line = self._receive_line(None)
        if "error" in line:
            raise _explained(RemoteProblem.from_reply(line))
        about = line.get("stream")
        about = about if isinstance(about, dict) else {}
        return CommandConnection(self._socket, self._received, about=about, op=line.get("op"))

    def _send(self, line: bytes) -> None:
        try:
            self._socket.sendall(line)
        except (BrokenPipeError, ConnectionResetError):
            raise _lost() from None

    def _receive_line(self, on_idle: OnIdle | None) -> dict[str, Any]:
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > MAX_LINE_BYTES:
                raise Failure("internal", "the daemon's answer is longer than 1 MiB", outcome="unknown")
            if on_idle is not None:
                self._wait(on_idle)
            try:
                received = self._socket.recv(_RECEIVE_BYTES)
            except ConnectionResetError:
                received = b""
            if not received:
                raise _lost()
            self._received += received
        line = self._received[:end]
        del self._received[: end + 1]
        return wire.decode_line(line)

    def _wait(self, on_idle: OnIdle) -> None:
        import select

        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(_IDLE_MS):
            on_idle()


class CommandConnection:
    """A command that runs in a guest: frames both ways over a non-blocking socket.

    For an event loop of the caller's: poll `fileno()` for reading, and for writing while `unsent` is true.
    Nothing is buffered beyond one frame in each direction, so back-pressure reaches both ends.
    """

    def __init__(
        self, connected: socket, received: bytes | bytearray, *, about: dict[str, Any], op: str | None
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._buffer = wire.FrameBuffer(received)
        self._unsent: list[memoryview] = []
        self._has_received = bool(received)
        self.about = about  # what the daemon has said of it, such as the command's pid
        self.op = op

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Leaves; the daemon ends the command."""
        self._socket.close()

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def send_stdin(self, data: bytes) -> None:
        """Bytes for the command's stdin, at most one frame's worth; no bytes are the end of input."""
        self._queue(STDIN, data)

    def send_signal(self, number: int) -> None:
        self._queue(CONTROL, wire.encode_json({"signal": number}).encode())

    def send_size(self, rows: int, columns: int) -> None:
        self._queue(CONTROL, wire.encode_json({"rows": rows, "columns": columns}).encode())

    def flush(self) -> None:
        """Sends what the socket takes. Once the daemon has closed its end, the rest is dropped."""
        try:
            while self._unsent:
                sent = self._socket.sendmsg(self._unsent)
                while self._unsent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.pop(0))
                if sent:
                    self._unsent[0] = self._unsent[0][sent:]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._unsent.clear()

    def receive(self) -> list[tuple[int, memoryview]] | None:
        """The frames that are there, maybe none; None at the end. Payloads are valid until the next call."""
        if self._has_received:
            self._has_received = False
            if frames := self._buffer.take_frames():
                return frames
        try:
            count = self._socket.recv_into(self._buffer.room())
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        if not count:
            return None
        self._buffer.add(count)
        return self._buffer.take_frames()

    def _queue(self, kind: int, payload: bytes) -> None:
        self._unsent.append(memoryview(wire.encode_header(kind, len(payload)) + payload))
        self.flush()


def open_connection() -> Connection:
    """A connection to this user's daemon, which is started if it does not run."""
    connection = find_connection()
    if connection is not None:
        return connection
    from banger.client import launch

    launch.start_daemon()
    connection = find_connection()
    if connection is None:
        raise Failure(
            "conflict",
            "another daemon is starting or stopping and does not listen",
            hint="try again in a moment, or look with: banger daemon status",
        )
    return connection


def find_connection() -> Connection | None:
    """A connection to the running daemon, or None: nobody listens, or a dead socket was left behind."""
    path = places.socket_path()
    connected = socket(AF_UNIX, SOCK_STREAM)
    try:
        connected.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connected.close()
        return None
    except PermissionError as error:
        raise Failure("unauthorized", f"{path} belongs to somebody else", hint="banger doctor") from error
    except OSError as error:
        raise Failure(
            "unavailable",
            f"{path} cannot be reached: {error}",
            hint=f"export BANGER_RUNTIME_DIR=/tmp/banger-{os.getuid()}",
        ) from error
    uid = _peer(connected)[1]
    if uid not in (os.getuid(), 0):
        connected.close()
        raise Failure(
            "unauthorized", f"the daemon at {path} runs as uid {uid}, not as you", hint="banger doctor"
        )
    return Connection(connected)


def _peer(connected: socket) -> tuple[int, int]:
    """(pid, uid) of the process that listens (unix(7), SO_PEERCRED: struct ucred)."""
    credentials = connected.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder), int.from_bytes(credentials[4:8], sys.byteorder)


def _lost() -> Failure:
    return Failure(
        "unavailable",
        "the daemon closed the connection before it answered",
        hint="banger operation list",
        outcome="unknown",
    )


def _explained(problem: RemoteProblem) -> RemoteProblem:
    if problem.code in ("bad_version", "unknown_method") and not problem.hint:
        problem.hint = "the daemon is of another version: banger daemon stop, then try again"
    return problem
