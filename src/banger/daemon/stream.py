"""The caller's end of a command: frames on the connection of a stream call (docs/reference/rpc.md).

Owns what has arrived and is not taken yet, bounded by pausing the socket; output waits for the socket.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from banger.api.frames import CONTROL, END, EVENT, MAX_PAYLOAD_BYTES, STDERR, STDIN, STDOUT
from banger.base.problem import bad_request
from banger.daemon import framing
from banger.services.contract import Input, Resize, SendSignal, Stdin

PENDING_INPUT_BYTES = 128 * 1024
_FRAME_COST = 64  # what a frame without payload counts for, so that empty ones are bounded too
_YIELD_BYTES = 4 * MAX_PAYLOAD_BYTES
_MAX_SIGNAL = 64
_MAX_TERMINAL = 0xFFFF


class Link(Protocol):
    """What a stream needs of its connection."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Returns when the peer's socket has room again."""

    def begin_frames(self, stream: "CallerStream") -> None:
        """From now on received bytes go to `stream.feed`."""

    def hold(self, *, reading: bool) -> None:
        """Stops or resumes reading from the peer."""

    def close_after(self, last: bytes) -> None:
        """Sends the last bytes and ends the connection."""


class CallerStream:
    """Implements services.contract.CommandStream over a Link."""

    def __init__(self, link: Link, op_id: str) -> None:
        self._link = link
        self._op_id = op_id
        self._splitter = framing.FrameSplitter()
        self._inputs: deque[Input] = deque()
        self._arrived = asyncio.Event()
        self._input_ended = False
        self._unyielded = 0
        self._failed = False
        self.pending_bytes = 0
        self.accepted = False
        self.finished = False

    async def accept(self, **about: object) -> None:
        assert not self.accepted, "a stream is accepted once"
        self.accepted = True
        self._link.write(msgspec.json.encode({"op": self._op_id, "stream": about}) + b"\n")
        self._link.begin_frames(self)

    async def inputs(self) -> AsyncIterator[Input]:
        while True:
            while self._inputs:
                item = self._inputs.popleft()
                held = self.pending_bytes > PENDING_INPUT_BYTES
                self.pending_bytes -= _weigh(item)
                if held and self.pending_bytes <= PENDING_INPUT_BYTES:
                    self._link.hold(reading=True)
                yield item
            self._arrived.clear()
            await self._arrived.wait()

    async def write(self, stream: int, data: bytes) -> None:
        assert stream in (STDOUT, STDERR), stream
        assert self.accepted
        if self._failed:
            return
        assert not self.finished, "output after the last frame"
        view = memoryview(data)
        for start in range(0, len(data), MAX_PAYLOAD_BYTES):
            self._link.write(framing.render_frame(stream, bytes(view[start : start + MAX_PAYLOAD_BYTES])))
            await self._link.drain()
            self._unyielded += MAX_PAYLOAD_BYTES
            if self._unyielded >= _YIELD_BYTES:  # a peer as quick as we are must not keep the loop to itself
                self._unyielded = 0
                await asyncio.sleep(0)

    async def tell(self, event: dict[str, object]) -> None:
        assert self.accepted
        if self._failed:
            return
        assert not self.finished, "an event after the last frame"
        self._link.write(framing.render_frame(EVENT, msgspec.json.encode(event)))
        await self._link.drain()

    async def finish(self, *, status: int | None = None, signal: int | None = None) -> None:
        assert (status is None) != (signal is None), "a command ends with a status or by a signal"
        if not self._failed:
            self._end({"status": status} if signal is None else {"signal": signal})

    def fail(self, problem: dict[str, Any]) -> None:
        """The last word is an error; what the handler still says while it cleans up is dropped."""
        self._failed = True
        self._end({"error": problem})

    def _end(self, last: dict[str, Any]) -> None:
        assert self.accepted
        assert not self.finished, "a stream is finished once"
        self.finished = True
        payload = msgspec.json.encode(last)
        if len(payload) > MAX_PAYLOAD_BYTES:
            last["error"].pop("detail", None)
            payload = msgspec.json.encode(last)
        self._link.close_after(framing.render_frame(END, payload))

    def feed(self, data: bytes) -> None:
        """Takes bytes from the socket. Raises `bad_request` on what is no frame of a client's."""
        for frame in self._splitter.feed(data):
            item = self._parse(frame)
            self._inputs.append(item)
            self.pending_bytes += _weigh(item)
        self._arrived.set()
        if self.pending_bytes > PENDING_INPUT_BYTES:
            self._link.hold(reading=False)

    def _parse(self, frame: framing.Frame) -> Input:
        if frame.kind == STDIN:
            if self._input_ended:
                raise bad_request("stdin goes on after its end")
            self._input_ended = not frame.payload
            return Stdin(frame.payload)
        if frame.kind == CONTROL:
            return _parse_control(frame.payload)
        raise bad_request(f"a client sends no frames of kind {frame.kind}")


class _Control(msgspec.Struct, forbid_unknown_fields=True):
    signal: int | None = None
    rows: int | None = None
    columns: int | None = None


_CONTROL_DECODER = msgspec.json.Decoder(_Control)


def _parse_control(payload: bytes) -> Input:
    try:
        control = _CONTROL_DECODER.decode(payload)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"a control frame is not understood: {error}") from error
    match control:
        case _Control(signal=int(number), rows=None, columns=None) if 1 <= number <= _MAX_SIGNAL:
            return SendSignal(number)
        case _Control(signal=None, rows=int(rows), columns=int(columns)) if (
            1 <= rows <= _MAX_TERMINAL and 1 <= columns <= _MAX_TERMINAL
        ):
            return Resize(rows, columns)
    raise bad_request(f"a control frame is not understood: {payload[:80].decode('utf-8', 'replace')}")


def _weigh(item: Input) -> int:
    return _FRAME_COST + (len(item.data) if isinstance(item, Stdin) else 0)
