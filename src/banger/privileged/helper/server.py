"""The helper's loop: peers of one socket, one datagram for each request and for each answer.

One thread, never waiting for a peer: who does not read its answers is dropped. A peer is the owner or root, by the
kernel's word (SO_PEERCRED, unix(7)). Descriptors that come with a request are closed when it has been answered,
whatever it was. When the last peer has gone, what no VM uses is taken away after a second, and looked at again every
thirty while nobody is there.
"""

import errno
import json
import os
import selectors
import signal
import socket
import struct
import time
import traceback
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from banger.privileged.contract.base import MESSAGE_BYTES_MAX, Reply, Request
from banger.privileged.contract.codec import decode_request, encode_refusal, encode_result, find_op
from banger.privileged.contract.requests import REQUESTS
from banger.privileged.contract.values import Refusal, refuse
from banger.privileged.helper.log import Log, shorten

PEERS_MAX = 16
SOON_S = 1.0
LATER_S = 30.0
FIRST_S = 5.0  # after a start: a daemon that lives comes back with its next call
_RIGHTS_MAX = 253  # SCM_MAX_FD: what the kernel lets through at once
_ANCILLARY_BYTES = socket.CMSG_SPACE(_RIGHTS_MAX * array("i").itemsize)
_CREDENTIALS = struct.Struct("3i")
_ENDING = (signal.SIGTERM, signal.SIGINT)
_CUT_OFF = socket.MSG_TRUNC | socket.MSG_CTRUNC


class RootWork(Protocol):
    """`Handlers`."""

    def handle(self, request: Request[Any], descriptors: tuple[int, ...]) -> Reply[Any]: ...

    def release_abandoned(self) -> bool: ...


