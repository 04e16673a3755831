"""Daemon, helper and the host's usual resolver in one process, inside the namespace of the test.

A JSON list on each line of stdin is a call of `Play`, whose result is a JSON line on stdout.
"""

import asyncio
import json
import socket
import sys
from contextlib import suppress
from ipaddress import IPv4Interface
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset

from banger.privileged.contract.network import (
    AdmitGuest,
    ApplyGuests,
    CreateTaps,
    EnsureBridge,
    InspectHost,
    OpenDns,
    RemoveBridge,
    RouteNames,
    UnrouteNames,
)
from banger.privileged.contract.values import Guest, Policy, Refusal
from banger.privileged.helper.handlers import Handlers
from banger.services.hostnet.names import NameServer

BRIDGE = "br-banger"
SERVER = IPv4Interface("10.209.0.1/24")
UPSTREAM = "192.0.2.53"
UPSTREAM_ANSWER = "198.51.100.9"


class Upstream(asyncio.DatagramProtocol):
    """Knows every name, with an address of its own, and tells what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        self.asked.append(question.name.to_text())
        response = dns.message.make_response(query, recursion_available=True)
        if question.rdtype == dns.rdatatype.A:
            response.answer = [dns.rrset.from_text(question.name, 0, "IN", "A", UPSTREAM_ANSWER)]
        self._transport.sendto(response.to_wire(), peer)


class Play:
    def __init__(self, upstream: Upstream) -> None:
        self._handlers = Handlers(owner=0, build="test")
        self._upstream = upstream
        self._asked: list[str] = []
        self._names: NameServer | None = None
        self._tap = ("", -1)

    def call(self, request: Any) -> Any:
        return self._handlers.handle(request, ())

    async def open(self) -> None:
        """A bridge with one tap, which is down: no carrier. Our server listens."""
        self.call(EnsureBridge(bridge=BRIDGE, address=str(SERVER)))
        self.call(ApplyGuests(bridge=BRIDGE, policy=Policy(), guests=()))
        reply = self.call(CreateTaps(bridge=BRIDGE, count=1))
        self._tap = (reply.result.taps[0].name, reply.descriptors[0])
        udp, tcp = self.call(OpenDns(bridge=BRIDGE)).descriptors
        self._names = NameServer(udp, tcp, zone="vm", server=SERVER)
        zone = self._names._zone
        answer = zone.answer

        def record(packet: bytes, **options: Any) -> Any:
            self._asked.append(dns.message.from_wire(packet).question[0].name.to_text())
            return answer(packet, **options)

        zone.answer = record  # type: ignore[method-assign]

    async def admit(self, name: str, address: str) -> None:
        guest = Guest(tap=self._tap[0], mac="02:00:00:00:00:01", address=address, nat=False)
        self.call(AdmitGuest(bridge=BRIDGE, guest=guest))
        assert self._names is not None
        self._names.register(name, address)

    async def unregister(self, name: str) -> None:
        assert self._names is not None
        self._names.unregister(name)

    async def inspect(self) -> bool:
        return bool(self.call(InspectHost()).result.resolved)

    async def route(self) -> None:
        self.call(RouteNames(bridge=BRIDGE, zone="vm"))

    async def unroute(self) -> None:
        self.call(UnrouteNames(bridge=BRIDGE))

    async def close(self) -> None:
        if self._names is not None:
            await self._names.close()
        socket.close(self._tap[1])
        self.call(RemoveBridge(bridge=BRIDGE))

    async def asked(self) -> list[list[str]]:
        """What we, and what the usual resolver, were asked for since the last call."""
        found = [self._asked[:], self._upstream.asked[:]]
        self._asked.clear()
        self._upstream.asked.clear()
        return found


async def main() -> None:
    loop = asyncio.get_running_loop()
    upstream = Upstream()
    await loop.create_datagram_endpoint(lambda: upstream, local_addr=(UPSTREAM, 53))
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    play = Play(upstream)
    print("ready", flush=True)
    with suppress(asyncio.IncompleteReadError):
        while True:
            method, *arguments = json.loads(await reader.readuntil())
            try:
                result = await getattr(play, method)(*arguments)
            except Refusal as refusal:
                result = {"refused": refusal.message, "code": refusal.code}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
