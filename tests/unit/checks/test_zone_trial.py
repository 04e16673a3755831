"""Whether a resolver knows our zone, asked on real sockets of loopback."""

import asyncio
import socket
from ipaddress import IPv4Interface

import dns.message
import dns.rrset

from banger.services.checks.names import has_zone
from banger.services.hostnet.names import NameServer


def bind_udp() -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    return server


async def test_our_own_name_server_is_recognised():
    udp, tcp = bind_udp(), socket.create_server(("127.0.0.1", 0))
    port = udp.getsockname()[1]
    server = NameServer(udp.detach(), tcp.detach(), zone="vm", server=IPv4Interface("127.0.0.1/8"))
    try:
        assert await has_zone("127.0.0.1", port) is True
    finally:
        await server.close()


class Stranger(asyncio.DatagramProtocol):
    """A name server of somebody else's, with this SOA for every name, or none."""

    def __init__(self, soa):
        self.soa = soa

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        response = dns.message.make_response(dns.message.from_wire(data))
        if self.soa:
            name = response.question[0].name
            response.answer.append(dns.rrset.from_text(name, 5, "IN", "SOA", self.soa))
        else:
            response.set_rcode(3)
        self.transport.sendto(response.to_wire(), peer)


async def ask(soa: str | None) -> bool:
    loop = asyncio.get_running_loop()
    with bind_udp() as bound:
        port = bound.getsockname()[1]
        transport, _ = await loop.create_datagram_endpoint(lambda: Stranger(soa), sock=bound)
        try:
            return await has_zone("127.0.0.1", port)
        finally:
            transport.close()


async def test_a_server_that_does_not_know_the_zone_is_not():
    assert await ask(None) is False


async def test_somebody_elses_zone_of_the_same_name_is_not():
    assert await ask("ns1.example. admin.example. 1 2 3 4 5") is False
    assert await ask("vm. nobody.invalid. 1 2 3 4 5") is True


async def test_silence_and_a_closed_port_are_not(monkeypatch):
    monkeypatch.setattr("banger.services.checks.names._ANSWER_S", 0.1)
    with bind_udp() as silent:
        port = silent.getsockname()[1]
        assert await has_zone("127.0.0.1", port) is False
    assert await has_zone("127.0.0.1", port) is False
