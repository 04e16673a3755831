"""`workspace export`, `diff` and `pull`: what comes out of a guest, as bytes for programs and harmless for people."""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import contextmanager, suppress

from banger.cli.output import may_colour, note, print_json
from banger.cli.render.returned import Painter, render_returned
from banger.cli.terminal import is_terminal
from banger.cli.work import perform
from banger.client import wire
from banger.client.blocking import open_connection
from banger.client.statuses import END, STDOUT
from banger.client.wire import Failure, RemoteProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import CommandConnection

    Write = Callable[[bytes | memoryview], object]


def export(arguments: Arguments) -> int:
    """To a file whole or not at all. A terminal gets what `diff` gives it: the guest's bytes may drive it otherwise."""
    target = arguments.get("output")
    if target in (None, "-"):
        return diff(arguments)
    assert target is not None
    with _open_target(target) as write:
        size = _receive("workspace.export", arguments.params(), write)
    if not size:
        note("banger: the guest has changed nothing: the file is empty")
    return 0


def diff(arguments: Arguments) -> int:
    method = arguments.command.method
    params = arguments.params()
    params.pop("output", None)
    if not is_terminal(1):
        sys.stdout.flush()
        _receive(method, params, _write_stdout)
        return 0
    painter = Painter(sys.stdout.write, colour=may_colour(sys.stdout))
    _receive(method, params, painter.feed)
    painter.end()
    sys.stdout.flush()
    return 0


def pull(arguments: Arguments) -> int:
    with open_connection() as connection:
        returned = perform(arguments, connection, "workspace.pull", arguments.params())
    if returned is None:
        return 0
    if arguments.has("json"):
        print_json(returned)
    else:
        sys.stdout.write(render_returned(returned))
    return 0


def _receive(method: str, params: dict[str, Any], write: Write) -> int:
    """All that the stream says; how much it was. Raises when it does not end well."""
    size = 0
    with open_connection() as connection:
        command = connection.stream(method, params)
        try:
            for payload in _read(command):
                size += len(payload)
                write(payload)
        finally:
            command.close()
    return size


def _read(command: CommandConnection) -> Iterator[memoryview]:
    poll = select.poll()
    poll.register(command.fileno(), select.POLLIN)
    while True:
        frames = command.receive()
        if frames is None:
            raise Failure(
                "unavailable",
                "the connection to the daemon is lost",
                hint="banger daemon status",
                outcome="unknown",
            )
        for kind, payload in frames:
            if kind == END:
                end = wire.decode_line(bytes(payload))
                if "error" in end:
                    raise RemoteProblem.from_reply(end)
                return
            if kind == STDOUT:
                yield payload
        if not frames:
            poll.poll()


def _write_stdout(data: bytes | memoryview) -> None:
    _write_all(1, data)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _open_target(path: str) -> Iterator[Write]:
    """A file takes its name when it is whole; what is no file (a pipe, a device) is written as it comes. Where links
    lead is looked up once, before the guest has said a word: one that others put there later is replaced."""
    with _cannot_write(path):
        is_file = _is_file(path)
        directory, name = os.path.split(os.path.realpath(path)) if is_file else ("", path)
    with _open_whole(directory, name, path) if is_file else _open_as_it_is(path) as descriptor:
        yield lambda data: _write_target(descriptor, data, path)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return not path.endswith("/")


@contextmanager
def _open_whole(directory: str, name: str, path: str) -> Iterator[int]:
    """Under another name in the directory that holds it, as nobody could have foreseen it."""
    temporary = f".banger-{os.urandom(8).hex()}.tmp"
    with _cannot_write(path):
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _cannot_write(path):
            descriptor = os.open(temporary, flags, 0o666, dir_fd=place)
        try:
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            with _cannot_write(path):
                os.rename(temporary, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=place)
            raise
    finally:
        os.close(place)


@contextmanager
def _open_as_it_is(path: str) -> Iterator[int]:
    with _cannot_write(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Failure("conflict", f"{path} has become another file", hint=f"ls -l {path}")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _cannot_write(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure("bad_request", f"{path} cannot be written: {error.strerror}", hint="-o FILE") from error


def _write_target(descriptor: int, data: bytes | memoryview, path: str) -> None:
    try:
        _write_all(descriptor, data)
    except OSError as error:
        raise Failure("no_space", f"{path} cannot be written: {error.strerror}", hint="df -h") from error
