"""The root helper behind its socket: the way to root of an ordinary user's daemon.

Owns one connection, made at the first call and made anew when the helper was restarted, and a lock: one call is
under way at a time, and the next datagram is its answer. A call that ends without its answer (cancelled, late, broken)
closes the connection, so answers never shift; descriptors that were on their way are closed by the kernel then.

A request is sent again if the helper cannot have seen it, as when sending failed; and once more after a helper that
died over it, if it is one that done twice is done once: what a VM gives back is not left to the next sweep.
"""

import asyncio
import os
import pwd
import socket
import stat
import struct
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from banger.base.log import operation_id
from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.privileged.calls import close_all, guard_call, verify_reply
from banger.privileged.contract.base import DESCRIPTORS_MAX, MESSAGE_BYTES_MAX, VERSION, Reply, Request
from banger.privileged.contract.codec import decode_answer, encode_request
from banger.privileged.contract.machines import DetachSnapshot, LaunchVmm, RemoveJail
from banger.privileged.contract.network import (
    AdmitGuest,
    ApplyGuests,
    DeleteTaps,
    EnsureBridge,
    PublishPorts,
    ReleaseGuest,
    RouteNames,
    UnpublishPorts,
    UnrouteNames,
)
from banger.privileged.contract.processes import Hello

R = TypeVar("R")

INSTALL = "sudo banger system install"
STATUS = "sudo banger system status"
DEADLINE_S = 10.0
_DEADLINES_S = {
    EnsureBridge.method: 30.0,  # the first one of a host loads a dozen kernel modules
    RouteNames.method: 20.0,  # resolvectl may have to start systemd-resolved
    LaunchVmm.method: 30.0,  # a kernel of another file system's is copied, and what a dead VMM left is removed
    RemoveJail.method: 20.0,  # waits for the VMM's end
}
_IDEMPOTENT: frozenset[str] = frozenset(
    request.method
    for request in (
        AdmitGuest,
        ApplyGuests,
        DeleteTaps,
        DetachSnapshot,
        PublishPorts,
        ReleaseGuest,
        RemoveJail,
        UnpublishPorts,
        UnrouteNames,
    )
)
_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


