"""Asking the helper and the daemon who they are, by their sockets, as root or as the owner.

A socket's peer is verified before a byte is sent: the helper is root's, the daemon is its owner's.
"""

import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar

from banger.client.blocking import Connection
from banger.client.wire import Failure
from banger.privileged.contract.base import MESSAGE_BYTES_MAX, Request
from banger.privileged.contract.codec import decode_answer, encode_request
from banger.privileged.contract.processes import Greeting, Hello
from banger.privileged.contract.values import Refusal

R = TypeVar("R")

DEADLINE_S = 60.0
_ANSWER_S = 10.0
_PAUSE_S = 0.05
_UCRED = struct.Struct("3i")
_OPERATION = "system"


def ask_helper(path: str, root_uid: int, request: Request[R]) -> R:
    """Its answer. Raises Failure: `unavailable` when nobody listens, else with the refusal's code."""
    with _connect(path, socket.SOCK_SEQPACKET, root_uid, "the root helper") as connected:
        try:
            connected.sendall(encode_request(request, _OPERATION))
            message = connected.recv(MESSAGE_BYTES_MAX)
            if not message:
                raise Failure(
                    "unavailable", "the root helper closed the connection", hint="sudo banger system restart"
                )
            answer: R = decode_answer(request, message, ()).result
        except OSError as error:
            raise Failure("unavailable", f"the root helper does not answer: {error}") from error
        except Refusal as refusal:
            raise Failure(refusal.code, refusal.message, hint=refusal.hint or None) from refusal
        return answer


def greet_helper(path: str, root_uid: int) -> Greeting:
    return ask_helper(path, root_uid, Hello())


def open_daemon(path: str, uid: int) -> Connection:
    """A connection to that user's daemon. Close it. Raises Failure when nobody listens."""
    return Connection(_connect(path, socket.SOCK_STREAM, uid, "the daemon"))


def ask_daemon(path: str, uid: int, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    with open_daemon(path, uid) as connection:
        try:
            return connection.call(method, params)
        except OSError as error:
            raise Failure("unavailable", f"the daemon does not answer: {error}") from error


def count_running_vms(path: str, uid: int) -> int:
    """By the word of that user's daemon, of whatever version it is."""
    running = ask_daemon(path, uid, "daemon.status").get("running")
    if not isinstance(running, int):
        raise Failure(
            "bad_version", f"the daemon at {path} does not say how many VMs run", hint="banger daemon stop"
        )
    return running


def find_pid(path: str, kind: socket.SocketKind, uid: int) -> int | None:
    """The process that listens there as that user, or None."""
    try:
        with _connect(path, kind, uid, "the process") as connected:
            return _read_peer(connected)[0]
    except Failure:
        return None


def wait_answer(ask: Callable[[], R], failed: Callable[[], bool], deadline_s: float = DEADLINE_S) -> R:
    """The first answer. Its start is somebody else's (systemd, a detached process), so there is no event to wait
    for but the socket itself. Raises the last Failure at the deadline, or as soon as `failed` says so."""
    until = time.monotonic() + deadline_s
    while True:
        try:
            return ask()
        except Failure:
            if time.monotonic() > until or failed():
                raise
        time.sleep(_PAUSE_S)


def _connect(path: str, kind: socket.SocketKind, uid: int, who: str) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, kind)
    try:
        connected.settimeout(_ANSWER_S)
        try:
            connected.connect(path)
        except PermissionError as error:
            raise Failure(
                "unauthorized", f"{path} is not open to uid {os.geteuid()}", hint="sudo banger system status"
            ) from error
        except OSError as error:
            raise Failure(
                "unavailable", f"{who} does not listen at {path}", hint="sudo banger system restart"
            ) from error
        found = _read_peer(connected)[1]
        if found != uid:
            raise Failure(
                "unauthorized", f"{path} is served by uid {found}, not by {uid}", hint=f"ls -l {path}"
            )
    except BaseException:
        connected.close()
        raise
    return connected


def _read_peer(connected: socket.socket) -> tuple[int, int]:
    """(pid, uid) of who listens (unix(7), SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid
