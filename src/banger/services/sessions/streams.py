"""A session's output and input joined to a caller's stream (docs/reference/sessions.md). Buffers nothing.

A caller that reads slowly holds up nobody: the guest's log goes on without it, and it is told what it has missed.
"""

import asyncio
from collections.abc import AsyncIterator

from banger.base.problem import Problem
from banger.guest.errors import TAKEN, GuestProblem
from banger.guest.frames import Stream
from banger.guest.sessions import RecordKind, SessionInfo, SessionRecord, Sessions, Writer
from banger.services.contract import CommandStream, Resize, SendSignal, Stdin

_REACTION_S = 0.2


class Relay:
    """Output on its way to a caller. A caller that counts bytes always knows the sequence number: whatever is not the
    byte after the last one is announced."""

    def __init__(self, stream: CommandStream, position: int) -> None:
        self.stream = stream
        self.moved = asyncio.Event()
        self._position = position

    async def run(self, records: AsyncIterator[SessionRecord]) -> SessionInfo | None:
        """To the end of the records; the last state that was told."""
        last = None
        async for record in records:
            self.moved.set()
            match record.kind:
                case RecordKind.STATE:
                    assert record.info is not None
                    if last is not None:  # the first one was told when the stream was accepted
                        await self.stream.tell({"session": describe_state(record.info)})
                    last = record.info
                case RecordKind.GAP:
                    await self.stream.tell({"gap": {"from": record.sequence, "to": record.end}})
                    self._position = record.end
                case RecordKind.RESTORE:
                    await self.stream.write(Stream.STDOUT, record.data)
                    await self.stream.tell({"at": record.sequence})
                case _:
                    if record.sequence != self._position:
                        await self.stream.tell({"at": record.sequence})
                    await self.stream.write(record.kind, record.data)
                    self._position = record.end
        return last


async def pump_input(
    session_id: str, sessions: Sessions, writer: Writer | None, stream: CommandStream
) -> None:
    """What the caller types, its signals and sizes, as long as it may write. Ends with the caller's side."""
    async for item in stream.inputs():
        if writer is None:
            continue
        try:
            match item:
                case Stdin(data=b""):
                    writer.close_stdin()
                case Stdin(data=data):
                    if not await writer.write(data):
                        writer = None
                case SendSignal(number=number):
                    await sessions.signal(session_id, number)
                case Resize(rows=rows, columns=columns):
                    await sessions.resize(session_id, rows, columns)
        except GuestProblem:  # it has ended, or was taken over: whoever watches over the writer tells
            writer = None


async def tell_of_writer(writer: Writer, stream: CommandStream) -> None:
    """Tells when somebody else has taken the input over."""
    try:
        await writer.wait_end()
    except GuestProblem as problem:
        if problem.errno == TAKEN:
            await stream.tell({"writer": False})


async def draw_anew(
    sessions: Sessions, info: SessionInfo, rows: int, columns: int, moved: asyncio.Event
) -> None:
    """A program on a terminal draws its screen again when that changes its size. To one of the right size already, the
    size is changed and given back; it gets a moment to notice, for two changes at once are none."""
    try:
        if (info.rows, info.columns) == (rows, columns):
            await sessions.resize(info.id, rows - 1 if rows > 1 else rows + 1, columns)
            moved.clear()
            try:
                async with asyncio.timeout(_REACTION_S):
                    await moved.wait()
            except TimeoutError:
                pass
        await sessions.resize(info.id, rows, columns)
    except Problem:  # it has ended meanwhile
        return


def describe_state(info: SessionInfo) -> dict[str, object]:
    """What callers are told of a session while they are joined to it."""
    told: dict[str, object] = {
        "id": info.id,
        "state": info.state,
        "pid": info.pid,
        "begin": info.begin,
        "end": info.end,
        "pty": info.pty,
        "rows": info.rows,
        "columns": info.columns,
        "has_writer": info.has_writer,
        "readers": info.readers,
    }
    if info.exit_status is not None:
        status, signal = info.exit_status
        told |= {"status": status} if signal is None else {"signal": signal}
    return told
