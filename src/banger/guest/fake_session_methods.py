"""The session methods of the fake guest, one function each. The sessions are `fake_sessions`'."""

import asyncio
import errno
import os
import pwd
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from banger.base.process import SEARCH_PATH
from banger.guest.entries import need_number, need_text
from banger.guest.errors import MISSING_COMMAND, NO_SESSION, TAKEN, TOO_MANY_SESSIONS, UNKNOWN_USER
from banger.guest.fake_methods import Answer, Call, Refusal
from banger.guest.fake_sessions import FakeSession, Spec
from banger.guest.frames import MAX_PAYLOAD_BYTES, Stream, encode_fields
from banger.guest.methods import Method
from banger.guest.session_records import (
    DEFAULT_SCROLLBACK_BYTES,
    RecordKind,
    SessionInfo,
    encode_gap,
    encode_record,
    encode_session,
)

_FLAG_PTY, _FLAG_STDIN, _FLAG_MERGE = 1, 2, 4
_MAX_PIECE_BYTES = MAX_PAYLOAD_BYTES - 13


def _nothing() -> None: ...


def _find(call: Call) -> FakeSession:
    session = call.guest.sessions.by_id.get(need_text(call.fields, 1))
    if session is None:
        raise Refusal(NO_SESSION, f"{need_text(call.fields, 1)}: no such session")
    return session


def _describe(session: FakeSession) -> Answer:
    return encode_fields([(1, encode_session(session.info))]), _nothing


def _read_spec(call: Call) -> Spec:
    """Raises what the agent answers to a command that cannot begin."""
    argv = [os.fsdecode(argument) for argument in call.fields.find_all(1)]
    pairs = [os.fsdecode(pair).partition("=") for pair in call.fields.find_all(2)]
    env = {"HOME": str(call.guest.scratch / "root")} | {key: value for key, _, value in pairs}
    path = env.get("PATH", SEARCH_PATH)
    user = call.fields.find_text(4)
    if user is not None and not user.replace(":", "").isdigit():
        try:
            pwd.getpwnam(user)
        except KeyError:
            raise Refusal(UNKNOWN_USER, f"{user}: unknown user or group") from None
    cwd = call.path(3) if call.fields.find(3) else call.guest.scratch / "root"
    if not cwd.is_dir():
        raise OSError(errno.ENOENT, f"{need_text(call.fields, 3)}: No such file or directory")
    required = [os.fsdecode(name) for name in call.fields.find_all(9)]
    if missing := [name for name in required if shutil.which(name, path=path) is None]:
        raise Refusal(MISSING_COMMAND, ", ".join(missing))
    program = shutil.which(argv[0], path=path)
    if program is None:
        error = errno.EACCES if Path(argv[0]).exists() else errno.ENOENT
        raise OSError(error, f"{argv[0]}: {os.strerror(error)}")
    flags = call.fields.find_number(5) or 0
    return Spec(
        id=need_text(call.fields, 8),
        argv=(program, *argv[1:]),
        cwd=cwd,
        env=env,
        tags=tuple(
            (key, value) for key, _, value in (t.decode().partition("=") for t in call.fields.find_all(10))
        ),
        scrollback_bytes=call.fields.find_number(11) or DEFAULT_SCROLLBACK_BYTES,
        pty=bool(flags & _FLAG_PTY),
        stdin=bool(flags & _FLAG_STDIN),
        merge_stderr=bool(flags & _FLAG_MERGE),
        rows=call.fields.find_number(6) or 24,
        columns=call.fields.find_number(7) or 80,
    )


async def _start(call: Call) -> Answer:
    table = call.guest.sessions
    session_id = need_text(call.fields, 8)
    if session_id in table.by_id:
        raise OSError(errno.EEXIST, f"{session_id}: there is such a session")
    session = FakeSession(_read_spec(call), table.bell)
    if not table.make_room():
        raise Refusal(TOO_MANY_SESSIONS, f"{table.limit} sessions are running")
    session.start()
    table.by_id[session_id] = session
    session.changed()
    return _describe(session)


async def _send_state(call: Call, info: SessionInfo, sequence: int) -> None:
    await call.send(encode_record(RecordKind.STATE, sequence, encode_session(info)))


async def _list(call: Call) -> Answer:
    call.start()
    for session in list(call.guest.sessions.by_id.values()):
        await _send_state(call, session.info, session.log.end)
    call.channel.post_eof(Stream.STDOUT)
    return b"", _nothing


