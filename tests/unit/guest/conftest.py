"""A connected pair of streams, a scripted guest that does exactly what a test says, and a fake one."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from banger.guest.agent import Agent
from banger.guest.fake import FakeGuest
from banger.guest.frames import (
    FLUSH,
    MAGIC,
    Fields,
    Frame,
    FrameParser,
    FrameType,
    OpeningSearch,
    decode_fields,
    encode_fields,
    encode_frame,
    encode_u32,
)
from banger.guest.link import Link

BOOT_ID = "01234567-89ab-cdef-0123-456789abcdef"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect_pair() -> tuple[Streams, Streams]:
    """The host's end has a small buffer, so that waiting for the socket is part of every test."""
    host, guest = socket.socketpair()
    host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
    return await asyncio.open_connection(sock=host), await asyncio.open_connection(sock=guest)


class ScriptedGuest:
    """The guest's end of a connection, driven frame by frame."""

    def __init__(self, streams: Streams) -> None:
        self.reader, self.writer = streams
        self.parser = FrameParser()
        self.flush = b""
        self.nonce = b""

    async def receive_hello(self) -> None:
        search = OpeningSearch(FrameType.HELLO, MAGIC)
        seen = b""
        while True:
            data = await self.reader.read(65536)
            assert data, "the host left before HELLO"
            seen += data
            if (found := search.feed(data)) is not None:
                break
        self.flush = seen[: len(seen) - len(found)]
        assert self.flush == FLUSH
        self.parser = FrameParser(found)
        hello = await self.receive()
        self.nonce = hello.payload[16:32]

    def welcome(self, nonce: bytes | None = None, fields: bytes | None = None) -> bytes:
        if fields is None:
            fields = encode_fields(
                [(1, "9"), (2, BOOT_ID), (3, 7), (4, "handover"), (5, b"root\0" + (5).to_bytes(8, "little"))]
            )
        return encode_frame(FrameType.WELCOME, 0, 0, MAGIC + (nonce or self.nonce) + fields)

    async def receive(self) -> Frame:
        while (frame := self.parser.next_frame()) is None:
            data = await self.reader.read(262144)
            assert data, "the host left"
            self.parser.feed(data)
        return frame

    async def expect(self, frame_type: FrameType, channel: int | None = None) -> Frame:
        frame = await self.receive()
        assert frame.type == frame_type, frame
        assert channel is None or frame.channel == channel, frame
        return frame

    async def expect_open(self) -> tuple[int, int, Fields]:
        frame = await self.expect(FrameType.OPEN)
        return frame.channel, int.from_bytes(frame.payload[:2], "little"), decode_fields(frame.payload[2:])

    def send(self, frame_type: int, channel: int = 0, payload: bytes = b"", stream: int = 0) -> None:
        self.writer.write(encode_frame(frame_type, stream, channel, payload))

    def send_started(self, channel: int, *fields: tuple[int, int]) -> None:
        self.send(FrameType.STARTED, channel, encode_fields(fields))

    def send_end(self, channel: int, error: int = 0, *fields: tuple[int, int | str]) -> None:
        self.send(FrameType.END, channel, encode_u32(error) + encode_fields(fields))


LinkedPair = tuple[Link, ScriptedGuest]


@asynccontextmanager
async def linked_pair() -> AsyncIterator[LinkedPair]:
    host, guest_streams = await connect_pair()
    guest = ScriptedGuest(guest_streams)

    async def greet() -> None:
        await guest.receive_hello()
        guest.writer.write(guest.welcome())

    async with asyncio.TaskGroup() as group:
        group.create_task(greet())
        link = await Link.open(*host)
    try:
        async with link:
            yield link, guest
    finally:
        guest.writer.transport.abort()


@pytest.fixture
async def pair() -> AsyncIterator[LinkedPair]:
    async with linked_pair() as both:
        yield both


@pytest.fixture
async def fake_guest(tmp_path: Path) -> FakeGuest:
    return FakeGuest(tmp_path)


@pytest.fixture
async def agent(fake_guest: FakeGuest) -> AsyncIterator[Agent]:
    host, guest_streams = await connect_pair()
    async with asyncio.TaskGroup() as group:
        group.create_task(fake_guest.serve(*guest_streams))
        async with await Link.open(*host) as link:
            yield Agent(link)


Connect = Callable[[], Awaitable[tuple[Streams, Streams]]]


@pytest.fixture
def connect() -> Connect:
    return connect_pair


@pytest.fixture
def scripted() -> type[ScriptedGuest]:
    return ScriptedGuest
