"""The way to the guest's agent: a vsock that Firecracker shows as a Unix socket.

The host writes `CONNECT port` and gets `OK number` once the guest has accepted. Before the guest's driver is up
nothing answers at all, so nobody asks then: the agent knocks as soon as it listens. It connects to the host's port
of the same number, which Firecracker turns into a connection to `SOCKET_PORT`, where a `Knock` listens.
Docs: docs/vsock.md of Firecracker.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from banger.vmm.firecracker.bodies import AGENT_PORT
from banger.vmm.firecracker.place import KNOCK_SOCKET
from banger.vmm.firecracker.sockets import AGENT_SOCKET, Sockets, Stream

ATTEMPT_S = 0.5  # longer is of no use: what was asked before the driver came up may never be answered
_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, ATTEMPT_S)
_STREAM_LIMIT_BYTES = 256 * 1024


class _Refused(Exception):
    """The guest's kernel answers, its agent does not listen (yet)."""


class Knock:
    """Listens for a guest that says it is ready. The first knock ends it: a guest cannot keep the daemon busy."""

    def __init__(self, sockets: Sockets, *, mode: int) -> None:
        """`mode` lets the VMM in, which may have another uid than ours."""
        self._heard = asyncio.Event()
        self._hurried: asyncio.Timeout | None = None
        self._sockets = sockets
        self._listener: socket.socket | None = sockets.listen(KNOCK_SOCKET, mode=mode)
        asyncio.get_running_loop().add_reader(self._listener, self._answer)

    @property
    def is_awaited(self) -> bool:
        return self._listener is not None

    async def wait(self, at_most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._heard.wait()

    @contextmanager
    def hurry(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """A knock within the block ends what has this deadline."""
        self._hurried = deadline
        try:
            yield
        finally:
            self._hurried = None

    def _answer(self) -> None:
        assert self._listener is not None
        with suppress(OSError):
            self._listener.accept()[0].close()
        self._heard.set()
        if self._hurried is not None:
            self._hurried.reschedule(asyncio.get_running_loop().time())
        self.close()

    def close(self) -> None:
        """Idempotent. Before the sockets are closed."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self._sockets.remove(KNOCK_SOCKET)


async def open_agent_stream(sockets: Sockets, knock: Knock | None) -> Stream:
    """Returns when the agent has accepted, however long that takes; the caller sets the deadline. Without a knock to
    wait for, or when none comes, it asks again and again. Raises OSError when Firecracker has gone."""
    refusals = 0
    while True:
        if knock is not None and knock.is_awaited:
            await knock.wait(ATTEMPT_S)
        elif refusals:
            await asyncio.sleep(_PAUSES_S[min(refusals, len(_PAUSES_S)) - 1])
        is_final = knock is None or not knock.is_awaited
        try:
            return await _attempt(sockets, knock)
        except (_Refused, TimeoutError):  # TimeoutError: the driver is not there yet, or the guest is paused
            refusals += is_final


async def _attempt(sockets: Sockets, knock: Knock | None) -> Stream:
    """One CONNECT. One that a knock overtakes was made too early and ends at once."""
    async with asyncio.timeout(ATTEMPT_S) as deadline:
        with knock.hurry(deadline) if knock is not None else nullcontext():
            return await _connect(sockets)


async def _connect(sockets: Sockets) -> Stream:
    reader, writer = await sockets.connect(AGENT_SOCKET, limit=_STREAM_LIMIT_BYTES)
    try:
        writer.write(f"CONNECT {AGENT_PORT}\n".encode())
        answer = await reader.readuntil(b"\n")
        if not answer.startswith(b"OK "):
            raise _Refused(answer.decode("ascii", "replace").strip())
    except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError) as error:
        writer.close()
        raise _Refused("closed") from error
    except BaseException:
        writer.close()
        raise
    return reader, writer
