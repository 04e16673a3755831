"""Sessions in the guest: commands that go on without anybody listening. The agent's side of them, typed.

Owns no session: the agent does, with its process, its log and its lock for writing. Leaving a reader's or a writer's
block detaches and no more. A failure that the guest told is a `GuestProblem`, a command that did not begin a
`CannotStart`. Nothing here sets a deadline.
"""

import errno
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.guest.channel import Channel, End
from banger.guest.command import plan_exec
from banger.guest.entries import need_bytes
from banger.guest.errors import (
    BAD_REQUEST,
    MISSING_COMMAND,
    TOO_MANY_SESSIONS,
    UNKNOWN_METHOD,
    GuestProblem,
    read_text,
    reading_answer,
    render_end,
    render_exec_end,
)
from banger.guest.frames import Fields, FieldValue, MalformedFrame, Stream, decode_fields
from banger.guest.link import Link
from banger.guest.methods import Method
from banger.guest.session_records import (
    RecordKind,
    RecordParser,
    SessionInfo,
    SessionRecord,
    StartSession,
    check_session_id,
    check_tags,
    parse_session,
)

MAX_SCROLLBACK_BYTES = 16 * 1024 * 1024
_LISTED_MAX = 1024  # an agent keeps 128; a hostile one lists without end
FROM_NOW = 2**64 - 1  # as `since`: nothing of what is held
_FLAG_FOLLOW = 1
_FLAG_STEAL = 1
_BOTH = frozenset((Stream.STDOUT, Stream.STDERR))
_ABOUT_SESSIONS = frozenset((errno.EEXIST, errno.ENOMEM, BAD_REQUEST, UNKNOWN_METHOD, TOO_MANY_SESSIONS))

__all__ = [
    "FROM_NOW",
    "MAX_SCROLLBACK_BYTES",
    "Reader",
    "RecordKind",
    "SessionInfo",
    "SessionRecord",
    "Sessions",
    "StartSession",
    "Watch",
    "Writer",
]


class Writer:
    """The right to write to a session, until it is stolen, the session takes no more, or the block is left."""

    def __init__(self, channel: Channel, session_id: str, info: SessionInfo) -> None:
        self.info = info
        self._channel = channel
        self._id = session_id

    async def write(self, data: bytes | memoryview) -> bool:
        """Waits until the guest has room. False when the session takes no more: it has ended, or its standard input
        is closed. Raises `conflict` (errno TAKEN) when somebody else has taken over."""
        if await self._channel.write(Stream.STDIN, data):
            return True
        self._check(await self._channel.wait_end())
        return False

    def close_stdin(self) -> None:
        """The command reads end of file after what was written; on a terminal the EOF character is typed, and somebody
        may write again afterwards. Ends this writer."""
        self._channel.post_eof(Stream.STDIN)

    async def wait_end(self) -> None:
        """Returns when this writer has ended: by `close_stdin`, once the command took everything, or with the session.
        Raises as `write` does."""
        self._check(await self._channel.wait_end())

    def _check(self, end: End) -> None:
        if end.error:
            raise render_end(end, f"session {self._id}")


class Reader:
    """A session's records, as they come. The iteration ends with the session, or at the present end without `follow`;
    it raises when the session was removed. `info` is the session as the reader found it."""

    def __init__(self, channel: Channel, subject: str, info: SessionInfo | None) -> None:
        self.info = info
        self._channel = channel
        self._subject = subject
        self._parser = RecordParser()
        self._parsed: deque[SessionRecord] = deque()

    def __aiter__(self) -> AsyncIterator[SessionRecord]:
        return self

    async def __anext__(self) -> SessionRecord:
        while not self._parsed:
            output = await self._channel.read()
            if output is None:
                await self._finish()
                raise StopAsyncIteration
            with reading_answer():
                self._parsed += self._parser.feed(output.data)
        return self._parsed.popleft()

    async def _finish(self) -> None:
        end = await self._channel.wait_end()
        if end.error:
            raise render_end(end, self._subject)
        with reading_answer():
            if not self._parser.is_whole:
                raise MalformedFrame("a session's record is cut off")


