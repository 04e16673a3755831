"""A command that runs in the guest: its request, its streams, its end.

`Command` is made by `Agent.exec` and lives as long as that block; leaving it early kills the command.
"""

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import msgspec

from banger.base.problem import bad_request
from banger.guest.channel import Channel, Output
from banger.guest.entries import need_number
from banger.guest.errors import reading_answer, render_end, render_exec_end
from banger.guest.frames import Fields, FieldValue, MalformedFrame, Stream

_FLAG_PTY = 1
_FLAG_STDIN = 2
_FLAG_MERGE_STDERR = 4
_CONTROL_SIGNAL = 1
_CONTROL_RESIZE = 2


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `env` is added to the user's; `user` is a name or `uid[:gid]`, root when None; `cwd` is
    the user's home when None. Without `stdin` (or `pty`) the command reads /dev/null."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    user: str | None = None
    pty: bool = False
    stdin: bool = False
    merge_stderr: bool = False
    rows: int | None = None
    columns: int | None = None


class ExitStatus(NamedTuple):
    """Either a status (0–255) or the number of the signal that killed the command."""

    status: int | None
    signal: int | None

    @property
    def shell_status(self) -> int:
        """What a shell reports: the status, or 128 + signal."""
        if self.status is not None:
            return self.status
        assert self.signal is not None
        return 128 + self.signal


class Result(NamedTuple):
    """A finished command. Output beyond the limit was read and dropped, and `truncated` says so."""

    exit: ExitStatus
    stdout: bytes
    stderr: bytes
    truncated: bool

    @property
    def status(self) -> int:
        return self.exit.shell_status


def parse_environment(entries: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`KEY=VALUE` each. Raises `bad_request`, which tells no entry: it may be a secret without its key."""
    environment = []
    for entry in entries:
        key, separator, value = entry.partition("=")
        if not separator or not key:
            raise bad_request("an entry of the environment is not KEY=VALUE", hint="-e LANG=C.UTF-8")
        environment.append((key, value))
    return tuple(environment)


def plan_exec(request: ExecRequest) -> list[tuple[int, FieldValue]]:
    """The request's fields. Raises `bad_request` for what no guest could run."""
    if not request.argv or not request.argv[0]:
        raise bad_request("the command is empty")
    for key, _ in request.env:
        if not key or "=" in key:
            raise bad_request(f"{key!r} is not the name of an environment variable")
    fields: list[tuple[int, FieldValue]] = [(1, argument) for argument in request.argv]
    fields += [(2, f"{key}={value}") for key, value in request.env]
    if request.cwd is not None:
        fields.append((3, request.cwd))
    if request.user is not None:
        fields.append((4, request.user))
    flags = (
        _FLAG_PTY * request.pty
        | _FLAG_STDIN * (request.stdin or request.pty)
        | _FLAG_MERGE_STDERR * request.merge_stderr
    )
    if flags:
        fields.append((5, flags))
    if request.rows is not None:
        fields.append((6, request.rows))
    if request.columns is not None:
        fields.append((7, request.columns))
    if any(isinstance(value, str) and "\0" in value for _, value in fields):
        raise bad_request("the command, its environment or its directory contains a NUL")
    return fields


class Command:
    """A running command. Iterate it for output; when nobody does, its pipe fills and it waits."""

    def __init__(self, channel: Channel, pid: int) -> None:
        self.pid = pid
        self._channel = channel

    def __aiter__(self) -> AsyncIterator[Output]:
        return self

    async def __anext__(self) -> Output:
        output = await self._channel.read()
        if output is None:
            raise StopAsyncIteration
        return output

    async def write_stdin(self, data: bytes | memoryview) -> bool:
        """Waits until the guest has room. False when the command has ended and takes no more."""
        return await self._channel.write(Stream.STDIN, data)

    def close_stdin(self) -> None:
        """The command reads end of file once it has read what was written. Idempotent in effect."""
        self._channel.post_eof(Stream.STDIN)

    def signal(self, number: int) -> None:
        """Sent to the whole process group; nothing happens when the command has ended."""
        self._channel.post_control(_CONTROL_SIGNAL, [(1, number)])

    def resize(self, rows: int, columns: int) -> None:
        self._channel.post_control(_CONTROL_RESIZE, [(1, rows), (2, columns)])

    async def wait(self) -> ExitStatus:
        """How the command ended. Its output has to be read before or meanwhile, as with any pipe."""
        end = await self._channel.wait_end()
        if end.error:
            raise render_end(end, f"process {self.pid} in the guest")
        with reading_answer():
            return parse_exit(end.fields)


def parse_exit(fields: Fields) -> ExitStatus:
    status, signal = fields.find_number(1), fields.find_number(2)
    if (status is None) == (signal is None):
        raise MalformedFrame("a command ends with a status or a signal")
    return ExitStatus(status, signal)


async def wait_command(channel: Channel, request: ExecRequest) -> Command:
    """The command of a channel that was just opened. Raises `CannotStart` when the guest cannot run it."""
    started = await channel.wait_started()
    if started is None:
        raise render_exec_end(await channel.wait_end(), request.argv[0])
    with reading_answer():
        return Command(channel, need_number(started, 1))
