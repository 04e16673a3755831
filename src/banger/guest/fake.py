"""A guest without a machine: the guest's side of the protocol over any byte stream.

For tests of everything above the VMM. Commands run on the host for real, as the calling user, with a
scratch directory as home; file and tree methods see the scratch directory as `/`. What it does not do:
users, PTYs of exec (there it is a pipe with stderr merged), owners. Speaks the same frames as the C agent does, and is
held to the same golden vectors.
"""

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

from banger.guest.channel import Channel, Outbox
from banger.guest.entries import FileSystem, Health, Listener, Usage
from banger.guest.errors import UNKNOWN_METHOD
from banger.guest.fake_methods import METHODS, Call, Refusal
from banger.guest.fake_session_methods import SESSION_METHODS
from banger.guest.fake_sessions import FakeSessionTable
from banger.guest.frames import (
    MAGIC,
    NONCE_BYTES,
    Frame,
    FrameParser,
    FrameType,
    MalformedFrame,
    OpeningSearch,
    Stream,
    decode_fields,
    decode_u16,
    decode_u32,
    encode_fields,
    encode_u32,
)

_READ_BYTES = 262144
Callback = Callable[[], None]


def _nothing() -> None: ...


class FakeGuest:
    """One guest; serves one connection after another. Callbacks run after the answer was sent.

    Tests may change the public attributes at any time: `is_silent` keeps every answer back.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        on_power_off: Callback = _nothing,
        on_reboot: Callback = _nothing,
        boot_id: str = "00000000-0000-4000-8000-000000000000",
        init_mode: str = "resident",
    ) -> None:
        self.scratch = scratch
        self.on_power_off = on_power_off
        self.on_reboot = on_reboot
        self.boot_id = boot_id
        self.init_mode = init_mode
        self.is_silent = False
        self.stages: dict[str, int] = {"root": 200_000, "agent": 300_000}
        self.health = Health(1_000_000, boot_id, 0.05, 256 << 20, 200 << 20, 1 << 20, init_mode)
        self.listeners: tuple[Listener, ...] = ()
        self.ports_changed = asyncio.Condition()
        self.usage = Usage(1000, 2000, (FileSystem("/", 1 << 30, 1 << 29, 1 << 29),))
        self.connections: dict[int, int] = {}  # established ones by TCP port
        self.clock_offset_ns = 0
        self.sync_count = 0
        self.sessions = FakeSessionTable()  # `lose_all` when the guest ends: they outlive connections
        self.leaving: set[asyncio.Task[None]] = set()  # abandoned calls that have not let go yet
        self.closed_count = 0  # channels that the host abandoned
        (scratch / "root").mkdir(parents=True, exist_ok=True)

    async def listen(self, listener: Listener) -> None:
        """Pretends that something listens from now on, and wakes `wait_port`."""
        async with self.ports_changed:
            self.listeners += (listener,)
            self.ports_changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves until the host goes away. What runs then is killed. Closes the connection."""
        outbox = Outbox(writer)
        try:
            async with asyncio.TaskGroup() as group:
                session = _Session(self, outbox, group)
                await session.run(reader)
                session.reset()
        finally:
            outbox.shut()


