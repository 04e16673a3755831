"""The client's end of a stream that carries files: all of one direction, then the other side's last word.

Owns nothing: the connection is its caller's. Blocks; Ctrl-C is a KeyboardInterrupt. Raises Failure.
"""

from __future__ import annotations

import os
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from banger.client import wire
from banger.client.statuses import END, MAX_PAYLOAD_BYTES, STDOUT
from banger.client.wire import Failure, RemoteProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from banger.client.blocking import CommandConnection

    Told = Callable[[int, int | None], None]


@contextmanager
def closing(command: CommandConnection) -> Iterator[None]:
    """Leaving early ends the copy in the guest."""
    try:
        yield
    finally:
        command.close()


def telling(
    chunks: Iterable[bytes], done: Callable[[], int], total: int | None, told: Told
) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        told(done(), total)


def send(command: CommandConnection, chunks: Iterable[bytes]) -> None:
    """All of it, and then waits for the guest's last word, which may also come early."""
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), MAX_PAYLOAD_BYTES):
            command.send_stdin(bytes(view[start : start + MAX_PAYLOAD_BYTES]))
            while (
                ready := _wait(command, select.POLLIN | select.POLLOUT)
            ) & ~select.POLLOUT or command.unsent:
                if ready & ~select.POLLOUT and _take_end(command):
                    raise _ended_early()
                command.flush()
    command.send_stdin(b"")
    while command.unsent:
        _wait(command, select.POLLOUT)
        command.flush()
    while not _take_end(command):
        _wait(command, select.POLLIN)


def _wait(command: CommandConnection, events: int) -> int:
    poll = select.poll()
    poll.register(command.fileno(), events)
    return poll.poll()[0][1]


def _take_end(command: CommandConnection) -> bool:
    """Whether the last word has come. Raises what it says."""
    frames = command.receive()
    if frames is None:
        raise _lost()
    for kind, payload in frames:
        if kind == END:
            _check_end(wire.decode_line(bytes(payload)))
            return True
    return False


def receive(command: CommandConnection) -> Iterator[bytes]:
    """The bytes of stdout. Ends when the guest has said that this is all."""
    while (frames := command.receive()) is not None:
        for kind, payload in frames:
            if kind == STDOUT:
                yield bytes(payload)
            elif kind == END:
                _check_end(wire.decode_line(bytes(payload)))
                return
        if not frames:
            _wait(command, select.POLLIN)
    raise _lost()


def read_stdin(command: CommandConnection) -> bytes:
    """Waits for the guest's last word meanwhile: nobody types on into a copy that has failed."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(command.fileno(), select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if command.fileno() in ready and _take_end(command):
            raise _ended_early()
        if 0 in ready:
            try:
                return os.read(0, MAX_PAYLOAD_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise Failure("bad_request", f"stdin cannot be read: {error.strerror}") from error


def write_stdout(data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(1, view) :]
        except BlockingIOError:
            select.select((), (1,), ())
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(
                "no_space", f"stdout cannot be written: {error.strerror}", outcome="failed"
            ) from error


def _check_end(end: dict[str, Any]) -> None:
    if "error" in end:
        raise RemoteProblem.from_reply(end)


def _ended_early() -> Failure:
    return Failure("internal", "the guest ended the copy before everything was sent", outcome="failed")


def _lost() -> Failure:
    return Failure(
        "unavailable",
        "the connection to the daemon is lost",
        hint="banger daemon status, then copy again",
        outcome="failed",
    )
