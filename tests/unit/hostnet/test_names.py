"""The name server on real sockets of this machine's loopback: each 127.0.0.x is a guest."""

import asyncio
import os
import random
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Interface

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from banger.base.process import find_tool, run
from banger.network.resolvers import Resolver
from banger.services.hostnet.names import Limits, NameServer
from banger.services.hostnet.upstream import Forwarder

GUEST = "127.0.0.2"
OTHER = "127.0.0.3"
SHORT_S = 0.2  # for what is to run out
SOON_S = 10.0


def bind_pair(address="127.0.0.1"):
    """A UDP socket and a listening TCP socket at one port, as the helper makes them."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp.bind((address, 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen(128)
        return udp, tcp


class Upstream:
    """A resolver whose behaviour a test chooses: from a question to the packets that it answers with."""

    def __init__(self, answer):
        self.answer = answer
        self.datagrams = []
        self.streams = []
        self.stream_bytes_max = 0xFFFF

    @property
    def resolver(self):
        return Resolver(socket.AF_INET, self.address)

    def datagram_received(self, data, peer):
        query = dns.message.from_wire(data)
        self.datagrams.append(query)
        for packet in self.answer(query):
            self.transport.sendto(packet, peer)

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        pass

    def error_received(self, error):
        pass

    async def converse(self, reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            size = int.from_bytes(await reader.readexactly(2), "big")
            query = dns.message.from_wire(await reader.readexactly(size))
            self.streams.append(query)
            for packet in self.answer(query):
                writer.write(len(packet).to_bytes(2, "big") + packet[: self.stream_bytes_max])
                if len(packet) > self.stream_bytes_max:
                    writer.close()
            await reader.read()
        writer.close()


@asynccontextmanager
async def open_upstream(answer):
    upstream = Upstream(answer)
    udp, tcp = bind_pair()
    upstream.address = udp.getsockname()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: upstream, sock=udp)
    try:
        async with await asyncio.start_server(upstream.converse, sock=tcp):
            yield upstream
    finally:
        transport.abort()
        await asyncio.sleep(0)


def respond(query, address="192.0.2.7", rcode=dns.rcode.NOERROR):
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(rcode)
    if rcode == dns.rcode.NOERROR:
        response.answer = [dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address)]
    return response


def honest(query):
    return [respond(query).to_wire()]


def silent(query):
    return []


def failing(query):
    return [respond(query, rcode=dns.rcode.SERVFAIL).to_wire()]


@asynccontextmanager
async def open_server(*upstreams, server="127.0.0.1/8", limits=None, **forwarding):
    resolvers = [upstream.resolver for upstream in upstreams]
    udp, tcp = bind_pair(server.partition("/")[0])
    address = udp.getsockname()
    names = NameServer(
        udp.detach(),
        tcp.detach(),
        zone="vm",
        server=IPv4Interface(server),
        forwarder=Forwarder(lambda: resolvers, **{"answer_s": 60} | forwarding),
        limits=limits,
    )
    names.address = address
    names.register("a", GUEST)
    names.set_forwarding(GUEST, True)
    try:
        yield names
    finally:
        await names.close()


class Guest:
    """Asks from an address of its own."""

    def __init__(self, names, address=GUEST):
        self._loop = asyncio.get_running_loop()
        self._names = names
        self._streams = []
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((address, 0))
        self._socket.connect(names.address)

    def send(self, name="a.vm", kind="A", **options):
        query = dns.message.make_query(name, kind, **options)
        self._socket.send(query.to_wire())
        return query

    def send_bytes(self, packet):
        self._socket.send(packet)

    async def receive(self):
        async with asyncio.timeout(SOON_S):
            return dns.message.from_wire(await self._loop.sock_recv(self._socket, 0xFFFF))

    async def ask(self, name="a.vm", kind="A", **options):
        query = self.send(name, kind, **options)
        answer = await self.receive()
        assert answer.id == query.id
        assert query.is_response(answer)
        return answer

    async def connect(self):
        local = (self._address, 0)
        stream = Stream(*await asyncio.open_connection(*self._names.address, local_addr=local))
        self._streams.append(stream)
        return stream

    def close(self):
        self._socket.close()
        for stream in self._streams:
            stream.close()


class Stream:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, name="a.vm", kind="A"):
        query = dns.message.make_query(name, kind)
        packet = query.to_wire()
        self.writer.write(len(packet).to_bytes(2, "big") + packet)
        return query

    async def receive(self):
        async with asyncio.timeout(SOON_S):
            size = int.from_bytes(await self.reader.readexactly(2), "big")
            return dns.message.from_wire(await self.reader.readexactly(size))

    async def wait_end(self):
        """The server has closed the connection and said nothing more."""
        async with asyncio.timeout(SOON_S):
            with suppress(ConnectionResetError):
                assert await self.reader.read(1) == b""
        self.close()

    def close(self):
        self.writer.transport.abort()


@pytest.fixture
async def make_guest():
    guests = []

    def make(names, address=GUEST):
        guests.append(Guest(names, address))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()
    await asyncio.sleep(0)


def addresses(message):
    return [record.to_text() for rrset in message.answer for record in rrset]


async def wait_until(condition):
    async with asyncio.timeout(SOON_S):
        while not condition():
            await asyncio.sleep(0.001)


# The zone, served


async def test_names_are_answered_by_udp_and_tcp(make_guest):
    async with open_server() as names:
        guest = make_guest(names)
        assert addresses(await guest.ask("A.vm")) == [GUEST]
        assert (await guest.ask("b.vm")).rcode() == dns.rcode.NXDOMAIN
        stream = await guest.connect()
        for name in ("a.vm", "b.vm", "vm"):
            query = stream.send(name)
            assert query.is_response(await stream.receive())


async def test_questions_sent_ahead_on_one_connection_are_all_answered(make_guest):
    async with open_server() as names:
        stream = await make_guest(names).connect()
        queries = [stream.send("a.vm") for _ in range(20)]
        for query in queries:
            assert query.is_response(await stream.receive())


async def test_a_name_comes_moves_and_goes_while_the_server_runs(make_guest):
    async with open_server() as names:
        guest = make_guest(names)
        names.register("b", OTHER)
        assert addresses(await guest.ask("b.vm")) == [OTHER]
        names.register("b", "127.0.0.4")
        assert addresses(await guest.ask("b.vm")) == ["127.0.0.4"]
        names.unregister("b")
        names.unregister("b")
        assert (await guest.ask("b.vm")).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.skipif(find_tool("dig") is None, reason="dig is not installed: apt-get install bind9-dnsutils")
@pytest.mark.parametrize("options", [(), ("+tcp",), ("+noedns",), ("+dnssec", "+bufsize=4096")])
async def test_dig_has_nothing_to_complain_about(options):
    async def dig(*arguments):
        argv = (str(find_tool("dig")), "@127.0.0.1", "-p", str(names.address[1]), *options, *arguments)
        return (await run(argv, timeout_s=SOON_S)).stdout.decode()

    async with open_server() as names:
        assert await dig("a.vm", "+short") == f"{GUEST}\n"
        assert await dig("-x", GUEST, "+short") == "a.vm.\n"
        empty = await dig("a.vm", "AAAA", "+norecurse")
        assert "status: NOERROR" in empty
        assert "ANSWER: 0, AUTHORITY: 1" in empty
        unknown = await dig("nope.vm", "+norecurse")
        assert "status: NXDOMAIN" in unknown
        assert "status: REFUSED" in await dig("example.com", "+norecurse")
        for text in (empty, unknown):
            assert "WARNING" not in text
            assert ";; Got bad packet" not in text


async def test_the_bridges_address_is_no_public_server(make_guest):
    """It is the host's on every link of the host's, so that strangers could send to it."""
    async with open_server(server="127.0.0.1/24") as names:
        near, stranger = make_guest(names), make_guest(names, "127.0.1.1")
        stranger.send("a.vm")
        assert addresses(await near.ask("a.vm")) == [GUEST]
        await (await stranger.connect()).wait_end()
        with pytest.raises(BlockingIOError):
            stranger._socket.recv(1)


# Forwarding


async def test_names_of_the_world_come_from_the_hosts_resolver(make_guest):
    async with open_upstream(honest) as upstream, open_server(upstream) as names:
        guest = make_guest(names)
        answer = await guest.ask("Example.com", use_edns=True)
        assert addresses(answer) == ["192.0.2.7"]
        assert answer.question[0].name.to_text() == "Example.com."
        (seen,) = upstream.datagrams
        assert seen.question == answer.question


async def test_who_may_ask_the_world_changes_at_once(make_guest):
    async with open_upstream(honest) as upstream, open_server(upstream) as names:
        guest = make_guest(names, OTHER)
        assert (await guest.ask("example.com")).rcode() == dns.rcode.REFUSED
        names.set_forwarding(OTHER, True)
        assert addresses(await guest.ask("example.com")) == ["192.0.2.7"]
        names.set_forwarding(OTHER, False)
        assert (await guest.ask("example.com")).rcode() == dns.rcode.REFUSED
        assert len(upstream.datagrams) == 1


async def test_the_right_to_ask_the_world_goes_with_the_name_and_with_the_address(make_guest):
    async with open_upstream(honest) as upstream, open_server(upstream) as names:
        names.unregister("a")
        names.register("heir", GUEST)
        assert (await make_guest(names).ask("example.com")).rcode() == dns.rcode.REFUSED
        names.set_forwarding(GUEST, True)
        names.register("heir", OTHER)
        assert (await make_guest(names).ask("example.com")).rcode() == dns.rcode.REFUSED
        assert upstream.datagrams == []


async def test_ids_and_ports_that_go_out_are_not_the_guests_and_not_the_same(make_guest):
    async with open_upstream(honest) as upstream, open_server(upstream) as names:
        guest = make_guest(names)
        for _ in range(16):
            assert (await guest.ask("example.com", id=4711)).id == 4711
        assert len({query.id for query in upstream.datagrams}) > 12


async def test_answers_with_another_id_or_question_or_address_are_not_believed(make_guest):
    def lying(query):
        foreign = respond(dns.message.make_query("example.org", "A", id=query.id), "192.0.2.66")
        wrong_id = respond(query, "192.0.2.66")
        wrong_id.id ^= 1
        echo = query.to_wire()
        return [b"", b"x", echo, foreign.to_wire(), wrong_id.to_wire(), *honest(query)]

    async with open_upstream(lying) as upstream, open_server(upstream) as names:
        assert addresses(await make_guest(names).ask("example.com")) == ["192.0.2.7"]

    spoofer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    spoofer.bind(("127.0.0.9", 0))

    class Spoofed(Upstream):
        def datagram_received(self, data, peer):
            forged = respond(dns.message.from_wire(data), "192.0.2.66")
            spoofer.sendto(forged.to_wire(), peer)
            super().datagram_received(data, peer)

    async with open_upstream(honest) as upstream, open_server(upstream) as names:
        upstream.__class__ = Spoofed
        assert addresses(await make_guest(names).ask("example.com")) == ["192.0.2.7"]
    spoofer.close()


@pytest.mark.parametrize("first", [silent, failing])
async def test_the_next_resolver_is_asked_when_one_is_silent_or_fails(make_guest, first):
    async with (
        open_upstream(first) as bad,
        open_upstream(honest) as good,
        open_server(bad, good, answer_s=1 if first is silent else 60) as names,
    ):
        assert addresses(await make_guest(names).ask("example.com")) == ["192.0.2.7"]
        assert (len(bad.datagrams), len(good.datagrams)) == (1, 1)


async def test_a_resolver_that_is_not_there_costs_no_time(make_guest):
    async with open_upstream(honest) as gone:
        pass
    async with open_upstream(honest) as good, open_server(gone, good) as names:
        assert addresses(await make_guest(names).ask("example.com")) == ["192.0.2.7"]


async def test_when_nobody_answers_it_is_a_failure_of_the_server(make_guest):
    async with (
        open_upstream(silent) as one,
        open_upstream(silent) as two,
        open_server(one, two, answer_s=SHORT_S) as names,
    ):
        assert (await make_guest(names).ask("example.com")).rcode() == dns.rcode.SERVFAIL
        assert names._forwarder.under_way == 0
    async with open_server() as names:
        assert (await make_guest(names).ask("example.com")).rcode() == dns.rcode.SERVFAIL


async def test_a_refusal_of_the_only_resolver_is_passed_on(make_guest):
    def refusing(query):
        return [respond(query, rcode=dns.rcode.REFUSED).to_wire()]

    async with open_upstream(refusing) as upstream, open_server(upstream) as names:
        assert (await make_guest(names).ask("example.com")).rcode() == dns.rcode.REFUSED


def truncating(query):
    """Over UDP, which is what a question is first asked by."""
    if truncating.seen:
        return honest(query)
    truncating.seen = True
    cut = respond(query)
    cut.answer = []
    cut.flags |= dns.flags.TC
    return [cut.to_wire()]


async def test_what_does_not_fit_is_asked_again_by_tcp(make_guest):
    truncating.seen = False
    async with open_upstream(truncating) as upstream, open_server(upstream) as names:
        answer = await make_guest(names).ask("example.com")
        assert addresses(answer) == ["192.0.2.7"]
        assert (len(upstream.datagrams), len(upstream.streams)) == (1, 1)


async def test_a_question_by_tcp_is_asked_by_tcp_and_its_answer_may_be_long(make_guest):
    def long(query):
        response = respond(query)
        response.answer = [
            dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *[f"192.0.2.{i}" for i in range(200)])
        ]
        return [response.to_wire()]

    async with open_upstream(long) as upstream, open_server(upstream) as names:
        guest = make_guest(names)
        stream = await guest.connect()
        stream.send("example.com")
        assert len(addresses(await stream.receive())) == 200
        assert (len(upstream.datagrams), len(upstream.streams)) == (0, 1)
        cut = await guest.ask("example.com")
        assert cut.answer == []
        assert cut.flags & dns.flags.TC


async def test_a_resolver_that_ends_in_the_middle_of_an_answer_is_none(make_guest):
    async with open_upstream(honest) as bad, open_upstream(honest) as good, open_server(bad, good) as names:
        bad.stream_bytes_max = 20
        stream = await make_guest(names).connect()
        stream.send("example.com")
        assert addresses(await stream.receive()) == ["192.0.2.7"]
        assert (len(bad.streams), len(good.streams)) == (1, 1)


# Limits


async def test_one_guest_cannot_use_up_what_may_be_under_way(make_guest):
    async with (
        open_upstream(silent) as upstream,
        open_server(upstream, under_way_max=8, under_way_of_guest_max=5) as names,
    ):
        names.set_forwarding(OTHER, True)
        greedy, modest = make_guest(names), make_guest(names, OTHER)
        for _ in range(7):
            greedy.send("example.com")
        for _ in range(2):
            assert (await greedy.receive()).rcode() == dns.rcode.SERVFAIL
        assert names._forwarder.under_way == 5
        for _ in range(4):
            modest.send("example.com")
        assert (await modest.receive()).rcode() == dns.rcode.SERVFAIL
        await wait_until(lambda: len(upstream.datagrams) == 8)
        assert addresses(await greedy.ask("a.vm")) == [GUEST]


async def test_a_guest_that_asks_too_often_is_not_answered_and_others_are(make_guest, caplog):
    async with open_server(limits=Limits(questions_per_s=10)) as names:
        noisy, quiet = make_guest(names), make_guest(names, OTHER)
        for _ in range(200):
            noisy.send("a.vm")
        assert addresses(await quiet.ask("a.vm")) == [GUEST]
        received = 0
        with suppress(BlockingIOError):
            while noisy._socket.recv(0xFFFF):
                received += 1
        assert 10 <= received <= 20  # the second may end in between
    assert [record.guest for record in caplog.records if "too often" in record.message] == [GUEST]


async def test_a_guest_has_so_many_connections_and_others_have_theirs(make_guest):
    async with open_server(limits=Limits(connections=4, connections_of_guest=3)) as names:
        greedy, modest = make_guest(names), make_guest(names, OTHER)
        held = []
        for _ in range(3):
            held.append(await greedy.connect())
            held[-1].send()
            await held[-1].receive()
        await (await greedy.connect()).wait_end()
        stream = await modest.connect()
        stream.send()
        assert addresses(await stream.receive()) == [GUEST]
        await (await modest.connect()).wait_end()
        held.pop().close()
        await wait_until(lambda: names._connections.total() == 3)
        again = await greedy.connect()
        again.send()
        await again.receive()
        for each in (*held, stream, again):
            each.close()
        await wait_until(lambda: not names._connections)


async def test_a_connection_that_idles_or_dribbles_is_closed(make_guest):
    async with open_server(limits=Limits(idle_s=SHORT_S)) as names:
        guest = make_guest(names)
        await (await guest.connect()).wait_end()
        for start in (b"\0", b"\0\x20", b"\0\x20" + b"x" * 8):
            stream = await guest.connect()
            stream.writer.write(start)
            await stream.wait_end()


@pytest.mark.parametrize("start", [b"\xff\xff", b"\x10\x01", b"\0\0", b"\0\x0c" + b"\x80" * 12])
async def test_a_message_that_is_too_long_or_no_question_ends_the_connection(make_guest, start):
    async with open_server() as names:
        stream = await make_guest(names).connect()
        stream.writer.write(start)
        await stream.wait_end()


async def test_who_does_not_take_its_answers_is_closed_and_nothing_piles_up(make_guest):
    question = dns.message.make_query("example.com", "TXT")
    response = respond(question)
    texts = [f'"{i:0200}"' for i in range(300)]
    response.answer = [dns.rrset.from_text("example.com.", 60, "IN", "TXT", *texts)]
    packet, answer = question.to_wire(), response.to_wire()

    def long(query):
        return [query.id.to_bytes(2, "big") + answer[2:]]

    limits = Limits(idle_s=SHORT_S, questions_per_s=1000)
    async with open_upstream(long) as upstream, open_server(upstream, limits=limits) as names:
        stream = await make_guest(names).connect()
        stream.reader._transport.pause_reading()
        stream.writer.write((len(packet).to_bytes(2, "big") + packet) * 500)
        await wait_until(lambda: names._connections.total() == 1)
        await wait_until(lambda: not names._connections)
        assert 3 < len(upstream.streams) < 400


async def test_broken_packets_harm_nobody(make_guest):
    """The zone's own fuzz test has twenty thousand; here some go through the sockets."""
    rng = random.Random(3)
    limits = Limits(questions_per_s=1 << 30)
    async with open_upstream(honest) as upstream, open_server(upstream, limits=limits) as names:
        noisy, quiet = make_guest(names), make_guest(names, OTHER)
        seed = dns.message.make_query("www.example.com", "A", use_edns=True).to_wire()
        for number in range(2000):
            packet = bytearray(seed)
            for _ in range(rng.randint(0, 3)):
                packet[rng.randrange(len(packet))] = rng.randrange(256)
            noisy.send_bytes(packet[: rng.randint(0, len(packet) * 2)])
            if number % 50 == 0:
                assert addresses(await quiet.ask("a.vm")) == [GUEST]
        noisy.send_bytes(b"\0" * 60_000)
        assert addresses(await quiet.ask("a.vm")) == [GUEST]
        await wait_until(lambda: names._forwarder.under_way == 0)
        assert upstream.datagrams


# The end


async def test_close_ends_what_is_under_way_and_gives_all_descriptors_back(make_guest):
    before = sorted(os.listdir("/proc/self/fd"))
    async with open_upstream(silent) as upstream:
        async with open_server(upstream) as names:
            guest = make_guest(names)
            streams = [await guest.connect() for _ in range(3)]
            streams[0].send("example.com")
            guest.send("example.com")
            await wait_until(lambda: upstream.datagrams and upstream.streams)
            assert names._forwarder.under_way == 2
        assert names._forwarder.under_way == 0
        for stream in streams:
            await stream.wait_end()
        await names.close()
        guest.close()
    await wait_until(lambda: sorted(os.listdir("/proc/self/fd")) == before)


def test_dnspython_is_loaded_by_a_name_server_only():
    program = "import sys, banger.services.hostnet.names; assert not [m for m in sys.modules if m.split('.')[0] == 'dns']"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