class _Session:
    """One connection as the guest sees it: searching for HELLO, or speaking."""

    def __init__(self, guest: FakeGuest, outbox: Outbox, group: asyncio.TaskGroup) -> None:
        self._guest = guest
        self._outbox = outbox
        self._group = group
        self._calls: dict[int, tuple[Call, asyncio.Task[None]]] = {}

    async def run(self, reader: asyncio.StreamReader) -> None:
        search, parser = _new_search(), None
        try:
            while data := await reader.read(_READ_BYTES):
                rest: bytes | None = data
                if parser is not None:
                    parser.feed(data)
                while rest:
                    if parser is None:
                        found = search.feed(rest)
                        parser = FrameParser(found) if found is not None else None
                    rest = self._speak(parser) if parser is not None else None
                    if rest is not None:
                        search, parser = _new_search(), None
        except ConnectionError:
            return

    def _speak(self, parser: FrameParser) -> bytes | None:
        """Handles all whole frames. The bytes to search on, when one was malformed."""
        try:
            while (frame := parser.next_frame()) is not None:
                self._dispatch(frame)
        except MalformedFrame:
            self.reset()
            return parser.unparsed[1:]
        return None

    def reset(self) -> None:
        for _, task in self._calls.values():
            self._abandon(task)
        self._calls.clear()

    def _abandon(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._guest.leaving.add(task)
        task.add_done_callback(self._guest.leaving.discard)

    def _dispatch(self, frame: Frame) -> None:
        if self._guest.is_silent:
            return
        if frame.type == FrameType.HELLO:
            self._welcome(frame)
        elif frame.type == FrameType.OPEN:
            self._open(frame)
        elif frame.type not in _FROM_HOST:
            raise MalformedFrame(f"a host does not send frames of type {frame.type}")
        elif frame.channel in self._calls:
            self._continue(frame, *self._calls[frame.channel])

    def _welcome(self, frame: Frame) -> None:
        self.reset()
        guest = self._guest
        fields: list[tuple[int, int | str | bytes]] = [
            (1, "fake"),
            (2, guest.boot_id),
            (3, guest.health.uptime_us),
        ]
        fields += [(5, name.encode() + b"\0" + at.to_bytes(8, "little")) for name, at in guest.stages.items()]
        nonce = frame.payload[len(MAGIC) : len(MAGIC) + NONCE_BYTES]
        self._outbox.post(FrameType.WELCOME, 0, 0, MAGIC + nonce + encode_fields(fields))

    def _open(self, frame: Frame) -> None:
        method, rest = decode_u16(frame.payload)
        if frame.channel in self._calls or frame.channel == 0:
            raise MalformedFrame(f"channel {frame.channel} is in use")
        channel = Channel(frame.channel, self._outbox, receives=(Stream.STDIN,))
        call = Call(self._guest, self._outbox, channel, decode_fields(rest))
        task = self._group.create_task(self._run_call(method, call))
        self._calls[frame.channel] = (call, task)

    def _continue(self, frame: Frame, call: Call, task: asyncio.Task[None]) -> None:
        channel = call.channel
        if frame.type == FrameType.DATA:
            channel.take_data(frame.stream, frame.payload)
        elif frame.type == FrameType.EOF:
            channel.take_eof(frame.stream)
        elif frame.type == FrameType.WINDOW:
            channel.take_window(frame.stream, decode_u32(frame.payload)[0])
        elif frame.type == FrameType.CONTROL:
            code, rest = decode_u16(frame.payload)
            call.control(code, decode_fields(rest))
        else:
            self._guest.closed_count += 1
            del self._calls[frame.channel]
            self._abandon(task)

    async def _run_call(self, method: int, call: Call) -> None:
        """Runs one method and sends its END; a cancelled one was closed by the host and sends nothing."""
        after: Callback = _nothing
        try:
            error, answer = 0, b""
            if self._guest.leaving:  # a guest would be done with them
                await asyncio.wait(set(self._guest.leaving))
            handle = METHODS.get(method) or SESSION_METHODS.get(method)
            if handle is None:
                raise Refusal(UNKNOWN_METHOD, f"method {method}")
            answer, after = await handle(call)
        except OSError as problem:
            error = problem.errno or errno.EIO
            answer = encode_fields([(1, problem.strerror or str(problem))])
        except Refusal as refusal:
            error, answer = refusal.error, encode_fields([(1, refusal.text)])
        except MalformedFrame as problem:  # a field is missing
            error, answer = errno.EINVAL, encode_fields([(1, str(problem))])
        del self._calls[call.channel.number]
        self._outbox.post(FrameType.END, 0, call.channel.number, encode_u32(error) + answer)
        await self._outbox.settle()
        after()


_FROM_HOST = frozenset((FrameType.DATA, FrameType.EOF, FrameType.WINDOW, FrameType.CONTROL, FrameType.CLOSE))


def _new_search() -> OpeningSearch:
    return OpeningSearch(FrameType.HELLO, MAGIC)