class _Reading:
    """One reader's way through a log."""

    def __init__(self, call: Call, session: FakeSession) -> None:
        self.call = call
        self.session = session
        mask = call.fields.find_number(4)
        self.streams = frozenset(s for s in (1, 2) if (6 if mask is None else mask) >> s & 1)
        self.follows = bool((call.fields.find_number(5) or 0) & 1)
        self.until = session.log.end
        self.at = min(call.fields.find_number(2) or 0, self.until)
        tail = call.fields.find_number(3)
        if tail is not None:
            self.at = max(self.at, session.log.tail(tail, self.streams))

    async def run(self) -> None:
        session = self.session
        told = session.revision
        ends = session.is_over and self.at >= session.log.end
        await _send_state(self.call, session.info, self.at)
        while True:
            await self._catch_up()
            if session.is_removed:
                raise Refusal(NO_SESSION, f"{session.spec.id}: the session was removed")
            if not self.follows and self.at >= self.until:
                return
            if self.at < session.log.end:
                continue
            if session.is_over:
                if not ends:
                    await _send_state(self.call, session.info, self.at)
                return
            if session.revision != told:
                told = session.revision
                await _send_state(self.call, session.info, self.at)
            else:
                await session.bell.wait()

    async def _catch_up(self) -> None:
        log = self.session.log
        if self.at < log.begin:
            self.at, before = log.begin, self.at
            restore = (
                encode_record(RecordKind.RESTORE, self.at, log.restore) if self.session.spec.pty else b""
            )
            await self.call.send(encode_gap(before, self.at) + restore)
        for run in list(log.runs):
            if run.end <= self.at or (not self.follows and self.at >= self.until):
                continue
            if self.at < log.begin:  # it went while we sent
                return
            start = self.at
            data = run.data[start - run.sequence :][:_MAX_PIECE_BYTES]
            if not self.follows:
                data = data[: self.until - start]
            self.at = start + len(data)
            if run.stream in self.streams:
                await self.call.send(encode_record(RecordKind(run.stream), start, data))
            if self.at < run.end:
                return


async def _read(call: Call) -> Answer:
    session = _find(call)
    reading = _Reading(call, session)
    session.readers += 1
    try:
        call.start((1, encode_session(session.info)))
        await reading.run()
    finally:
        session.readers -= 1
    call.channel.post_eof(Stream.STDOUT)
    return b"", _nothing


@asynccontextmanager
async def _holding(call: Call, session: FakeSession, *, steals: bool) -> AsyncIterator[object]:
    """The right to write, as a token; it is lost when the session's is another."""
    if session.is_over:
        raise OSError(errno.ESRCH, "the session has ended")
    if not session.takes_input:
        raise OSError(errno.EPIPE, "the session takes no input")
    if session.writer is not None and not steals:
        raise Refusal(TAKEN, "somebody else writes to the session")
    if session.is_full:
        raise OSError(errno.EBUSY, "the session has not read what was written to it")
    token = session.writer = object()
    session.changed()
    try:
        yield token
    finally:
        while call.channel.buffered_bytes and session.writer is token:
            if (piece := await call.channel.read()) is not None:
                session.give(piece.data)
        if session.writer is token:
            session.writer = None
            session.changed()


async def _write(call: Call) -> Answer:
    session = _find(call)
    async with _holding(call, session, steals=bool((call.fields.find_number(2) or 0) & 1)) as token:
        call.start((1, encode_session(session.info)))
        feeding = asyncio.create_task(_feed(call, session), name="a fake session's writer")
        try:
            while session.writer is token and session.takes_input and not feeding.done():
                bell = session.bell.listen()
                await asyncio.wait((bell, feeding), return_when=asyncio.FIRST_COMPLETED)
                bell.cancel()
            if session.writer is not token:
                raise Refusal(TAKEN, "somebody else has taken over")
            while session.pending:
                await session.bell.wait()
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding
    return b"", _nothing


async def _feed(call: Call, session: FakeSession) -> None:
    while True:
        while session.is_full:
            await session.bell.wait()
        piece = await call.channel.read()
        if piece is None:
            session.end_input()
            return
        session.give(piece.data)


async def _signal(call: Call) -> Answer:
    number = need_number(call.fields, 2)
    if not 0 < number < 65:
        raise OSError(errno.EINVAL, "no such signal")
    _find(call).kill(number)
    return b"", _nothing


async def _resize(call: Call) -> Answer:
    _find(call).resize(need_number(call.fields, 2), need_number(call.fields, 3))
    return b"", _nothing


async def _stop(call: Call) -> Answer:
    session = _find(call)
    grace_ms = call.fields.find_number(2)
    session.stop((10_000 if grace_ms is None else grace_ms) / 1000)
    while not session.is_over:
        await session.bell.wait()
    return _describe(session)


async def _remove(call: Call) -> Answer:
    session = _find(call)
    if not session.is_over:
        raise OSError(errno.EBUSY, "the session runs")
    call.guest.sessions.forget(session)
    return b"", _nothing


async def _watch(call: Call) -> Answer:
    table = call.guest.sessions
    told: dict[FakeSession, int] = {}
    gone = len(table.removed)
    call.start()
    while True:
        bell = table.bell.listen()
        for session in list(table.by_id.values()):
            if told.get(session) != session.revision:
                told[session] = session.revision
                await _send_state(call, session.info, session.log.end)
        while gone < len(table.removed):
            gone += 1
            await _send_state(call, table.removed[gone - 1], 0)
        await bell


SESSION_METHODS: Mapping[int, Callable[[Call], Awaitable[Answer]]] = MappingProxyType(
    {
        Method.SESSION_START: _start,
        Method.SESSION_LIST: _list,
        Method.SESSION_READ: _read,
        Method.SESSION_WRITE: _write,
        Method.SESSION_SIGNAL: _signal,
        Method.SESSION_RESIZE: _resize,
        Method.SESSION_STOP: _stop,
        Method.SESSION_REMOVE: _remove,
        Method.SESSION_WATCH: _watch,
    }
)
