"""One connection to a guest agent and all channels on it.

Owns the connection from `Link.open` on: one guarded reader task, the table of channels, the clean end of
both. The guest is not trusted: its first misstep ends the link, and every caller then gets a Problem
`unavailable` with outcome unknown. No deadlines live here; callers set them with `asyncio.timeout`, and a
cancelled caller sends CLOSE for its channel.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request, unavailable
from banger.guest.channel import Channel, End, Outbox, repeat_problem
from banger.guest.entries import clean_boot_id, clean_word
from banger.guest.frames import (
    FLUSH,
    HEADER_BYTES,
    MAGIC,
    MAX_PAYLOAD_BYTES,
    NONCE_BYTES,
    WINDOW_BYTES,
    Fields,
    FieldValue,
    Frame,
    FrameParser,
    FrameType,
    MalformedFrame,
    OpeningSearch,
    Stream,
    decode_fields,
    decode_u32,
    decode_u64,
    encode_fields,
    encode_frame,
    encode_u16,
)

_log = logging.getLogger(__name__)
_READ_BYTES = 262144
_MAX_CHANNEL = 2**32 - 1
_MAX_STAGES = 64
_TURN_FRAMES = 256  # handled before everybody else's turn, about half a millisecond of small ones
_LATE_BYTES = 8 * WINDOW_BYTES  # of a closed channel: both its windows, in frames that may be small


class Welcome(NamedTuple):
    """What the guest says when it is ready: words that can be shown, a boot id that is one or "".

    `stages` are microseconds of the guest's uptime, in its order.
    """

    agent_version: str
    boot_id: str
    ready_uptime_us: int
    stages: dict[str, int]


def parse_welcome(fields: Fields) -> Welcome:
    stages: dict[str, int] = {}
    for encoded in fields.find_all(5)[:_MAX_STAGES]:
        name, separator, number = encoded.partition(b"\0")
        if not separator:
            raise MalformedFrame("a boot stage has no name")
        stages[clean_word(name)] = decode_u64(number)
    return Welcome(
        clean_word(fields.find(1) or b""),
        clean_boot_id(fields.find(2) or b""),
        fields.find_number(3) or 0,
        stages,
    )


class Link:
    """Made by `Link.open`; whoever has it calls `aclose`, or uses it as an async context manager."""

    def __init__(self, reader: asyncio.StreamReader, outbox: Outbox, welcome: Welcome, rest: bytes) -> None:
        self.welcome = welcome
        self._reader = reader
        self._outbox = outbox
        self._parser = FrameParser(rest)
        self._channels: dict[int, Channel] = {}
        self._late: dict[int, int] = {}  # by number of a channel closed before its END: what may still come
        self._last_number = 0
        self._failure: Problem | None = None
        self._task = asyncio.create_task(self._run_reader(), name="guest link reader")

    @classmethod
    async def open(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> "Link":
        """Greets the guest and returns once it has answered, which is also when it is ready.

        Takes the connection over: it is dropped when this fails or is cancelled. The guest may take as long
        as its boot does; stale bytes of an earlier conversation are discarded meanwhile.
        """
        outbox = Outbox(writer)
        nonce = secrets.token_bytes(NONCE_BYTES)
        try:
            writer.write(FLUSH + encode_frame(FrameType.HELLO, 0, 0, MAGIC + nonce))
            welcome, rest = await _read_welcome(reader, nonce)
        except (OSError, MalformedFrame) as error:
            outbox.shut()
            raise unavailable("the guest agent does not answer", detail=str(error) or None) from error
        except BaseException:
            outbox.shut()
            raise
        return cls(reader, outbox, welcome, rest)

    async def __aenter__(self) -> "Link":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def is_closed(self) -> bool:
        return self._failure is not None

    @property
    def buffered_bytes(self) -> int:
        """What all channels hold for consumers that have not taken it."""
        return sum(channel.buffered_bytes for channel in self._channels.values())

    async def wait_closed(self) -> Problem:
        """Returns when the connection has ended, with the reason. Never raises it."""
        await asyncio.wait([self._task])
        assert self._failure is not None
        return repeat_problem(self._failure)

    async def aclose(self) -> None:
        """Drops the connection; the guest kills what its channels still run. Idempotent."""
        self._end("the connection to the guest was closed")
        self._task.cancel()
        await asyncio.wait([self._task])

    @asynccontextmanager
    async def start_channel(
        self, method: int, fields: Iterable[tuple[int, FieldValue]] = ()
    ) -> AsyncIterator[Channel]:
        """Opens a channel and, when the block is left before its END, closes it."""
        payload = encode_u16(method) + encode_fields(fields)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise bad_request(
                f"the request to the guest has {len(payload)} bytes, more than {MAX_PAYLOAD_BYTES}",
                hint="pass long arguments on standard input or in a file",
            )
        await self._outbox.settle()  # before, so that a guest that takes nothing gathers no requests here
        if self._failure is not None:
            problem = repeat_problem(self._failure)
            problem.outcome = Outcome.NOT_STARTED
            raise problem
        channel = Channel(self._pick_number(), self._outbox, receives=(Stream.STDOUT, Stream.STDERR))
        self._channels[channel.number] = channel
        try:
            self._outbox.post(FrameType.OPEN, 0, channel.number, payload)
            yield channel
        finally:
            if not channel.is_over:
                self._outbox.post(FrameType.CLOSE, 0, channel.number)
                self._late[channel.number] = _LATE_BYTES
            channel.abandon()
            self._channels.pop(channel.number, None)

    def _pick_number(self) -> int:
        """Numbers count up, so that late frames of a closed channel meet no other channel for a long time."""
        while True:
            self._last_number = self._last_number % _MAX_CHANNEL + 1
            if self._last_number not in self._channels and self._last_number not in self._late:
                return self._last_number

    async def _run_reader(self) -> None:
        """Reads until the connection's end. However it ends, every channel learns of it."""
        reason, detail = "the connection to the guest ended", None
        try:
            await self._read_frames()
        except MalformedFrame as error:
            reason, detail = "the guest agent broke its protocol", str(error)
        except OSError as error:
            detail = str(error)
        except Exception:  # noqa: BLE001 (task supervisor)
            _log.exception("the guest link's reader failed")
            reason = "the guest link failed, which is a bug in banger"
        finally:
            self._end(reason, detail)

    async def _read_frames(self) -> None:
        parser = self._parser
        handled = 0
        while True:
            while (frame := parser.next_frame()) is not None:
                self._dispatch(frame)
                handled += 1
                if handled % _TURN_FRAMES == 0:
                    await asyncio.sleep(0)
            data = await self._reader.read(_READ_BYTES)
            if not data:
                return
            parser.feed(data)

    def _dispatch(self, frame: Frame) -> None:
        channel = self._channels.get(frame.channel)
        if frame.type not in _FROM_GUEST:
            raise MalformedFrame(f"a guest does not send frames of type {frame.type}")
        if channel is None or channel.end is not None:
            self._drop_late(frame)
        elif frame.type == FrameType.DATA:
            channel.take_data(frame.stream, frame.payload)
        elif frame.type == FrameType.WINDOW:
            channel.take_window(frame.stream, decode_u32(frame.payload)[0])
        elif frame.type == FrameType.EOF:
            channel.take_eof(frame.stream)
        elif frame.type == FrameType.STARTED:
            channel.take_started(decode_fields(frame.payload))
        else:
            error, rest = decode_u32(frame.payload)
            channel.take_end(End(error, decode_fields(rest)))

    def _drop_late(self, frame: Frame) -> None:
        """Frames that crossed our CLOSE, up to the END that answers it. Nothing comes after an END."""
        left = self._late.get(frame.channel)
        if left is None:
            raise MalformedFrame(f"channel {frame.channel} is not open")
        left -= HEADER_BYTES + len(frame.payload)
        if left < 0:
            raise MalformedFrame(f"channel {frame.channel} goes on after it was closed")
        if frame.type == FrameType.END:
            del self._late[frame.channel]
        else:
            self._late[frame.channel] = left

    def _end(self, brief: str, detail: str | None = None) -> None:
        if self._failure is not None:
            return
        self._failure = Problem(Code.UNAVAILABLE, brief, detail=detail, outcome=Outcome.UNKNOWN)
        self._outbox.shut()
        for channel in self._channels.values():
            channel.fail(self._failure)


_FROM_GUEST = frozenset((FrameType.STARTED, FrameType.DATA, FrameType.EOF, FrameType.WINDOW, FrameType.END))


async def _read_welcome(reader: asyncio.StreamReader, nonce: bytes) -> tuple[Welcome, bytes]:
    search = OpeningSearch(FrameType.WELCOME, MAGIC + nonce)
    found: bytes | None = None
    while found is None:
        found = search.feed(await _read_some(reader))
    parser = FrameParser(found)
    while (frame := parser.next_frame()) is None:
        parser.feed(await _read_some(reader))
    return parse_welcome(decode_fields(frame.payload[len(MAGIC) + NONCE_BYTES :])), parser.unparsed


async def _read_some(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_READ_BYTES)
    if not data:
        raise ConnectionResetError("the connection ended before the agent answered")
    return data
