"""Whether something at an address speaks HTTP, plain or under TLS.

What answers is a guest's, and a guest is not trusted: each probe has a deadline, reads a few bytes and no more, and
believes nothing; no certificate is verified, since none is relied upon.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from banger.services.usage.reach import Place

PROBES_MAX = 64
_PLAIN_S = 2.0
_TLS_S = 2.0
_STATUS_LINE_BYTES = len("HTTP/1.1 200")
_BUFFER_BYTES = 4096
_BAD_REQUEST = b"400"  # what servers answer in the clear on a port of TLS


async def probe_all(places: Iterable[Place]) -> dict[Place, str]:
    """`http`, `https` or nothing, of the first 64 places, all at once."""
    chosen = tuple(dict.fromkeys(places))[:PROBES_MAX]
    async with asyncio.TaskGroup() as group:
        tasks = {place: group.create_task(probe(place)) for place in chosen}
    return {place: task.result() for place, task in tasks.items()}


async def probe(place: Place) -> str:
    try:
        async with asyncio.timeout(_PLAIN_S):
            status = await _ask_plainly(place)
    except (OSError, TimeoutError):
        status = None
    if status not in (None, _BAD_REQUEST):
        return "http"
    try:
        async with asyncio.timeout(_TLS_S), _connect(place, tls=_make_context()):
            return "https"
    except (OSError, TimeoutError):  # ssl.SSLError is one
        return "" if status is None else "http"


async def _ask_plainly(place: Place) -> bytes | None:
    """The status of a HEAD of `/`; None for an answer that is not HTTP's."""
    request = f"HEAD / HTTP/1.1\r\nHost: {place.shown}\r\nUser-Agent: banger\r\nConnection: close\r\n\r\n"
    async with _connect(place) as (reader, writer):
        writer.write(request.encode("ascii"))
        try:
            line = await reader.readexactly(_STATUS_LINE_BYTES)
        except asyncio.IncompleteReadError:
            return None
    return line[-3:] if line.startswith(b"HTTP/1.") and line[-3:].isdigit() else None


@asynccontextmanager
async def _connect(
    place: Place, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Closed at once when the block ends: a peer that does not close its side holds nobody up."""
    reader, writer = await asyncio.open_connection(
        place.address,
        place.port,
        limit=_BUFFER_BYTES,
        ssl=tls,
        server_hostname=place.name if tls else None,
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _make_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
