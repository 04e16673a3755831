"""One connection: lines in, replies out, one call at a time.

Owns its socket's flow in both directions and the task of the call under way. Invariants: a peer that sends
while its call runs, or leaves, cancels that call; a peer that does not read is not read from either.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Protocol

from banger.base.log import operation_id
from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.daemon.dispatch import Dispatch, Pending, render_error
from banger.daemon.framing import LineSplitter
from banger.daemon.hangup import HangupWatch
from banger.daemon.stream import CallerStream

LINGER_S = 2.0
_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_RECEIVE_BYTES = 128 * 1024

log = logging.getLogger(__name__)


class Host(Protocol):
    """What a connection needs of the server."""

    dispatch: Dispatch
    hangups: HangupWatch
    calls: asyncio.TaskGroup

    def admit(self, connection: "Connection", peer: socket.socket) -> Problem | None:
        """Counts the connection in, or says why not."""

    def leave(self, connection: "Connection") -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Implements stream.Link and dispatch.Caller.

    All connections receive into one buffer, emptied before the loop turns: asyncio's own reading allocates
    256 KiB for each line, which costs more than all the rest of a short call.
    """

    _buffer = bytearray(_RECEIVE_BYTES)
    _view = memoryview(_buffer)

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lines = LineSplitter()
        self._stream: CallerStream | None = None
        self._call: asyncio.Task[None] | None = None
        self._op_id = ""
        self._writable = asyncio.Event()
        self._writable.set()
        self._held = False
        self._closing = False
        self._transport: asyncio.Transport
        self._socket: socket.socket

    # --- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)
        problem = self._host.admit(self, self._socket)
        if problem is not None:
            self.close_after(render_error("", problem))

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._host.hangups.discard(self._socket.fileno())
        self._host.leave(self)
        self._cancel_call()
        self._writable.set()

    def eof_received(self) -> None:
        self._cancel_call()  # the transport closes by itself, when it has flushed

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._call is None:
            self.hold(reading=False)

    def resume_writing(self) -> None:
        self._writable.set()
        if self._call is None:
            self.hold(reading=True)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        data = bytes(self._view[:nbytes])
        try:
            if self._stream is not None:
                self._stream.feed(data)
            elif self._call is not None:
                raise bad_request("more was sent while a call was under way")
            else:
                self._take_line(data)
        except Problem as problem:
            self._break(problem)

    # --- calls

    @property
    def busy(self) -> bool:
        return self._call is not None

    def _take_line(self, data: bytes) -> None:
        line = self._lines.feed(data)
        if line is None:
            return
        if self._lines.pending:
            raise bad_request("a second line came before the first was answered")
        answer = self._host.dispatch.take(line, self)
        if isinstance(answer, bytes):
            self._transport.write(answer)
        elif isinstance(answer, Pending):
            self._op_id = answer.op_id
            context = copy_context()
            context.run(operation_id.set, answer.op_id)
            self._call = self._host.calls.create_task(self._answer(answer.run), context=context)
        else:
            self.close_after(answer.line)

    async def _answer(self, run: Callable[[], Awaitable[bytes | None]]) -> None:
        try:
            line = await run()
        except asyncio.CancelledError:
            if self._closing:
                raise
            line = self._tell_shutdown()  # the peer is still there: this answer is the end of the cancelling
        finally:
            self._call = None
        if line is not None and not self._closing:
            self._transport.write(line)
        if not self._writable.is_set():
            self.hold(reading=False)

    def _tell_shutdown(self) -> bytes | None:
        problem = Problem(Code.CANCELLED, "the daemon is shutting down", outcome=Outcome.UNKNOWN)
        if self._stream is None:
            return render_error(self._op_id, problem)
        if not self._stream.finished:
            self._stream.fail({**problem.as_data(), "op": self._op_id})
        return None

    def cancel(self) -> None:
        """Ends the call under way because the daemon ends; the peer is told."""
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        self._closing = True
        self._transport.close()

    def _cancel_call(self) -> None:
        self._closing = True
        if self._call is not None:
            self._call.cancel()

    def _break(self, problem: Problem) -> None:
        """The peer does not keep to the protocol: it is told, its call ends, the connection too."""
        log.info("a peer broke the protocol: %s", problem.brief)
        stream, call = self._stream, self._call
        if stream is not None and not stream.finished:
            stream.fail({**problem.as_data(), "op": self._op_id})
        else:
            self.close_after(render_error(self._op_id if call else "", problem))
        if call is not None:
            call.cancel()

    # --- what streams and dispatch need

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._transport.write(data)

    async def drain(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()

    async def send(self, line: bytes) -> None:
        self.write(line)
        await self.drain()

    def begin_frames(self, stream: CallerStream) -> None:
        self._stream = stream

    def hold(self, *, reading: bool) -> None:
        if self._closing or self._held is not reading:
            return
        self._held = not reading
        if reading:
            self._host.hangups.discard(self._socket.fileno())
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
            self._host.hangups.add(self._socket.fileno(), self._transport.abort)

    def close_after(self, last: bytes) -> None:
        """Sends the last bytes, then discards what the peer still sends until it closes, for a while.

        Closing at once would fail the peer's own write before it has read why.
        """
        if self._closing:
            return
        self.hold(reading=True)
        self._transport.write(last)
        self._closing = True
        self._transport.write_eof()
        self._linger()

    def _linger(self) -> None:
        asyncio.get_running_loop().call_later(LINGER_S, self._end_linger)

    def _end_linger(self) -> None:
        if self._transport.get_write_buffer_size():
            self._linger()  # a slow reader still gets all of it
        else:
            self._transport.abort()
