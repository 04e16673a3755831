"""Our stdin, stdout and stderr joined to a command in a guest, both ways at once.

One poll loop. Invariants: nothing more is received while output waits to be written, nothing more is read
from stdin while input waits to be sent, and no write blocks, so that neither direction holds up the other
and a Ctrl-C is never late. Memory stays at one buffer each way.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from contextlib import ExitStack

from banger.cli.signals import Interrupts, signal_pipe
from banger.cli.terminal import find_size, is_terminal, raw_mode
from banger.client import wire
from banger.client.statuses import END, EVENT, MAX_PAYLOAD_BYTES, STDERR, STDOUT
from banger.client.wire import Failure, RemoteProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.client.blocking import CommandConnection

_PIPE_BUF = 4096  # poll says "writable" of a pipe when this much fits without blocking (pipe(7))
WATCHED = (signal.SIGINT, signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)


def attach(command: CommandConnection, *, stdin: bool, pty: bool) -> int:
    """Runs until the command has ended and its output is written; returns the exit status for us.

    Raises RemoteProblem when the daemon says that the command failed, BrokenPipeError when nobody reads our
    stdout, KeyboardInterrupt after the third Ctrl-C. Leaving early ends the command.
    """
    with ExitStack() as undo:
        undo.callback(command.close)
        if pty and is_terminal(0):
            undo.enter_context(raw_mode(0))
        signals = undo.enter_context(signal_pipe(*WATCHED))
        end = Attachment(command, signals, stdin=stdin, pty=pty).run()
    return exit_status(end)


def exit_status(end: dict[str, Any]) -> int:
    if "error" in end:
        raise RemoteProblem.from_reply(end)
    return 128 + int(end["signal"]) if "signal" in end else int(end.get("status", 0))


class Attachment:
    """The state of one loop: what waits to be written where, and which ends are still open. The `take_` methods say
    what becomes of what has come."""

    def __init__(self, command: CommandConnection, signals: int, *, stdin: bool, pty: bool) -> None:
        self._command = command
        self._signals = signals
        self._pty = pty
        self._stdin_open = stdin
        self._pending: list[tuple[int, memoryview]] = []
        self._closed: set[int] = set()
        self._portions = {descriptor: _portion(descriptor) for descriptor in (1, 2)}
        self._interrupts = Interrupts()
        self._end: dict[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """The payload of the END frame."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        socket = self._command.fileno()
        watched: dict[int, int] = {}
        self._receive()  # what came together with the daemon's first line: no poll will tell of it
        while self._end is None or self._pending:
            wanted = self._wanted(socket)
            for descriptor in watched.keys() - wanted.keys():
                poll.unregister(descriptor)
            for descriptor, events in wanted.items():
                if watched.get(descriptor) != events:
                    poll.register(descriptor, events)
            watched = wanted
            self._react(socket, dict(poll.poll()))
        return self._end

    def _wanted(self, socket: int) -> dict[int, int]:
        """Descriptors to poll, with the events that can be acted on now."""
        wanted = {}
        if self._pending:
            wanted[self._pending[0][0]] = select.POLLOUT
        elif self._end is None:
            wanted[socket] = select.POLLIN
        if self._command.unsent:
            wanted[socket] = wanted.get(socket, 0) | select.POLLOUT
        elif self._stdin_open and self._end is None:
            wanted[0] = select.POLLIN
        return wanted

    def _react(self, socket: int, ready: dict[int, int]) -> None:
        if self._signals in ready:
            self._take_signals()
        if self._pending:
            if ready.get(self._pending[0][0]):
                self._write()
        elif ready.get(socket, 0) & ~select.POLLOUT:
            self._receive()
        if self._command.unsent:
            if ready.get(socket):
                self._command.flush()
        elif ready.get(0) and self._stdin_open:
            self._read_stdin()

    def _receive(self) -> None:
        frames = self._command.receive()
        if frames is None:
            self.take_loss()
        for kind, payload in frames or ():
            if kind == END:
                self._end = wire.decode_line(bytes(payload))
                self._stdin_open = False
            elif kind == EVENT:
                self.take_event(wire.decode_line(bytes(payload)))
            elif kind in (STDOUT, STDERR) and payload:
                self.take_output(kind, payload)

    def take_loss(self) -> None:
        """The connection has ended without a last word."""
        raise Failure(
            "unavailable",
            "the connection to the command is lost",
            hint="banger daemon status",
            outcome="unknown",
        )

    def take_event(self, event: dict[str, Any]) -> None:
        """A command has none."""

    def take_output(self, kind: int, data: memoryview | bytes) -> None:
        if kind not in self._closed and data:
            self._pending.append((kind, memoryview(data)))

    def _write(self) -> None:
        """Writes what fits of the first pending output. The kinds of frames are the numbers of descriptors."""
        descriptor, data = self._pending[0]
        try:
            written = os.write(descriptor, data[: self._portions[descriptor]])
        except BlockingIOError:
            return
        except OSError as error:
            if descriptor == 1:
                raise _no_reader(error) from error
            self._closed.add(descriptor)
            self._pending = [entry for entry in self._pending if entry[0] != descriptor]
            return
        if written == len(data):
            self._pending.pop(0)
        else:
            self._pending[0] = (descriptor, data[written:])

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, MAX_PAYLOAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a closed or revoked stdin is an ended one
        self.take_input(data)

    def take_input(self, data: bytes) -> None:
        """What was read from our stdin; nothing is its end."""
        self._command.send_stdin(data)
        self._stdin_open = bool(data)

    def _take_signals(self) -> None:
        for number in os.read(self._signals, 64):
            if number == signal.SIGWINCH:
                if self._pty:
                    self._command.send_size(*find_size())
            elif number == signal.SIGINT:
                self.take_interrupt()
            else:
                raise SystemExit(128 + number)

    def take_interrupt(self) -> None:
        """The first Ctrl-C is the command's."""
        to_send = self._interrupts.press(time.monotonic())
        if to_send is None:
            raise KeyboardInterrupt
        self._command.send_signal(to_send)


def _no_reader(error: OSError) -> BaseException:
    return (
        error
        if isinstance(error, BrokenPipeError)
        else Failure("no_space", f"stdout cannot be written: {error.strerror}")
    )


def _portion(descriptor: int) -> int:
    """How much one write may hold without blocking once poll has said yes."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return _PIPE_BUF
    return MAX_PAYLOAD_BYTES if stat.S_ISREG(mode) else _PIPE_BUF
