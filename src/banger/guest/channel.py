"""One conversation inside a link: its windows, what waits to be read, and how it ended.

Owns no socket, and a task only while controls wait for it. The link's reader hands frames in with the `take_`
methods, which never wait; callers wait in `read`, `write` and the `wait_` methods. Invariants: what is buffered
never exceeds the windows granted, and more is granted only when a consumer has taken bytes. The same class
serves either side.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from banger.base.problem import Problem
from banger.guest.frames import (
    MAX_PAYLOAD_BYTES,
    WINDOW_BYTES,
    Fields,
    FieldValue,
    FrameType,
    MalformedFrame,
    Stream,
    encode_data,
    encode_fields,
    encode_frame,
    encode_u16,
    encode_u32,
)

_TURN_BYTES = 4 * MAX_PAYLOAD_BYTES  # what one channel sends before the next one's turn
_GRANT_BYTES = WINDOW_BYTES // 4  # consumed bytes are granted again in pieces of this size
_CONTROL_SIGNAL = 1
_BACKLOG_BYTES = 65536  # with that much unsent, controls wait
_MAX_CONTROLS = 65  # every signal and a resize
_MAX_CHUNKS = 1024  # beyond it small chunks are merged, so that the buffer's overhead is bounded too


class Output(NamedTuple):
    """Bytes of one stream, at most a frame's worth or a little more."""

    stream: Stream
    data: bytes


class End(NamedTuple):
    """The last frame of a channel: error 0 or an errno (or one of the agent's own numbers)."""

    error: int
    fields: Fields


def repeat_problem(problem: Problem) -> Problem:
    """An equal problem to raise: an exception raised twice would carry the tracebacks of both."""
    return Problem(
        problem.code, problem.brief, detail=problem.detail, hint=problem.hint, outcome=problem.outcome
    )


class Outbox:
    """The writing half of a connection: whole frames only, data in turns, no more than the socket takes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._turn = asyncio.Lock()  # first come, first served: that is the fairness between channels
        self._is_open = True

    def post(self, frame_type: FrameType, stream: int, channel: int, payload: bytes = b"") -> None:
        """Sends a small frame without waiting. Silent after the connection's end: the reader tells of it."""
        if self._is_open:
            self._writer.write(encode_frame(frame_type, stream, channel, payload))

    @property
    def is_full(self) -> bool:
        return self._is_open and self._writer.transport.get_write_buffer_size() >= _BACKLOG_BYTES

    async def settle(self) -> None:
        """Waits until the socket takes more. A broken connection is the reader's to report."""
        if self._is_open:
            try:
                await self._writer.drain()
            except OSError:
                self.shut()

    async def send_data(self, channel: "Channel", stream: int, data: memoryview) -> int:
        """Sends what the channel's window allows, at most one turn's worth; how much that was."""
        async with self._turn:
            size = min(len(data), channel.send_window(stream), _TURN_BYTES)
            if size > 0 and self._is_open:
                self._writer.write(encode_data(stream, channel.number, data[:size]))
                channel.spend_window(stream, size)
                await self.settle()
            return size

    def shut(self) -> None:
        """Drops the connection and what was not sent yet: a polite close may wait for ever on a full one."""
        if self._is_open:
            self._is_open = False
            self._writer.transport.abort()


class _Chunk:
    __slots__ = ("data", "stream")

    def __init__(self, stream: int, data: bytes | bytearray) -> None:
        self.stream = stream
        self.data = data