class HelperClient:
    """`Privileged` over the socket at `path`. Works again by itself once a helper listens there."""

    kind = "helper"

    def __init__(self, path: Path, *, deadline_s: float | None = None) -> None:
        """`deadline_s` replaces every method's own."""
        self._path = path
        self._deadline_s = deadline_s
        self._lock = asyncio.Lock()
        self._connection: _Connection | None = None

    async def call(self, request: Request[R], descriptors: Sequence[int] = ()) -> Reply[R]:
        """The outcome of a Problem is `unknown` once the helper has the request and has not answered."""
        with guard_call(self.kind, request, descriptors):
            message = encode_request(request, operation_id.get())
            async with self._lock:
                answer, received = await self._exchange(request, message, descriptors)
            return _decode(request, answer, received)

    async def close(self) -> None:
        """After the call that is under way."""
        async with self._lock:
            self._disconnect()

    async def _exchange(
        self, request: Request[Any], message: bytes, descriptors: Sequence[int]
    ) -> tuple[bytes, tuple[int, ...]]:
        try:
            return await self._try_exchange(request, message, descriptors)
        except Problem as problem:
            has_died = problem.outcome is Outcome.UNKNOWN and not isinstance(problem.__cause__, TimeoutError)
            if not has_died or request.method not in _IDEMPOTENT:
                raise
            try:
                return await self._try_exchange(request, message, descriptors)
            except Problem:
                raise problem from problem.__cause__  # whatever the second try says, the first may have done it

    async def _try_exchange(
        self, request: Request[Any], message: bytes, descriptors: Sequence[int]
    ) -> tuple[bytes, tuple[int, ...]]:
        deadline_s = self._deadline_s or _DEADLINES_S.get(request.method, DEADLINE_S)
        outcome = Outcome.NOT_STARTED
        answered = False
        try:
            async with asyncio.timeout(deadline_s) as deadline:
                connection = await self._deliver(message, descriptors)
                outcome = Outcome.UNKNOWN
                answer = await connection.receive()
                answered = True
                return answer
        except OSError as error:  # TimeoutError is one
            why = f"no answer within {deadline_s:g} s" if deadline.expired() else _say(error)
            what = f"left {request.method} unanswered" if outcome is Outcome.UNKNOWN else "cannot be reached"
            raise Problem(
                Code.UNAVAILABLE, f"the root helper {what}: {why}", hint=STATUS, outcome=outcome
            ) from error
        finally:
            if not answered:
                self._disconnect()

    async def _deliver(self, message: bytes, descriptors: Sequence[int]) -> "_Connection":
        """A connection whose other end has the message. A helper that was restarted is noticed by a send that fails,
        and then nobody has the message: it goes out again on a new connection."""
        if self._connection is not None:
            try:
                await self._connection.send(message, descriptors)
                return self._connection
            except ConnectionError:
                self._disconnect()
        self._connection = await _connect(self._path)
        await self._connection.send(message, descriptors)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection:
    """A non-blocking SOCK_SEQPACKET socket on the event loop: one datagram is one message."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def close(self) -> None:
        self._socket.close()

    async def send(self, message: bytes, descriptors: Sequence[int]) -> None:
        """All of it or nothing."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._socket.sendmsg([message], _ancillary(descriptors))
                return
            except BlockingIOError:
                await self._wait(loop.add_writer, loop.remove_writer)

    async def receive(self) -> tuple[bytes, tuple[int, ...]]:
        """An answer and its descriptors, which are the caller's. Raises OSError.

        Nothing can be lost to a cancellation: what is awaited is readiness, and the descriptors are taken after it.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._wait(loop.add_reader, loop.remove_reader)
            try:
                answer, ancillary, flags, _ = self._socket.recvmsg(
                    MESSAGE_BYTES_MAX, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                continue
            received = _list_descriptors(ancillary)
            if answer and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                return answer, received
            close_all(received)
            raise ConnectionResetError("its answer is cut off" if answer else "it closed the connection")

    async def _wait(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        descriptor = self._socket.fileno()
        add(descriptor, _wake, ready)
        try:
            await ready
        finally:
            remove(descriptor)


# Not socket.send_fds and recv_fds: those of Python 3.11 forget their flags, and descriptors would be inheritable.
_ANCILLARY_BYTES = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)


def _ancillary(descriptors: Sequence[int]) -> "list[tuple[int, int, array[int]]]":
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []


def _list_descriptors(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) // found.itemsize * found.itemsize])
    return tuple(found)


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


async def _connect(path: Path) -> _Connection:
    """A connection to a helper that is root's or our own and speaks our version."""
    _verify_socket(path)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = _Connection(connected)
    try:
        connected.setblocking(False)
        _enter(connected, path)
        _verify_peer(connected, path)
        await _greet(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _verify_socket(path: Path) -> None:
    try:
        state = path.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise unavailable("no root helper is installed", hint=INSTALL, detail=f"{path} is missing") from error
    except PermissionError as error:
        raise _unauthorized(f"{path} cannot be reached: {_say(error)}") from error
    if not stat.S_ISSOCK(state.st_mode):
        raise unavailable(f"{path} is not a socket", hint=INSTALL)
    ours = os.getuid()
    if ours != 0 and state.st_uid not in (0, ours):
        raise _unauthorized(f"the root helper serves {_name(state.st_uid)}, not {_name(ours)}")


def _enter(connected: socket.socket, path: Path) -> None:
    try:
        connected.connect(str(path))
    except FileNotFoundError as error:
        raise unavailable("no root helper is installed", hint=INSTALL, detail=f"{path} is missing") from error
    except PermissionError as error:
        owner = _name(path.lstat().st_uid)
        raise _unauthorized(f"{path} belongs to {owner} and is closed to {_name(os.getuid())}") from error
    except OSError as error:  # a full backlog is EAGAIN: a helper that hangs
        why = "does not run" if isinstance(error, ConnectionRefusedError) else "takes no connection"
        raise unavailable(f"the root helper {why}", hint=STATUS, detail=f"{path}: {_say(error)}") from error


def _verify_peer(connected: socket.socket, path: Path) -> None:
    """Whoever listens gets to say which taps are ours. Our own uid is development's helper in a user namespace."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid not in (0, os.getuid()):
        raise _unauthorized(f"{_name(uid)} listens at {path}, and that is not root")


async def _greet(connection: _Connection) -> None:
    hello = Hello()
    await connection.send(encode_request(hello, operation_id.get()), ())
    answer, received = await connection.receive()
    greeting = _decode(hello, answer, received).result
    if greeting.version != VERSION:
        raise Problem(
            Code.BAD_VERSION,
            f"the root helper speaks version {greeting.version} of its contract, the daemon version {VERSION}",
            hint=INSTALL,
            outcome=Outcome.NOT_STARTED,
        )


def _decode(request: Request[R], answer: bytes, received: tuple[int, ...]) -> Reply[R]:
    """Raises Refusal; the descriptors are closed then."""
    try:
        reply: Reply[R] = decode_answer(request, answer, received)
    except BaseException:
        close_all(received)
        raise
    return verify_reply(request, reply)


def _unauthorized(brief: str) -> Problem:
    return Problem(Code.UNAUTHORIZED, brief, hint=f"{INSTALL} --owner $USER", outcome=Outcome.NOT_STARTED)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _say(error: OSError) -> str:
    return error.strerror or str(error)
