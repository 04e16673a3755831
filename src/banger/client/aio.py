"""The asyncio client with the API's types: `await client.call(VmShow(vm="web"))` gives a VmDetails.

Owns a few idle connections; each call has one to itself, so calls may run at once. Leaving a call (by
cancellation, or out of its block) closes its connection, and the daemon cancels what it did for it.
"""

import asyncio
import json
import os
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from banger.api.events import Event
from banger.api.method import MAX_LINE_BYTES, Request
from banger.api.vm import VmExec
from banger.base.paths import find_paths
from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.client import launch
from banger.client.replies import (
    CompletedCommand,
    Ended,
    Reply,
    decode_reply,
    decode_result,
    encode_request,
    lost_connection,
    name_problem,
    not_understood,
)
from banger.client.statuses import CONTROL, END, MAX_PAYLOAD_BYTES, STDERR, STDIN, STDOUT
from banger.client.wire import Failure
from banger.model.operation import Operation

R = TypeVar("R")
OnEvent = Callable[[Event], None]

_MAX_IDLE = 4
_HEADER = struct.Struct(">BI")
_UCRED = struct.Struct("iII")  # unix(7)


class Output(NamedTuple):
    """Bytes of a command: stream 1 is stdout, 2 is stderr."""

    stream: int
    data: bytes


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reader finds the daemon's last words, or its end

    async def receive(self) -> Reply:
        try:
            line = await self.reader.readline()
        except (ConnectionResetError, ValueError) as error:
            raise lost_connection() from error
        if not line.endswith(b"\n"):
            raise lost_connection()
        return decode_reply(line)

    async def receive_frame(self) -> tuple[int, bytes]:
        try:
            kind, length = _HEADER.unpack(await self.reader.readexactly(_HEADER.size))
            return kind, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            raise lost_connection() from error

    @property
    def is_idle(self) -> bool:
        """False when the daemon has closed it, or anything else is there to be read."""
        if self.reader.at_eof() or self.writer.is_closing():
            return False
        poll = select.poll()
        poll.register(self.writer.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Following(Generic[R]):
    """An operation under way: iterate for its events, then ask for the result."""

    def __init__(self, connection: _Connection, request: Request[R]) -> None:
        self._connection = connection
        self._request = request
        self._reply: Reply | None = None

    async def events(self) -> AsyncIterator[Event]:
        """Until the operation has ended."""
        while self._reply is None:
            reply = await self._connection.receive()
            if reply.event is not None:
                yield reply.event
            else:
                self._reply = reply

    async def result(self) -> R:
        """Waits for the end, passing over events that nobody took."""
        async for _ in self.events():
            pass
        assert self._reply is not None
        if self._reply.error is not None:
            raise name_problem(self._reply.error)
        return decode_result(self._request, self._reply.result)

    @property
    def ended(self) -> bool:
        return self._reply is not None


class Command:
    """A command that runs in a guest. Outputs are read from the socket only as fast as they are taken."""

    def __init__(self, connection: _Connection, pid: int) -> None:
        self._connection = connection
        self._ended: Ended | None = None
        self.pid = pid

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; returns when the daemon has taken them, or the socket has room."""
        for start in range(0, len(data), MAX_PAYLOAD_BYTES):
            await self._send(STDIN, data[start : start + MAX_PAYLOAD_BYTES])

    async def close_stdin(self) -> None:
        await self._send(STDIN, b"")

    async def send_signal(self, number: int) -> None:
        await self._send(CONTROL, json.dumps({"signal": number}).encode())

    async def resize(self, rows: int, columns: int) -> None:
        await self._send(CONTROL, json.dumps({"rows": rows, "columns": columns}).encode())

    async def outputs(self) -> AsyncIterator[Output]:
        """Until the command has ended. Raises Problem when it could not be seen through."""
        while self._ended is None:
            kind, payload = await self._connection.receive_frame()
            if kind in (STDOUT, STDERR):
                yield Output(kind, payload)
            elif kind == END:
                last: dict[str, Any] = msgspec.json.decode(payload)
                if "error" in last:
                    raise name_problem(last["error"])
                self._ended = msgspec.convert(last, type=Ended)

    async def wait(self) -> Ended:
        """How it ended; output that nobody took is dropped."""
        async for _ in self.outputs():
            pass
        assert self._ended is not None
        return self._ended

    async def _send(self, kind: int, payload: bytes) -> None:
        await self._connection.send(_HEADER.pack(kind, len(payload)) + payload)


class Client:
    """A client of this user's daemon, which is started if it does not run; or of the one at `socket`."""

    def __init__(self, socket: str | None = None) -> None:
        self._path = socket
        self._idle: list[_Connection] = []

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def call(self, request: Request[R], *, on_event: OnEvent | None = None, op: str | None = None) -> R:
        """The method's result. An operation is waited for; cancelling this cancels it."""
        async with self.follow(request, op=op) as following:
            async for event in following.events():
                if on_event is not None:
                    on_event(event)
            return await following.result()

    async def begin(self, request: Request[Any], *, op: str | None = None) -> Operation:
        """Starts an operation that goes on without this client."""
        async with self._connected() as connection:
            await connection.send(encode_request(request, op=op, detach=True))
            reply = await connection.receive()
            if reply.error is None:
                return _decode_operation(reply)
        raise name_problem(reply.error)

    @asynccontextmanager
    async def follow(self, request: Request[R], *, op: str | None = None) -> AsyncIterator[Following[R]]:
        """A call whose events are read one by one; leaving the block early cancels an operation."""
        connection = await self._take()
        following = Following(connection, request)
        try:
            await connection.send(encode_request(request, op=op))
            yield following
        finally:
            await self._release(connection, reusable=following.ended)

    @asynccontextmanager
    async def exec(self, request: VmExec, *, op: str | None = None) -> AsyncIterator[Command]:
        """A command in a guest; leaving the block before its end makes the daemon end it."""
        connection = await self._take()
        try:
            await connection.send(encode_request(request, op=op))
            reply = await connection.receive()
            if reply.error is not None:
                raise name_problem(reply.error)
            yield Command(connection, (reply.stream or {}).get("pid", 0))
        finally:
            await connection.close()

    async def run_command(self, request: VmExec, stdin: bytes = b"") -> CompletedCommand:
        """Runs a command in the guest and collects its output; 128 and the number when a signal ends it."""
        outputs = {STDOUT: bytearray(), STDERR: bytearray()}
        async with self.exec(request) as command:
            feeding = asyncio.create_task(_feed(command, stdin)) if request.stdin else None
            try:
                async for output in command.outputs():
                    outputs[output.stream] += output.data
                ended = await command.wait()
            finally:
                if feeding is not None:
                    feeding.cancel()
                    await asyncio.wait({feeding})
        return CompletedCommand(ended.exit_status, bytes(outputs[STDOUT]), bytes(outputs[STDERR]))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Connection]:
        connection = await self._take()
        reusable = False
        try:
            yield connection
            reusable = True
        finally:
            await self._release(connection, reusable=reusable)

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle:
                return connection
            await connection.close()
        return await _connect(self._path)

    async def _release(self, connection: _Connection, *, reusable: bool) -> None:
        if reusable and len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            await connection.close()


