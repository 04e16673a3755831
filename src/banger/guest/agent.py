"""The guest agent's methods, typed.

Owns no connection: it speaks over the `Link` it is given. Every failure is a Problem; what the guest itself
reported is a `GuestProblem` with its errno. Nothing here sets a deadline: use `asyncio.timeout` around a
call, whose cancellation abandons the channel in the guest as well.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import NamedTuple

from banger.base.problem import Code, Problem, bad_request
from banger.base.tasks import first_of
from banger.guest.channel import Channel, End
from banger.guest.command import Command, ExecRequest, Result, plan_exec, wait_command
from banger.guest.entries import (
    Entry,
    EntryParser,
    Health,
    Listener,
    Usage,
    need_bytes,
    need_number,
    parse_entry,
    parse_health,
    parse_listener,
    parse_usage,
)
from banger.guest.errors import reading_answer, render_end
from banger.guest.frames import WINDOW_BYTES, Fields, FieldValue, MalformedFrame, Stream
from banger.guest.link import Link, Welcome
from banger.guest.methods import Method
from banger.guest.sessions import Sessions

_ETIMEDOUT = 110
_MAX_LISTED = 100_000
_RUN_OUTPUT_BYTES = 4 * 1024 * 1024
_FLAG_FOLLOW = 1
_FLAG_PARENTS = 1
_FLAG_KEEP_OWNERS = 1

Source = bytes | AsyncIterable[bytes]


class TreeWritten(NamedTuple):
    entries: int
    size_bytes: int


class Download:
    """Bytes on their way out of the guest. Iterate; the guest waits when nobody takes them.

    The iteration raises when the transfer failed, so that one which ends quietly is whole. `size_bytes`
    and `mode` are those of a file when the transfer began, and None for a tree.
    """

    def __init__(self, channel: Channel, subject: str, started: Fields) -> None:
        self.size_bytes = started.find_number(1)
        self.mode = started.find_number(2)
        self._channel = channel
        self._subject = subject

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        output = await self._channel.read()
        if output is not None:
            return output.data
        _check(await self._channel.wait_end(), self._subject)
        raise StopAsyncIteration


class Agent:
    """One guest agent. Methods may run at the same time; the guest serves up to 256."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.sessions = Sessions(link)

    @property
    def welcome(self) -> Welcome:
        return self.link.welcome

    async def health(self) -> Health:
        with reading_answer():
            return parse_health(await self._call(Method.HEALTH, "health"))

    @asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[Command]:
        """Starts a command; the block holds it. Raises `CannotStart` (with errno and exit_status)."""
        async with self.link.start_channel(Method.EXEC, plan_exec(request)) as channel:
            yield await wait_command(channel, request)

    async def run(
        self,
        argv: Iterable[str],
        *,
        stdin: bytes | None = None,
        env: Iterable[tuple[str, str]] = (),
        cwd: str | None = None,
        user: str | None = None,
        limit_bytes: int = _RUN_OUTPUT_BYTES,
    ) -> Result:
        """Runs a command to its end. Keeps the first `limit_bytes` of each stream and drops the rest.

        `stdin` is written whole before output is read, so it may not exceed one window (256 KiB).
        """
        if stdin is not None and len(stdin) > WINDOW_BYTES:
            raise bad_request("the standard input of a short command has more than 256 KiB")
        request = ExecRequest(argv=tuple(argv), env=tuple(env), cwd=cwd, user=user, stdin=stdin is not None)
        kept = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        truncated = False
        async with self.exec(request) as command:
            if stdin is not None:
                await command.write_stdin(stdin)
                command.close_stdin()
            async for stream, data in command:
                room = limit_bytes - len(kept[stream])
                kept[stream] += data[: max(room, 0)]
                truncated = truncated or len(data) > room
            exit_status = await command.wait()
        return Result(exit_status, bytes(kept[Stream.STDOUT]), bytes(kept[Stream.STDERR]), truncated)

    @asynccontextmanager
    async def file_read(
        self, path: str, *, offset: int | None = None, length: int | None = None
    ) -> AsyncIterator[Download]:
        fields: list[tuple[int, FieldValue]] = [(1, _checked_path(path))]
        if offset is not None:
            fields.append((2, offset))
        if length is not None:
            fields.append((3, length))
        async with self._download(Method.FILE_READ, fields, path) as download:
            yield download

    async def file_write(
        self,
        path: str,
        source: Source,
        *,
        mode: int = 0o644,
        uid: int | None = None,
        gid: int | None = None,
        make_parents: bool = False,
    ) -> int:
        """Writes a file whole or not at all; how many bytes it has. An unfinished transfer leaves nothing."""
        fields: list[tuple[int, FieldValue]] = [(1, _checked_path(path)), (2, mode)]
        if uid is not None:
            fields.append((3, uid))
        if gid is not None:
            fields.append((4, gid))
        if make_parents:
            fields.append((5, _FLAG_PARENTS))
        answer = await self._upload(Method.FILE_WRITE, fields, path, source)
        with reading_answer():
            return need_number(answer, 1)

    async def file_stat(self, path: str, *, follow_links: bool = False) -> Entry:
        fields: list[tuple[int, FieldValue]] = [(1, _checked_path(path))]
        if follow_links:
            fields.append((2, _FLAG_FOLLOW))
        with reading_answer():
            return parse_entry(need_bytes(await self._call(Method.FILE_STAT, path, fields), 1))

    async def file_list(self, path: str, *, limit: int = _MAX_LISTED) -> tuple[Entry, ...]:
        """A directory's entries by name. Raises when there are more than `limit`: a guest is not trusted."""
        entries: list[Entry] = []
        parser = EntryParser()
        async with self._download(Method.FILE_LIST, [(1, _checked_path(path))], path) as download:
            with reading_answer():
                async for data in download:
                    entries += parser.feed(data)
                    if len(entries) > limit:
                        raise Problem(Code.OPERATION_FAILED, f"{path} holds more than {limit} files")
                if not parser.is_whole:
                    raise MalformedFrame("a directory entry is cut off")
        return tuple(sorted(entries, key=lambda entry: entry.name))

    @asynccontextmanager
    async def tree_get(self, path: str, names: Iterable[str] = ()) -> AsyncIterator[Download]:
        """A directory, or the named parts of it, or one file, as a tar stream."""
        fields: list[tuple[int, FieldValue]] = [(1, _checked_path(path))]
        fields += [(2, name) for name in names]
        async with self._download(Method.TREE_GET, fields, path) as download:
            yield download

    async def tree_put(
        self,
        directory: str,
        source: Source,
        *,
        keep_owners: bool = False,
        owner: tuple[int, int] | None = None,
    ) -> TreeWritten:
        """Unpacks a tar stream below a directory, which is made when it is missing.

        The files become those of `owner` (uid and gid), without one of the directory's owner, unless the stream's
        own are kept. Each file takes its name when it is whole.
        """
        fields: list[tuple[int, FieldValue]] = [(1, _checked_path(directory))]
        if keep_owners:
            fields.append((2, _FLAG_KEEP_OWNERS))
        if owner is not None:
            fields += [(3, owner[0]), (4, owner[1])]
        answer = await self._upload(Method.TREE_PUT, fields, directory, source)
        with reading_answer():
            return TreeWritten(need_number(answer, 1), need_number(answer, 2))

    async def ports(self) -> tuple[Listener, ...]:
        with reading_answer():
            answer = await self._call(Method.PORTS, "ports")
            return tuple(parse_listener(encoded) for encoded in answer.find_all(1))

    async def wait_port(self, port: int, *, timeout_s: float) -> bool:
        """Waits in the guest until something listens on the TCP port; False when nothing does in time."""
        fields = [(1, port), (2, round(timeout_s * 1000))]
        async with self.link.start_channel(Method.WAIT_PORT, fields) as channel:
            end = await channel.wait_end()
            if end.error != _ETIMEDOUT:
                _check(end, f"port {port}")
            return end.error == 0

    async def usage(self, *, port: int | None = None) -> Usage:
        """With the established connections to the TCP port, when one is named. An agent of before this method answers
        with an `unknown_method` problem."""
        fields = [] if port is None else [(1, port)]
        with reading_answer():
            return parse_usage(await self._call(Method.USAGE, "usage", fields))

    async def sync(self) -> None:
        await self._call(Method.SYNC, "sync")

    async def power_off(self, *, grace_s: float = 10.0) -> None:
        """Returns when the guest has begun. Its VMM's exit tells when it is done."""
        await self._call(Method.POWER_OFF, "power off", [(1, round(grace_s * 1000))])

    async def reboot(self, *, grace_s: float = 10.0) -> None:
        await self._call(Method.REBOOT, "reboot", [(1, round(grace_s * 1000))])

    async def clock(self, *, set_ns: int | None = None) -> int:
        """The guest's time in nanoseconds since the epoch, after setting it when `set_ns` is given."""
        fields = [] if set_ns is None else [(1, set_ns)]
        with reading_answer():
            return need_number(await self._call(Method.CLOCK, "clock", fields), 1)

    async def _call(
        self, method: Method, subject: str, fields: Iterable[tuple[int, FieldValue]] = ()
    ) -> Fields:
        async with self.link.start_channel(method, fields) as channel:
            return _check(await channel.wait_end(), subject)

    @asynccontextmanager
    async def _download(
        self, method: Method, fields: Iterable[tuple[int, FieldValue]], subject: str
    ) -> AsyncIterator[Download]:
        async with self.link.start_channel(method, fields) as channel:
            started = await channel.wait_started()
            if started is None:
                _check(await channel.wait_end(), subject)
            with reading_answer():
                download = Download(channel, subject, started or Fields())
            yield download

    async def _upload(
        self, method: Method, fields: Iterable[tuple[int, FieldValue]], subject: str, source: Source
    ) -> Fields:
        """Sends until the source or the channel ends, also when the source has nothing to say for now. Does not wait
        for STARTED: the first window is free."""

        async def send() -> None:
            async with aclosing(_pieces(source)) as pieces:
                async for data in pieces:
                    if not await channel.write(Stream.STDIN, data):
                        break
            channel.post_eof(Stream.STDIN)
            await channel.wait_end()

        async def wait() -> None:
            with suppress(Problem):  # for wait_end() below
                await channel.wait_end()

        async with self.link.start_channel(method, fields) as channel:
            await first_of(send(), wait())
            return _check(await channel.wait_end(), subject)


async def _pieces(source: Source) -> AsyncGenerator[bytes, None]:
    if isinstance(source, bytes):
        yield source
        return
    async for data in source:
        yield data


def _check(end: End, subject: str) -> Fields:
    if end.error:
        raise render_end(end, subject)
    return end.fields


def _checked_path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise bad_request(f"{path!r} is not an absolute path in the guest")
    return path
