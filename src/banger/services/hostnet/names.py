"""The name server of the bridge: answers guests and host by UDP and TCP.

Owns the two sockets that the root helper has opened, the zone, and who may ask for names of the world. A guest is known
by its address, which the firewall makes true. Invariant: what a guest can make the daemon keep or do has a limit;
beyond it a datagram is dropped, a connection closed, a question answered with SERVFAIL.
"""

import asyncio
import logging
import socket
from collections import Counter
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Any, NamedTuple

from banger.base.tasks import Supervisor
from banger.network.resolvers import HostResolvers
from banger.services.hostnet.upstream import Forwarder

if TYPE_CHECKING:
    from banger.network.dns import Forward

_log = logging.getLogger(__name__)
_READ_BYTES = 4097  # one more than a question may have
_BATCH = 32  # datagrams before others get their turn
_NO_DESCRIPTORS_S = 1.0
_COMPLAINT_S = 60.0


class Limits(NamedTuple):
    """What all, and each, may take."""

    connections: int = 64
    connections_of_guest: int = 16
    idle_s: float = 10.0  # also for one question to arrive, one answer to be taken
    questions_per_s: int = 300  # of one guest; a hard one costs half a millisecond


class NameServer:
    """Made in a running loop, serves at once. The descriptors become its own."""

    def __init__(
        self,
        udp: int,
        tcp: int,
        *,
        zone: str,
        server: IPv4Interface,
        forwarder: Forwarder | None = None,
        limits: Limits | None = None,
    ) -> None:
        from banger.network.dns import Zone  # dnspython takes 50 ms; a daemon without a bridge does without

        self._datagrams = socket.socket(fileno=udp)
        self._listener = socket.socket(fileno=tcp)
        self._zone = Zone(zone, server)
        self._subnet = server.network
        self._forwarder = forwarder or Forwarder(HostResolvers(server.ip))
        self._limits = limits or Limits()
        self._may_forward: set[str] = set()
        self._connections: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._second = 0
        self._complained_at = -_COMPLAINT_S
        self._loop = asyncio.get_running_loop()
        self._tasks = Supervisor()
        for owned in (self._datagrams, self._listener):
            owned.setblocking(False)
        self._loop.add_reader(self._datagrams, self._read_datagrams)
        self._tasks.start(self._accept(), name="names over TCP")

    def register(self, name: str, address: str) -> None:
        """The name has this address, and no longer the one that it had; the address's name is this one."""
        previous = self._zone.add(name, address)
        if previous is not None and previous != address:
            self._may_forward.discard(previous)

    def unregister(self, name: str) -> None:
        """The address goes with the name, and with it the right to ask for the world's names. Idempotent."""
        address = self._zone.remove(name)
        if address is not None:
            self._may_forward.discard(address)

    def set_forwarding(self, address: str, allowed: bool) -> None:
        """Whether this guest may ask for names that are not ours."""
        if allowed:
            self._may_forward.add(address)
        else:
            self._may_forward.discard(address)

    async def close(self) -> None:
        """What is under way ends without an answer. Idempotent."""
        if self._datagrams.fileno() < 0:
            return
        self._loop.remove_reader(self._datagrams)
        try:
            await self._tasks.__aexit__()
        finally:
            self._datagrams.close()
            self._listener.close()

    # UDP

    def _read_datagrams(self) -> None:
        for _ in range(_BATCH):
            try:
                packet, peer = self._datagrams.recvfrom(_READ_BYTES)
            except OSError:  # nothing more, or the echo of an answer that could not be delivered
                return
            if self._admits(peer[0]):
                self._answer_datagram(packet, peer)

    def _answer_datagram(self, packet: bytes, peer: tuple[str, int]) -> None:
        answer = self._zone.answer(packet, may_forward=peer[0] in self._may_forward)
        if isinstance(answer, bytes):
            self._send(answer, peer)
        elif answer is not None:
            self._tasks.start(self._forward(answer, peer), name="forward a question")

    async def _forward(self, question: "Forward", peer: tuple[str, int]) -> None:
        self._send(await self._forwarder.ask(question, peer[0]), peer)

    def _send(self, answer: bytes, peer: tuple[str, int]) -> None:
        with suppress(OSError):  # nothing is kept for a guest that does not take its answers
            self._datagrams.sendto(answer, peer)

    # TCP

    async def _accept(self) -> None:
        while True:
            try:
                connection, peer = await self._loop.sock_accept(self._listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                _log.warning("a connection to the name server is lost", extra={"why": str(error)})
                await asyncio.sleep(_NO_DESCRIPTORS_S)  # nobody tells when there are descriptors again
                continue
            self._serve(connection, peer[0])
            await asyncio.sleep(0)  # a flood must not keep the loop

    def _serve(self, connection: socket.socket, guest: str) -> None:
        if (
            not self._is_near(guest)
            or self._connections.total() >= self._limits.connections
            or self._connections[guest] >= self._limits.connections_of_guest
        ):
            connection.close()
            return
        self._connections[guest] += 1
        task = self._tasks.start(self._converse(connection, guest), name="a connection for names")
        task.add_done_callback(lambda _: self._leave(guest))

    def _leave(self, guest: str) -> None:
        self._connections[guest] -= 1
        if not self._connections[guest]:
            del self._connections[guest]

    async def _converse(self, connection: socket.socket, guest: str) -> None:
        """One question after the other, until the guest leaves, idles or asks for too much."""
        reader, writer = await asyncio.open_connection(sock=connection, limit=_READ_BYTES)
        writer.transport.set_write_buffer_limits(0)  # drain() is over when the kernel has it all
        try:
            with suppress(OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
                while await self._answer_next(reader, writer, guest):
                    pass
        finally:
            writer.transport.abort()

    async def _answer_next(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, guest: str
    ) -> bool:
        async with asyncio.timeout(self._limits.idle_s):
            size = int.from_bytes(await reader.readexactly(2), "big")
            if size >= _READ_BYTES:
                return False
            packet = await reader.readexactly(size)
        if not self._admits(guest):
            return False
        answer = self._zone.answer(packet, stream=True, may_forward=guest in self._may_forward)
        if answer is None:
            return False
        if not isinstance(answer, bytes):
            answer = await self._forwarder.ask(answer, guest)
        async with asyncio.timeout(self._limits.idle_s):
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        return True

    # Limits

    def _is_near(self, address: str) -> bool:
        """The bridge's address is the host's on every link: others could ask there, too."""
        return IPv4Address(address) in self._subnet

    def _admits(self, guest: str) -> bool:
        """Counts a question. False for strangers, and for who asks too often."""
        now = self._loop.time()
        if int(now) != self._second:
            self._second = int(now)
            self._asked.clear()
        if guest not in self._asked and not self._is_near(guest):
            return False
        self._asked[guest] += 1
        if self._asked[guest] <= self._limits.questions_per_s:
            return True
        if now - self._complained_at >= _COMPLAINT_S:
            self._complained_at = now
            extra: dict[str, Any] = {"guest": guest, "questions_per_s": self._limits.questions_per_s}
            _log.warning("a guest asks for names too often, some of its questions are dropped", extra=extra)
        return False
