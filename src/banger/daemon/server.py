"""The daemon's socket: who may connect, how many, and how it all ends.

Owns the listening socket, the connections and the task group of the calls. The socket lies in the private
runtime directory, so nobody can reach it between bind(2) and chmod(2).
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request, unavailable
from banger.daemon.connection import Connection
from banger.daemon.dispatch import Dispatch
from banger.daemon.hangup import HangupWatch

MAX_CONNECTIONS = 256
_MAX_SUN_PATH = 107
_BACKLOG = 512  # a non-blocking connect(2) to a full backlog fails with EAGAIN, which few clients expect
_UCRED = struct.Struct("3i")

log = logging.getLogger(__name__)


class Peer(NamedTuple):
    pid: int
    uid: int
    gid: int


def read_peer(connection: socket.socket) -> Peer:
    """Who had connected, as the kernel recorded it (SO_PEERCRED, unix(7))."""
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


class Server:
    """Implements connection.Host. Made by `open_server`; listens once `listen` has been called."""

    dispatch: Dispatch

    def __init__(
        self,
        calls: asyncio.TaskGroup,
        hangups: HangupWatch,
        *,
        credentials: Callable[[socket.socket], Peer] = read_peer,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.calls = calls
        self.hangups = hangups
        self._credentials = credentials
        self._max_connections = max_connections
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._path: Path | None = None

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def listen(self, path: Path, dispatch: Dispatch) -> None:
        """Binds and accepts. A socket left by a dead daemon is replaced: hold the lock while calling."""
        if len(os.fsencode(path)) > _MAX_SUN_PATH:
            raise bad_request(
                f"the socket's path is longer than {_MAX_SUN_PATH} bytes: {path}",
                hint="export BANGER_RUNTIME_DIR=/tmp/banger-short",
            )
        self.dispatch = dispatch
        with suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(path))
            path.chmod(0o600)
        except OSError as error:
            listener.close()
            raise unavailable(f"cannot listen at {path}: {error.strerror}") from error
        self._path = path
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(
            lambda: Connection(self), sock=listener, backlog=_BACKLOG
        )

    def stop_listening(self) -> None:
        """No new connections; those that are open stay, so that a client sees the daemon's end as theirs."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def cancel_calls(self) -> None:
        for connection in list(self._connections):
            connection.cancel()

    def close_connections(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def admit(self, connection: Connection, peer: socket.socket) -> Problem | None:
        who = self._credentials(peer)
        if who.uid not in (os.getuid(), 0):
            log.warning("a foreign user was refused", extra={"peer_uid": who.uid, "peer_pid": who.pid})
            return Problem(
                Code.UNAUTHORIZED,
                f"uid {who.uid} is not the owner of this daemon",
                outcome=Outcome.NOT_STARTED,
            )
        if len(self._connections) >= self._max_connections:
            return unavailable(
                f"{self._max_connections} connections are open already", hint="banger daemon status"
            )
        self._connections.add(connection)
        return None

    def leave(self, connection: Connection) -> None:
        self._connections.discard(connection)


@asynccontextmanager
async def open_server(
    *, credentials: Callable[[socket.socket], Peer] = read_peer, max_connections: int = MAX_CONNECTIONS
) -> AsyncIterator[Server]:
    """A server that does not listen yet. At the end calls are cancelled, then connections closed."""
    hangups = HangupWatch(asyncio.get_running_loop())
    # Closed by hand: the group would wrap what is raised in the block, a Problem, into an ExceptionGroup.
    supervision = AsyncExitStack()
    calls = await supervision.enter_async_context(asyncio.TaskGroup())
    server = Server(calls, hangups, credentials=credentials, max_connections=max_connections)
    try:
        yield server
    finally:
        server.stop_listening()
        server.cancel_calls()
        await supervision.aclose()
        server.close_connections()
        await asyncio.sleep(0)  # lets transports deliver connection_lost before the epoll goes
        hangups.close()
