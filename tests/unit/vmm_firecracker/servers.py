"""Firecrackers of a few lines: Unix sockets that say what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(path: Path, talk: Talk) -> AsyncIterator[list[int]]:
    """Counts its connections in the list's only element."""
    count = [0]
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count[0] += 1
        writers.append(writer)
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield count
    finally:
        server.close()
        for writer in writers:
            writer.close()
        path.unlink(missing_ok=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The request's first line and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:")), 0)
    return head.split("\r\n")[0], await reader.readexactly(length)


def answering(*answers: bytes) -> Talk:
    """One after the other, to each request."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()
        writer.close()

    return talk
