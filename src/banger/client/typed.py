"""The blocking client with the API's types: `client.call(VmShow(vm="web"))` gives a VmDetails.

Owns one connection of `blocking`, made when it is first needed; one call at a time. Raises Problem only.
"""

import select
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as raw_socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from banger.api.events import Event
from banger.api.method import Request
from banger.api.vm import VmExec
from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.client import blocking, wire
from banger.client.replies import (
    CompletedCommand,
    Ended,
    decode_result,
    name_problem,
    not_understood,
)
from banger.client.statuses import END, MAX_PAYLOAD_BYTES, STDERR, STDOUT
from banger.model.operation import Operation

R = TypeVar("R")
OnEvent = Callable[[Event], None]


class Client:
    """A client of this user's daemon, which is started if it does not run; or of the one at `socket`."""

    def __init__(self, socket: str | None = None) -> None:
        self._path = socket
        self._connection: blocking.Connection | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, request: Request[R], *, on_event: OnEvent | None = None, op: str | None = None) -> R:
        """The method's result. An operation is waited for, and cancelled when this raises on the way."""
        with self._connected() as connection:
            content = connection.call(
                request.method, msgspec.to_builtins(request), on_event=_convert_events(on_event), op=op
            )
        return decode_result(request, content)

    def begin(self, request: Request[Any], *, op: str | None = None) -> Operation:
        """Starts an operation that goes on without this client."""
        with self._connected() as connection:
            content = connection.call(request.method, msgspec.to_builtins(request), op=op, detach=True)
        return msgspec.convert(content, type=Operation)

    def run_command(self, request: VmExec, stdin: bytes = b"") -> CompletedCommand:
        """Runs a command in the guest and collects its output; 128 and the number when a signal ends it.

        `stdin` is sent where the request keeps stdin open.
        """
        with self._connected() as connection:
            self._connection = None  # the stream takes it over
            try:
                command = connection.stream(request.method, msgspec.to_builtins(request))
            except BaseException:
                connection.close()
                raise
            try:
                return _attend(command, stdin if request.stdin else None)
            finally:
                command.close()

    @contextmanager
    def _connected(self) -> Iterator[blocking.Connection]:
        try:
            if self._connection is not None and not self._connection.is_idle:
                self.close()  # the daemon it led to has ended meanwhile
            if self._connection is None:
                self._connection = _connect(self._path)
            yield self._connection
        except wire.RemoteProblem as failure:
            raise _translate(failure) from failure
        except wire.Failure as failure:
            self.close()
            raise _translate(failure) from failure
        except BaseException:
            self.close()  # a call may be under way on it: leaving cancels that
            raise


def _connect(path: str | None) -> blocking.Connection:
    if path is None:
        return blocking.open_connection()
    connected = raw_socket(AF_UNIX, SOCK_STREAM)
    try:
        connected.connect(path)
    except OSError as error:
        connected.close()
        raise unavailable(f"no daemon listens at {path}", hint="banger daemon start") from error
    return blocking.Connection(connected)


def _translate(failure: wire.Failure) -> Problem:
    return name_problem(failure.as_data())


def _convert_events(on_event: OnEvent | None) -> Callable[[dict[str, Any]], None] | None:
    if on_event is None:
        return None
    tell = on_event

    def convert(event: dict[str, Any]) -> None:
        try:
            converted: Event = msgspec.convert(event, type=Event)
        except ValueError as error:
            raise not_understood(error) from error
        tell(converted)

    return convert


def _attend(command: blocking.CommandConnection, stdin: bytes | None) -> CompletedCommand:
    outputs = {STDOUT: bytearray(), STDERR: bytearray()}
    rest = memoryview(stdin or b"")
    sent_end = stdin is None
    poll = select.poll()
    while True:
        while not command.unsent and not sent_end:
            piece, rest = rest[:MAX_PAYLOAD_BYTES], rest[MAX_PAYLOAD_BYTES:]
            sent_end = not piece
            command.send_stdin(bytes(piece))
        poll.register(command.fileno(), select.POLLIN | (select.POLLOUT if command.unsent else 0))
        poll.poll()
        command.flush()
        frames = command.receive()
        if frames is None:
            raise Problem(
                Code.UNAVAILABLE,
                "the daemon ended before the command",
                hint="banger daemon status",
                outcome=Outcome.UNKNOWN,
            )
        for kind, payload in frames:
            if kind in outputs:
                outputs[kind] += payload
            elif kind == END:
                status = _judge_end(bytes(payload)).exit_status
                return CompletedCommand(status, bytes(outputs[STDOUT]), bytes(outputs[STDERR]))


def _judge_end(payload: bytes) -> Ended:
    last = msgspec.json.decode(payload)
    if "error" in last:
        raise name_problem(last["error"])
    return msgspec.convert(last, type=Ended)