def _decode_operation(reply: Reply) -> Operation:
    try:
        return msgspec.json.decode(reply.result, type=Operation)
    except ValueError as error:
        raise not_understood(error) from error


async def _feed(command: Command, stdin: bytes) -> None:
    await command.write(stdin)
    await command.close_stdin()


async def _connect(path: str | None) -> _Connection:
    try:
        return await _open(path or find_paths().socket)
    except OSError as error:
        if path is not None:
            raise unavailable(f"no daemon listens at {path}", hint="banger daemon start") from error
    try:
        await asyncio.to_thread(launch.start_daemon)
        return await _open(find_paths().socket)
    except Failure as failure:
        raise name_problem(failure.as_data()) from failure
    except OSError as error:
        raise unavailable("the daemon does not listen", hint="banger daemon status") from error


async def _open(path: str) -> _Connection:
    """Connects, and refuses a listener that is somebody else's before a byte is sent to it."""
    reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
    connected = writer.get_extra_info("socket")
    _, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in (os.getuid(), 0):
        writer.transport.abort()
        raise Problem(
            Code.UNAUTHORIZED,
            f"the daemon at {path} runs as uid {uid}, not as you",
            hint="banger doctor",
            outcome=Outcome.NOT_STARTED,
        )
    return _Connection(reader, writer)