class Watch:
    """Sessions as they change: first every one there is, then each that begins, changes or goes (state `removed`).
    What changes twice while nobody looks is told once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __aiter__(self) -> AsyncIterator[SessionInfo]:
        return self

    async def __anext__(self) -> SessionInfo:
        return _need_info(await anext(self._reader))


class Sessions:
    """All sessions of one guest. At most 128, of which those that ended give way, oldest first."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def start(self, session: StartSession) -> SessionInfo:
        """Returns once the command runs. Nothing is left of one that cannot. The id is the caller's: starting it twice
        is `already_exists`. When the connection breaks meanwhile the outcome is unknown, and `list` tells."""
        async with self._link.start_channel(Method.SESSION_START, plan_start(session)) as channel:
            end = await channel.wait_end()
        if end.error:
            raise _render_start_end(end, session)
        return _read_info(end.fields)

    async def list(self) -> tuple[SessionInfo, ...]:
        """Those that run and those that have ended and are still known, oldest first."""
        async with self._read(Method.SESSION_LIST, (), "sessions") as reader:
            found: list[SessionInfo] = []
            async for record in reader:
                found.append(_need_info(record))
                if len(found) > _LISTED_MAX:
                    raise Problem(Code.UNAVAILABLE, f"the guest lists more than {_LISTED_MAX} sessions")
            return tuple(found)

    @asynccontextmanager
    async def read(
        self,
        session_id: str,
        *,
        since: int | None = None,
        tail_lines: int | None = None,
        streams: Iterable[int] = _BOTH,
        follow: bool = False,
    ) -> AsyncIterator[Reader]:
        """Its log from a sequence number (default: from what is held), or its last lines, whichever begins later.

        What is not held any more is told by a gap. On a terminal a gap is followed by what brings a fresh terminal
        into the modes it would have had (`RecordKind.RESTORE`).
        """
        chosen = frozenset(streams)
        if not chosen or not chosen <= _BOTH:
            raise bad_request("a session's streams are 1 (stdout) and 2 (stderr)")
        mask = sum(1 << stream for stream in chosen)
        fields: list[tuple[int, FieldValue]] = [(1, check_session_id(session_id)), (4, mask)]
        if since is not None:
            fields.append((2, since))
        if tail_lines is not None:
            fields.append((3, tail_lines))
        if follow:
            fields.append((5, _FLAG_FOLLOW))
        async with self._read(Method.SESSION_READ, fields, f"session {session_id}") as reader:
            yield reader

    @asynccontextmanager
    async def write(self, session_id: str, *, steal: bool = False) -> AsyncIterator[Writer]:
        """The one right to write. Raises `conflict` when somebody has it, unless it is stolen; leaving the block gives
        it back, and what was written before is delivered."""
        fields: list[tuple[int, FieldValue]] = [(1, check_session_id(session_id))]
        if steal:
            fields.append((2, _FLAG_STEAL))
        async with self._link.start_channel(Method.SESSION_WRITE, fields) as channel:
            started = await channel.wait_started()
            if started is None:
                raise render_end(await channel.wait_end(), f"session {session_id}")
            yield Writer(channel, session_id, _read_info(started))

    async def signal(self, session_id: str, number: int) -> None:
        """To the whole process group."""
        await self._call(Method.SESSION_SIGNAL, session_id, (2, number))

    async def resize(self, session_id: str, rows: int, columns: int) -> None:
        """The command gets SIGWINCH when that is a change."""
        await self._call(Method.SESSION_RESIZE, session_id, (2, rows), (3, columns))

    async def stop(self, session_id: str, grace_s: float = 10.0) -> SessionInfo:
        """TERM to the process group, KILL after the grace; returns when the session has ended. Goes on in the guest
        when the caller leaves. One that has ended is left as it is."""
        return _read_info(await self._call(Method.SESSION_STOP, session_id, (2, round(grace_s * 1000))))

    async def remove(self, session_id: str) -> None:
        """Forgets one that has ended, with its log; its readers end. `conflict` while it runs."""
        await self._call(Method.SESSION_REMOVE, session_id)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Watch]:
        async with self._read(Method.SESSION_WATCH, (), "sessions") as reader:
            yield Watch(reader)

    async def _call(self, method: Method, session_id: str, *fields: tuple[int, int]) -> Fields:
        asked: tuple[tuple[int, FieldValue], ...] = ((1, check_session_id(session_id)), *fields)
        async with self._link.start_channel(method, asked) as channel:
            end = await channel.wait_end()
        if end.error:
            raise render_end(end, f"session {session_id}")
        return end.fields

    @asynccontextmanager
    async def _read(
        self, method: Method, fields: Iterable[tuple[int, FieldValue]], subject: str
    ) -> AsyncIterator[Reader]:
        async with self._link.start_channel(method, fields) as channel:
            started = await channel.wait_started()
            if started is None:
                raise render_end(await channel.wait_end(), subject)
            yield Reader(channel, subject, _read_info(started) if started.find(1) else None)


def plan_start(session: StartSession) -> list[tuple[int, FieldValue]]:
    """The request's fields. Raises `bad_request` for what no guest could start."""
    if not 0 < session.scrollback_bytes <= MAX_SCROLLBACK_BYTES:
        raise bad_request(
            f"a scroll-back of {session.scrollback_bytes} bytes is not possible",
            hint=f"use 1 to {MAX_SCROLLBACK_BYTES} bytes",
        )
    for name in session.required:
        if not name or "\0" in name:
            raise bad_request(f"{name!r} is not the name of a command")
    fields = plan_exec(session.request)
    fields.append((8, check_session_id(session.id)))
    fields += [(9, name) for name in session.required]
    fields += [(10, f"{key}={value}") for key, value in check_tags(session.tags)]
    fields.append((11, session.scrollback_bytes))
    return fields


def _render_start_end(end: End, session: StartSession) -> GuestProblem:
    """The agent's text is the names of what is missing, or as that of exec."""
    if end.error == MISSING_COMMAND:
        problem = render_end(end, read_text(end) or "a command")
        problem.detail = None
    elif end.error in _ABOUT_SESSIONS:
        problem = render_end(end, f"session {session.id}")
    else:
        problem = render_exec_end(end, session.request.argv[0])
    problem.outcome = Outcome.NOT_STARTED
    return problem


def _read_info(fields: Fields) -> SessionInfo:
    with reading_answer():
        return parse_session(decode_fields(need_bytes(fields, 1)))


def _need_info(record: SessionRecord) -> SessionInfo:
    with reading_answer():
        if record.info is None:
            raise MalformedFrame("a session's output came where its description was due")
        return record.info
