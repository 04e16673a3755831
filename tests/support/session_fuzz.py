"""Anything a host might say about sessions, in any order, to the real agent: right requests, wrong ones, cut ones.

The agent has to keep its own side of the protocol meanwhile, and to be well afterwards.
"""

import asyncio
import random
import secrets
import socket

from banger.guest.frames import (
    FLUSH,
    MAGIC,
    MAX_PAYLOAD_BYTES,
    NONCE_BYTES,
    WINDOW_BYTES,
    FieldValue,
    Frame,
    FrameParser,
    FrameType,
    OpeningSearch,
    Stream,
    encode_fields,
    encode_frame,
    encode_u16,
    encode_u32,
)
from banger.guest.methods import Method

_SCRIPTS = (
    "cat",
    "echo hi; exit 3",
    "yes | head -c 300000",
    "trap '' TERM; sleep 0.2",
    "while read x; do echo $x; echo $x >&2; done",
    "sleep 100 & sleep 0.05",
    "printf '\\033[?1049h'; head -c 9000 /dev/urandom; exec cat",
)
_METHODS = tuple(range(Method.SESSION_START, Method.SESSION_WATCH + 1))
_SIGNALS = (1, 2, 9, 15, 18, 19, 28, 64, 65, 0, 2**40)
_ALSO = (Method.HEALTH, Method.EXEC, 99)


class FuzzingHost:
    """One host after another on the same stream. `run` says what it saw."""

    def __init__(self, host: socket.socket, seed: str) -> None:
        self._socket = host
        self._random = random.Random(seed)
        self._open: dict[int, int] = {}  # channel: what may still be sent on its stdin
        self._parser = FrameParser()
        self._next = 1
        self.ends: dict[int, int] = {}  # by error code

    async def run(self, frames: int) -> None:
        sent = 0
        while sent < frames:
            await self._meet()
            turns = min(frames - sent, self._random.randrange(1, 400))
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listen())
                for _ in range(turns):
                    await self._send(self._pick())
                    await asyncio.sleep(0 if self._random.random() < 0.8 else 0.002)
                listening.cancel()
            sent += turns

    async def _send(self, data: bytes) -> None:
        if data:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _receive(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._socket, 262144)
        assert data, "the agent is gone"
        return data

    async def _meet(self) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._open.clear()
        if self._random.random() < 0.3:  # cut in the middle of a frame
            await self._send(encode_frame(FrameType.DATA, 0, 1, bytes(100))[: self._random.randrange(1, 90)])
        greeting = asyncio.create_task(self._send(FLUSH + encode_frame(FrameType.HELLO, 0, 0, MAGIC + nonce)))
        search, found = OpeningSearch(FrameType.WELCOME, MAGIC + nonce), None
        while found is None:
            found = search.feed(await self._receive())
        await greeting
        self._parser = FrameParser(found)
        while (frame := self._parser.next_frame()) is None:
            self._parser.feed(await self._receive())
        assert frame.type == FrameType.WELCOME

    async def _listen(self) -> None:
        while True:
            while (frame := self._parser.next_frame()) is not None:
                await self._hear(frame)
            self._parser.feed(await self._receive())

    async def _hear(self, frame: Frame) -> None:
        assert frame.channel in self._open, frame
        if frame.type == FrameType.END:
            del self._open[frame.channel]
            code = int.from_bytes(frame.payload[:4], "little")
            self.ends[code] = self.ends.get(code, 0) + 1
        elif frame.type == FrameType.WINDOW:
            self._open[frame.channel] += int.from_bytes(frame.payload, "little")
        elif frame.type == FrameType.DATA and self._random.random() < 0.95:  # else it gets slower and slower
            grant = encode_u32(len(frame.payload))
            await self._send(encode_frame(FrameType.WINDOW, frame.stream, frame.channel, grant))

    def _pick(self) -> bytes:
        chance = self._random.random()
        if chance < 0.45 or not self._open:
            return self._pick_open()
        channel = self._random.choice(tuple(self._open))
        if chance < 0.75:
            size = min(self._random.choice((0, 1, 100, MAX_PAYLOAD_BYTES)), self._open[channel])
            self._open[channel] -= size
            return encode_frame(FrameType.DATA, Stream.STDIN, channel, self._random.randbytes(size))
        if chance < 0.85:
            return encode_frame(FrameType.CLOSE, 0, channel)
        if chance < 0.95:
            return encode_frame(FrameType.EOF, Stream.STDIN, channel)
        return encode_frame(FrameType.CONTROL, 0, channel, encode_u16(2) + encode_fields([(1, 9), (2, 9)]))

    def _pick_open(self) -> bytes:
        if len(self._open) >= 200:
            return b""
        method = self._random.choice(_METHODS if self._random.random() < 0.95 else _ALSO)
        payload = bytearray(encode_fields(self._pick_fields(method)))
        if payload and self._random.random() < 0.1:
            payload[self._random.randrange(len(payload))] ^= 1 << self._random.randrange(8)
        number, self._next = self._next, self._next + 1
        self._open[number] = WINDOW_BYTES
        return encode_frame(FrameType.OPEN, 0, number, encode_u16(method) + bytes(payload))

    def _pick_fields(self, method: int) -> list[tuple[int, FieldValue]]:
        pick = self._random
        name = f"s{pick.randrange(12)}"
        if method == Method.SESSION_START:
            fields: list[tuple[int, FieldValue]] = [(1, "/bin/sh"), (1, "-c"), (1, pick.choice(_SCRIPTS))]
            fields += [(8, name), (5, pick.randrange(8)), (11, pick.choice((1, 5000, 70000, 2**20, 2**30)))]
            if pick.random() < 0.1:
                fields.append((9, "no-such-command"))
            return fields
        if method == Method.SESSION_READ:
            chosen: list[tuple[int, FieldValue]] = [(1, name)]
            for tag, values in ((2, (0, 7, 2**64 - 1)), (3, (0, 3, 2**63)), (4, (2, 4, 6, 0)), (5, (0, 1))):
                if pick.random() < 0.5:
                    chosen.append((tag, pick.choice(values)))
            return chosen
        if method == Method.SESSION_SIGNAL:
            return [(1, name), (2, pick.choice(_SIGNALS))]
        if method == Method.SESSION_STOP:
            return [(1, name), (2, pick.choice((0, 20, 100, 2**64 - 1)))]
        return [(1, name), (2, pick.randrange(3)), (3, pick.randrange(70000))]
