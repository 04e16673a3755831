"""Asking the host's own resolvers on behalf of a guest.

Owns how many questions are under way; one more than the limit fails at once. A question has a socket, a source port
and an id of its own, and takes an answer from the address that was asked only, with that id and that question.
"""

import asyncio
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from banger.network.resolvers import Resolver

if TYPE_CHECKING:  # dnspython is not for daemons without a bridge
    from banger.network.dns import Forward

ANSWER_S = 2.0  # of one resolver
UNDER_WAY_MAX = 256
UNDER_WAY_OF_GUEST_MAX = 50
_TRUNCATED = 0x02  # in the third octet of a packet
_RCODE = 0x0F  # in the fourth
_ASK_ANOTHER = (2, 4, 5)  # SERVFAIL, NOTIMP, REFUSED: as the C library does


class Forwarder:
    """Asks one resolver after the other, each once."""

    def __init__(
        self,
        resolvers: Callable[[], Sequence[Resolver]],
        *,
        answer_s: float = ANSWER_S,
        under_way_max: int = UNDER_WAY_MAX,
        under_way_of_guest_max: int = UNDER_WAY_OF_GUEST_MAX,
    ) -> None:
        self._resolvers = resolvers
        self._answer_s = answer_s
        self._max = under_way_max
        self._max_of_guest = under_way_of_guest_max
        self._under_way: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        return self._under_way.total()

    async def ask(self, question: "Forward", guest: str) -> bytes:
        """What to tell the guest, whatever happens."""
        if self.under_way >= self._max or self._under_way[guest] >= self._max_of_guest:
            return question.fail()
        self._under_way[guest] += 1
        try:
            return await self._ask_all(question)
        finally:
            self._under_way[guest] -= 1
            if not self._under_way[guest]:
                del self._under_way[guest]

    async def _ask_all(self, question: "Forward") -> bytes:
        unhelpful: bytes | None = None
        for resolver in self._resolvers():
            packet = await self._ask_one(question, resolver)
            if packet is None:
                continue
            if packet[3] & _RCODE not in _ASK_ANOTHER:
                return question.finish(packet)
            unhelpful = unhelpful or packet
        return question.fail() if unhelpful is None else question.finish(unhelpful)

    async def _ask_one(self, question: "Forward", resolver: Resolver) -> bytes | None:
        if question.stream:
            return await self._exchange(question, resolver, socket.SOCK_STREAM)
        packet = await self._exchange(question, resolver, socket.SOCK_DGRAM)
        if packet is not None and packet[2] & _TRUNCATED:
            return await self._exchange(question, resolver, socket.SOCK_STREAM) or packet
        return packet

    async def _exchange(self, question: "Forward", resolver: Resolver, kind: int) -> bytes | None:
        """One packet for one packet, or None: no route, no answer, not in time."""
        query_id = secrets.randbits(16)
        packet = query_id.to_bytes(2, "big") + question.packet[2:]
        receive = _exchange_stream if kind == socket.SOCK_STREAM else _exchange_datagrams
        try:
            with socket.socket(resolver.family, kind) as connection:
                connection.setblocking(False)
                async with asyncio.timeout(self._answer_s):
                    await asyncio.get_running_loop().sock_connect(connection, resolver.address)
                    return await receive(
                        connection, packet, lambda answer: question.is_answered_by(answer, query_id)
                    )
        except OSError:  # TimeoutError is one
            return None


async def _exchange_datagrams(
    connection: socket.socket, packet: bytes, is_answer: Callable[[bytes], bool]
) -> bytes:
    """The socket is connected: the kernel drops what comes from elsewhere."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, packet)
    while True:
        answer = await loop.sock_recv(connection, 0xFFFF)
        if is_answer(answer):
            return answer
        await asyncio.sleep(0)  # a flood must neither keep the loop nor outlive the deadline


async def _exchange_stream(
    connection: socket.socket, packet: bytes, is_answer: Callable[[bytes], bool]
) -> bytes | None:
    await asyncio.get_running_loop().sock_sendall(connection, len(packet).to_bytes(2, "big") + packet)
    size = int.from_bytes(await _receive(connection, 2), "big")
    answer = await _receive(connection, size)
    return answer if is_answer(answer) else None


async def _receive(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < size:
        part = await loop.sock_recv(connection, size - len(received))
        if not part:
            raise ConnectionResetError
        received += part
    return bytes(received)