class Peer:
    """A connection and who is at its other end."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(credentials)


class Server:
    """`run` serves until SIGTERM or SIGINT."""

    def __init__(self, listener: socket.socket, work: RootWork, owner: int, log: Log) -> None:
        self._listener = listener
        self._work = work
        self._owner = owner
        self._log = log
        self._peers: set[Peer] = set()
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(MESSAGE_BYTES_MAX)
        self._ending = False
        # Given up when there is no other descriptor left, so that a caller can be turned away.
        self._spare = -1
        self._look_at: float | None = (
            time.monotonic() + FIRST_S
        )  # a daemon may have died with the last helper

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` is called when the loop begins. Must be the main thread, for the signals."""
        woken, waker = socket.socketpair()
        with self._selector, woken, waker:
            waker.setblocking(False)
            self._spare = _open_spare()
            wakened = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
            handlers = {number: signal.signal(number, self._end) for number in _ENDING}
            for number in _ENDING:
                signal.siginterrupt(number, False)  # libnftables is in the middle of a transaction, perhaps
            self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(1))
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            try:
                ready()
                while not self._ending:
                    self._turn()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(wakened)
                for peer in tuple(self._peers):
                    self._drop(peer)
                os.close(self._spare)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _turn(self) -> None:
        timeout_s = None if self._look_at is None else max(self._look_at - time.monotonic(), 0)
        for key, _ in self._selector.select(timeout_s):
            if self._ending:
                return
            if key.fileobj.fileno() >= 0:  # type: ignore[union-attr] # it may have been dropped in this turn
                key.data()
        if self._look_at is not None and time.monotonic() >= self._look_at:
            self._release_abandoned()

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            try:
                connected, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._turn_away_one()
                return
            peer = Peer(connected)
            if peer.uid not in (self._owner, 0):
                self._turn_away(peer, Refusal("unauthorized", f"uid {peer.uid} is not the owner"))
            elif len(self._peers) >= PEERS_MAX:
                self._turn_away(peer, Refusal("unavailable", f"there are {PEERS_MAX} connections already"))
            else:
                connected.setblocking(False)
                self._peers.add(peer)
                self._selector.register(connected, selectors.EVENT_READ, lambda: self._serve(peer))
                self._look_at = None

    def _turn_away(self, peer: Peer, refusal: Refusal) -> None:
        peer.socket.close()
        self._log_call(peer, "", "", time.monotonic(), refusal)

    def _turn_away_one(self) -> None:
        """Else it would be waiting still, and the loop would not rest."""
        os.close(self._spare)
        try:
            connected, _ = self._listener.accept()
            self._turn_away(
                Peer(connected), Refusal("unavailable", "the root helper has no descriptors left")
            )
        finally:
            self._spare = _open_spare()

    def _drop(self, peer: Peer) -> None:
        self._selector.unregister(peer.socket)
        peer.socket.close()
        self._peers.discard(peer)
        if not self._peers:
            self._look_at = time.monotonic() + SOON_S

    def _serve(self, peer: Peer) -> None:
        """One request, or the end of the connection. A datagram of no bytes is an end, too."""
        descriptors = array("i")
        try:
            size, ancillary, flags, _ = peer.socket.recvmsg_into(
                [self._buffer], _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            if size == 0:
                self._drop(peer)
            else:
                self._answer(
                    peer, bytes(self._buffer[:size]), tuple(descriptors), cut_off=bool(flags & _CUT_OFF)
                )
        except BlockingIOError:
            return
        except OSError:  # ECONNRESET: it has gone with answers unread
            self._drop(peer)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _answer(self, peer: Peer, message: bytes, descriptors: tuple[int, ...], *, cut_off: bool) -> None:
        started = time.monotonic()
        op = method = ""
        held: tuple[int, ...] = ()
        refusal: Refusal | None = None
        try:
            if cut_off:
                raise refuse(
                    f"a message is longer than {MESSAGE_BYTES_MAX} bytes or has too many descriptors"
                )
            request, op = decode_request(message, len(descriptors))
            method = request.method
            reply = self._work.handle(request, descriptors)
            held = reply.descriptors
            answer = encode_result(op, reply.result)
        except Refusal as caught:
            refusal, op = caught, op or find_op(message)
            answer = encode_refusal(op, refusal)
        except Exception as error:  # noqa: BLE001 - the helper's loop: a bug in one request is its answer
            refusal, op = (
                Refusal("internal", f"a bug in the root helper: {shorten(repr(error))}"),
                op or find_op(message),
            )
            answer = encode_refusal(op, refusal)
            self._log.write(level="error", op=op, method=method, traceback=traceback.format_exc())
        self._log_call(peer, op, method or _find_method(message), started, refusal)
        self._send(peer, answer, held)

    def _send(self, peer: Peer, answer: bytes, held: tuple[int, ...]) -> None:
        """The descriptors are the peer's then, or nobody's."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", held))] if held else []
        try:
            peer.socket.sendmsg([answer], ancillary)
        except OSError as error:  # EAGAIN: it does not read its answers
            self._log.write(
                level="warning", message="a peer is dropped", peer_pid=peer.pid, why=shorten(str(error))
            )
            self._drop(peer)
        finally:
            for descriptor in held:
                os.close(descriptor)

    def _release_abandoned(self) -> None:
        nothing_left = False
        try:
            nothing_left = self._work.release_abandoned()
        except Refusal as refusal:
            self._log.write(level="warning", message="not released", why=refusal.message)
        except Exception:  # noqa: BLE001 - the helper's loop
            self._log.write(level="error", message="not released", traceback=traceback.format_exc())
        self._look_at = None if nothing_left else time.monotonic() + LATER_S

    def _log_call(self, peer: Peer, op: str, method: str, started: float, refusal: Refusal | None) -> None:
        fields: dict[str, object] = {
            "level": "info" if refusal is None else "warning",
            "op": op,
            "method": method,
            "peer_pid": peer.pid,
            "peer_uid": peer.uid,
            "duration_ms": round((time.monotonic() - started) * 1000, 3),
        }
        if refusal is not None:
            fields |= {"code": refusal.code, "message": shorten(refusal.message)}
        self._log.write(**fields)


def _open_spare() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _find_method(message: bytes) -> str:
    """The method of a message that was refused, for the log; empty when it is none of ours."""
    try:
        data = json.loads(message)
    except (ValueError, RecursionError):
        return ""
    method = data.get("method") if isinstance(data, dict) else None
    return method if isinstance(method, str) and method in REQUESTS else ""