class Channel:
    """`receives` names the streams the peer may send; all others flow the other way."""

    def __init__(self, number: int, outbox: Outbox, *, receives: Iterable[Stream]) -> None:
        self.number = number
        self.started: Fields | None = None
        self.end: End | None = None
        self._outbox = outbox
        self._failure: Problem | None = None
        self._receive_window = [0, 0, 0]
        self._send_window = [WINDOW_BYTES, WINDOW_BYTES, WINDOW_BYTES]
        for stream in receives:
            self._receive_window[stream], self._send_window[stream] = WINDOW_BYTES, 0
        self._may_receive = tuple(window > 0 for window in self._receive_window)
        self._ungranted = [0, 0, 0]
        self._at_eof = [False, False, False]
        self._chunks: deque[_Chunk] = deque()
        self._buffered = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._controls: dict[object, bytes] = {}  # those that wait for the socket, oldest first
        self._settling: asyncio.Task[None] | None = None

    @property
    def buffered_bytes(self) -> int:
        """What has arrived and nobody has taken yet."""
        return self._buffered

    @property
    def is_over(self) -> bool:
        return self.end is not None or self._failure is not None

    # What the link's reader hands in. None of these waits.

    def take_data(self, stream: int, payload: bytes) -> None:
        size = len(payload)
        left = self._receive_window[stream] - size
        if left < 0 or self._at_eof[stream]:
            raise MalformedFrame(f"stream {stream} of channel {self.number} overruns its window or its end")
        if size == 0:
            return
        self._receive_window[stream] = left
        self._buffered += size
        self._keep(stream, payload)
        self._wake()

    def _keep(self, stream: int, payload: bytes) -> None:
        """Merges small pieces, so that a peer that sends single bytes costs little more than its window."""
        chunks = self._chunks
        if chunks and len(payload) < MAX_PAYLOAD_BYTES // 2:
            last = chunks[-1]
            if last.stream == stream and len(last.data) < MAX_PAYLOAD_BYTES:
                _extend(last, payload)
                return
            if len(chunks) >= _MAX_CHUNKS:  # gives up the order between the two streams
                for chunk in reversed(chunks):
                    if chunk.stream == stream:
                        _extend(chunk, payload)
                        return
        chunks.append(_Chunk(stream, payload))

    def take_eof(self, stream: int) -> None:
        if not self._may_receive[stream]:
            raise MalformedFrame(f"stream {stream} of channel {self.number} is not the peer's to end")
        self._at_eof[stream] = True
        self._wake()

    def take_window(self, stream: int, size_bytes: int) -> None:
        if self._may_receive[stream]:
            raise MalformedFrame(f"a window for stream {stream} of channel {self.number} flows the wrong way")
        self._send_window[stream] += size_bytes
        self._wake()

    def take_started(self, fields: Fields) -> None:
        if self.started is not None:
            raise MalformedFrame(f"channel {self.number} starts twice")
        self.started = fields
        self._wake()

    def take_end(self, end: End) -> None:
        self.end = end
        self._wake()

    def fail(self, problem: Problem) -> None:
        """The connection is gone. What has arrived can still be read; then the problem is raised."""
        if not self.is_over:
            self._failure = problem
            self._wake()

    def abandon(self) -> None:
        """Nobody reads this channel any more."""
        self._chunks.clear()
        self._controls.clear()
        self._buffered = 0

    # What callers wait for.

    async def wait_started(self) -> Fields | None:
        """The fields of STARTED, or None when the channel ended without it."""
        while self.started is None and self.end is None:
            await self._wait_change()
        return self.started

    async def wait_end(self) -> End:
        """Waits for END. A peer with more to send than its window ends only when somebody reads."""
        while self.end is None:
            await self._wait_change()
        return self.end

    async def read(self) -> Output | None:
        """The next bytes of any stream, or None after the peer's last; taking them grants the peer more."""
        while not self._chunks:
            if self.end is not None or self._is_at_eof():
                return None
            await self._wait_change()
        chunk = self._chunks.popleft()
        size = len(chunk.data)
        self._buffered -= size
        self._grant(chunk.stream, size)
        return Output(Stream(chunk.stream), bytes(chunk.data))

    def _is_at_eof(self) -> bool:
        """Whether all streams the peer sends on have ended; one that never began counts as open."""
        return all(ended for ended, may in zip(self._at_eof, self._may_receive, strict=True) if may)

    async def write(self, stream: Stream, data: bytes | memoryview) -> bool:
        """Sends all bytes as window and socket allow. False when the channel has ended and takes no more."""
        view = memoryview(data).cast("B")
        while view:
            while self._send_window[stream] <= 0 and self.end is None:
                await self._wait_change()
            if self.end is not None:
                return False
            self._raise_failure()
            view = view[await self._outbox.send_data(self, stream, view) :]
        return True

    # What is sent without waiting.

    def post_eof(self, stream: Stream) -> None:
        if not self.is_over:
            self._outbox.post(FrameType.EOF, stream, self.number)

    def post_control(self, code: int, fields: Iterable[tuple[int, FieldValue]]) -> None:
        """Never waits. On a full socket controls are kept: each signal once, of all others the newest."""
        if self.is_over:
            return
        payload = encode_u16(code) + encode_fields(fields)
        if self._settling is None and not self._outbox.is_full:
            self._outbox.post(FrameType.CONTROL, 0, self.number, payload)
            return
        key: object = payload if code == _CONTROL_SIGNAL else code
        self._controls.pop(key, None)
        if len(self._controls) < _MAX_CONTROLS:
            self._controls[key] = payload
        if self._settling is None:
            self._settling = asyncio.create_task(self._outbox.settle(), name="controls for a guest")
            self._settling.add_done_callback(self._post_kept_controls)

    def _post_kept_controls(self, _: object) -> None:
        self._settling = None
        controls, self._controls = self._controls, {}
        if not self.is_over:
            for payload in controls.values():
                self._outbox.post(FrameType.CONTROL, 0, self.number, payload)

    def send_window(self, stream: int) -> int:
        return 0 if self.is_over else self._send_window[stream]

    def spend_window(self, stream: int, size_bytes: int) -> None:
        self._send_window[stream] -= size_bytes

    def _grant(self, stream: int, size_bytes: int) -> None:
        self._ungranted[stream] += size_bytes
        if self._ungranted[stream] >= _GRANT_BYTES and not self.is_over and not self._at_eof[stream]:
            self._receive_window[stream] += self._ungranted[stream]
            self._outbox.post(FrameType.WINDOW, stream, self.number, encode_u32(self._ungranted[stream]))
            self._ungranted[stream] = 0

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise repeat_problem(self._failure)

    async def _wait_change(self) -> None:
        """Waits for any `take_`. Raises the failure of the connection, before and after."""
        self._raise_failure()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def _extend(chunk: _Chunk, payload: bytes) -> None:
    if not isinstance(chunk.data, bytearray):
        chunk.data = bytearray(chunk.data)
    chunk.data += payload
