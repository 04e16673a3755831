"""Commands and files for the lab, over its virtio-serial port; several at once.

Owns the connection and one thread that reads it. What the frames are is told in inside/agent.py. When the
connection ends, everything that waits fails with LabLost; so does what waits for a lab that has come to a standstill,
which its emulator brings about now and then.
"""

import json
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, NamedTuple

_GRACE_S = (
    60.0  # beyond a command's own deadline; the agent ends the command, so this is for a lab that hangs
)
_PULSE_S = 20.0  # how often a lab that owes an answer is asked for a sign of life
_PULSE_DEADLINE_S = 90.0


class ChannelError(Exception):
    """The lab cannot do it, or cannot be asked."""


class LabLost(ChannelError):
    """It has ended, or nobody in it answers any more."""


@dataclass(frozen=True)
class Done:
    """A command that has ended. `late`: the deadline ended it."""

    argv: tuple[str, ...]
    status: int
    out: bytes
    err: bytes
    seconds: float
    late: bool

    @property
    def stdout(self) -> str:
        return self.out.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        return self.err.decode("utf-8", "replace")

    def __str__(self) -> str:
        how = "did not end in time" if self.late else f"ended with {self.status}"
        return f"{' '.join(self.argv)} {how} after {self.seconds:.1f} s\n{self.stdout}{self.stderr}"


class Reply(NamedTuple):
    header: dict[str, Any]
    bodies: tuple[bytes, ...]


class Channel:
    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._stream = connected.makefile("rb")
        self._waiting: dict[int, Future[Reply]] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._nonce = ""
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="lab channel", daemon=True)
        self._reader.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._stream.close()
        self._socket.close()

    def greet(self, timeout_s: float) -> None:
        """Returns when the agent answers. What is still in the port from before is passed over."""
        self._nonce = secrets.token_hex(8)
        self._await(self.submit("hello", nonce=self._nonce), timeout_s)

    def submit(self, operation: str, body: bytes = b"", **request: Any) -> Future[Reply]:
        """Sends a request; the future gets its reply."""
        future: Future[Reply] = Future()
        with self._lock:
            if self._ended:
                raise LabLost("the lab has ended")
            self._next += 1
            self._waiting[self._next] = future
            header = {"id": self._next, "op": operation, "body": len(body), **request}
            future.lab_id = self._next  # type: ignore[attr-defined]
            self._socket.sendall(json.dumps(header).encode() + b"\n" + body)
        return future

    def ask(self, operation: str, body: bytes = b"", *, timeout_s: float = 60.0, **request: Any) -> Reply:
        return self._result(self.submit(operation, body, **request), timeout_s)

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float = 300.0,
    ) -> "Running":
        words = tuple(argv)
        request = {"argv": words, "user": user, "env": env, "cwd": cwd, "timeout_s": timeout_s}
        return Running(self, words, timeout_s, self.submit("run", stdin, **request))

    def _result(self, future: Future[Reply], timeout_s: float) -> Reply:
        until = time.monotonic() + timeout_s
        while until - time.monotonic() > _PULSE_S and not wait((future,), _PULSE_S).done:
            self._feel_pulse()
        reply = self._await(future, until - time.monotonic())
        if "error" in reply.header:
            raise ChannelError(reply.header["error"])
        return reply

    def _await(self, future: Future[Reply], timeout_s: float) -> Reply:
        try:
            return future.result(max(timeout_s, 0))
        except FutureTimeoutError as error:
            raise ChannelError(f"the lab does not answer within {timeout_s:.0f} s") from error

    def _feel_pulse(self) -> None:
        if not wait((self.submit("hello", nonce=self._nonce),), _PULSE_DEADLINE_S).done:
            with self._lock:
                self._ended = True
            raise LabLost(f"the lab has come to a standstill: no sign of life for {_PULSE_DEADLINE_S:.0f} s")

    def _read(self) -> None:
        try:
            while line := self._stream.readline():
                self._take(line)
        except OSError:
            pass
        finally:
            with self._lock:
                self._ended = True
                waiting, self._waiting = self._waiting, {}
            for future in waiting.values():
                future.set_exception(LabLost("the lab has ended"))

    def _take(self, line: bytes) -> None:
        try:
            header = json.loads(line)
            bodies = tuple(self._stream.read(size) for size in header["bodies"])
        except (ValueError, KeyError, TypeError):
            return  # the rest of a frame that was for somebody before us
        if header.get("hello", self._nonce) != self._nonce:
            return
        with self._lock:
            future = self._waiting.pop(header["id"], None)
        if future is not None:
            future.set_result(Reply(header, bodies))


class Running:
    """A command that may not have ended yet."""

    def __init__(
        self, channel: Channel, argv: tuple[str, ...], timeout_s: float, future: Future[Reply]
    ) -> None:
        self._channel = channel
        self._argv = argv
        self._until = time.monotonic() + timeout_s + _GRACE_S
        self._future = future

    @property
    def ended(self) -> bool:
        return self._future.done()

    def signal(self, number: int) -> None:
        """To the command and all that it has started in its session. Raises ChannelError when it has ended."""
        reply = self._channel.ask("signal", target=self._future.lab_id, number=number)  # type: ignore[attr-defined]
        if not reply.header["found"]:
            raise ChannelError(f"{' '.join(self._argv)} has ended already")

    def wait(self) -> Done:
        reply = self._channel._result(self._future, self._until - time.monotonic())
        header, (out, err) = reply.header, reply.bodies
        return Done(self._argv, header["status"], out, err, header["seconds"], header["late"])
