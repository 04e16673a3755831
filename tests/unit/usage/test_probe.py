"""Probes of real sockets on loopback, honest and hostile."""

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from banger.services.usage import probe as module
from banger.services.usage.probe import PROBES_MAX, probe, probe_all
from banger.services.usage.reach import Place


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_PLAIN_S", 1.0)
    monkeypatch.setattr(module, "_TLS_S", 1.0)


@pytest.fixture
async def serve():
    servers = []

    async def start(handle, tls=None) -> Place:
        async def run(reader, writer):
            try:
                await handle(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        return Place("127.0.0.1", server.sockets[0].getsockname()[1], "web.vm")

    yield start
    for server in servers:
        server.close()


def answering(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(60)  # never closes by itself

    return handle


@pytest.fixture
def certificate(tmp_path) -> ssl.SSLContext:
    """Its own issuer, for another name, of last century: nobody would believe it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere.test")])
    then = datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(then)
        .not_valid_after(then + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "both.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"501 Not Implemented", b"400 Bad Request"])
async def test_whatever_its_status_an_answer_in_http_is_http(serve, status):
    assert await probe(await serve(answering(b"HTTP/1.0 " + status + b"\r\n\r\n"))) == "http"


async def test_the_request_is_a_head_of_the_name_people_use(serve):
    asked = []

    async def handle(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    place = await serve(handle)
    assert await probe(place) == "http"
    assert asked[0].startswith(b"HEAD / HTTP/1.1\r\n")
    assert f"\r\nHost: web.vm:{place.port}\r\n".encode() in asked[0]


async def test_tls_is_https_whoever_vouches_for_it(serve, certificate):
    async def handle(reader, writer):
        await reader.read()

    assert await probe(await serve(handle, certificate)) == "https"


async def test_a_server_that_complains_in_the_clear_about_plain_http_is_https(
    serve, certificate, monkeypatch
):
    """As nginx, Apache and Go do on a port of TLS."""
    complaining = await serve(answering(b"HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP on a port of HTTPS"))
    secure = await serve(answering(b""), certificate)
    connect = asyncio.open_connection

    def either(address, port, **options):
        return connect(address, secure.port if options.get("ssl") else port, **options)

    monkeypatch.setattr(asyncio, "open_connection", either)
    assert await probe(complaining) == "https"


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/2.0 200", b"HTTP/1.1 abc ", b"-ERR\r\n"]
)
async def test_other_protocols_are_neither(serve, answer):
    assert await probe(await serve(answering(answer))) == ""


async def test_a_port_where_nothing_listens_any_more_is_neither(serve):
    place = await serve(answering(b""))
    assert await probe(place._replace(address="127.0.0.9")) == ""


async def hang(reader, writer):
    await asyncio.sleep(60)


async def flood(reader, writer):
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def drip(reader, writer):
    for octet in b"HTTP/1.1 200 OK":
        writer.write(bytes([octet]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def slam(reader, writer):
    writer.transport.abort()


@pytest.mark.parametrize("behaviour", [hang, flood, drip, slam])
async def test_a_hostile_server_holds_nobody_up(serve, behaviour):
    place = await serve(behaviour)
    async with asyncio.timeout(5):
        assert await probe(place) == ""


async def test_a_flood_is_not_taken_in(serve):
    sent = 0

    async def count(reader, writer):
        nonlocal sent
        while True:
            writer.write(b"HTTP" + bytes(65532))
            await writer.drain()
            sent += 65536

    assert await probe(await serve(count)) == ""
    assert sent < 64 << 20  # what the kernel's buffers hold, twice


async def test_many_are_probed_at_once_each_once_and_no_more_than_the_limit(serve):
    hanging = await serve(hang)
    places = [Place(f"127.0.0.{number}", hanging.port, "x") for number in range(2, 2 + PROBES_MAX - 1)]
    last = Place("127.0.1.1", hanging.port, "x")
    async with asyncio.timeout(10):
        found = await probe_all([hanging, *places, hanging, last])
    assert len(found) == PROBES_MAX
    assert last not in found
    assert set(found.values()) == {""}
