"""Sessions joined to callers: the handlers of the streams. Owns no state; leaving ends nothing."""

import errno
from contextlib import AsyncExitStack

from banger.api.sessions import SessionAttach, SessionLogs, SessionSend
from banger.base.problem import Code, Outcome, Problem, conflict
from banger.base.tasks import beside
from banger.guest.errors import TAKEN, GuestProblem
from banger.guest.frames import Stream
from banger.guest.sessions import FROM_NOW, SessionInfo, Writer
from banger.model.session import SessionRow
from banger.model.vm import VmRecord
from banger.services.contract import CommandStream, Stdin
from banger.services.sessions.access import Access, name_session
from banger.services.sessions.streams import Relay, describe_state, draw_anew, pump_input, tell_of_writer

_STREAMS = {
    "both": frozenset({Stream.STDOUT, Stream.STDERR}),
    "stdout": frozenset({Stream.STDOUT}),
    "stderr": frozenset({Stream.STDERR}),
}


class Joining:
    def __init__(self, access: Access) -> None:
        self._access = access

    async def attach(self, request: SessionAttach, stream: CommandStream) -> None:
        """What is kept, then what comes, up to its end. Its input is the caller's, unless somebody else has it."""
        row, vm = self._access.resolve(request.session)
        sessions = self._access.get_agent(row, vm).sessions
        writes = row.stdin and row.is_open and not request.read_only
        self._access.touch(vm)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._access.minding(row, vm))
            writer = await self._find_writer(stack, row, vm, steal=request.steal) if writes else None
            reader = await stack.enter_async_context(sessions.read(row.id, since=request.since, follow=True))
            info = reader.info
            assert info is not None
            at = await _accept(stream, row, vm, info, since=request.since, writer=writer)
            relay = Relay(stream, at)
            await stack.enter_async_context(beside(pump_input(row.id, sessions, writer, stream)))
            if writer is not None:
                await stack.enter_async_context(beside(tell_of_writer(writer, stream)))
            if writer is not None and row.pty and request.rows and request.columns:
                drawing = draw_anew(sessions, info, request.rows, request.columns, relay.moved)
                await stack.enter_async_context(beside(drawing))
            last = await relay.run(reader)
        if last is not None:
            self._access.rows.learn(vm.id, last)
        end = last.exit_status if last is not None else None
        if end is None:
            brief = f"{name_session(row, vm)} has ended, and its guest does not say how"
            raise Problem(Code.OPERATION_FAILED, brief, outcome=Outcome.UNKNOWN)
        await stream.finish(status=end.status, signal=end.signal)

    async def logs(self, request: SessionLogs, stream: CommandStream) -> None:
        """Whatever a caller sends meanwhile is nobody's."""
        row, vm = self._access.resolve(request.session)
        reading = self._access.get_agent(row, vm).sessions.read(
            row.id,
            since=request.since,
            tail_lines=request.tail_lines,
            streams=_STREAMS[request.stream],
            follow=request.follow,
        )
        with self._access.minding(row, vm):
            async with reading as reader:
                assert reader.info is not None
                at = await _accept(stream, row, vm, reader.info, since=request.since)
                await Relay(stream, at).run(reader)
        await stream.finish(status=0)

    async def send(self, request: SessionSend, stream: CommandStream) -> None:
        row, vm = self._access.require_open(request.session)
        self._access.touch(vm)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._access.minding(row, vm))
            writer = await self._find_writer(stack, row, vm, steal=request.steal)
            if writer is None:
                raise _deaf(row, vm)
            await _accept(stream, row, vm, writer.info, since=FROM_NOW, writer=writer)
            async for item in stream.inputs():
                if not isinstance(item, Stdin):
                    continue
                if not item.data:
                    break
                if not await writer.write(item.data):
                    raise _deaf(row, vm)
            if request.eof:
                writer.close_stdin()
                await writer.wait_end()
        await stream.finish(status=0)

    async def _find_writer(
        self, stack: AsyncExitStack, row: SessionRow, vm: VmRecord, *, steal: bool
    ) -> Writer | None:
        """None of a session that takes no more input. Raises `conflict` when somebody else has it."""
        name = name_session(row, vm)
        if not row.stdin:
            raise conflict(f"{name} has no input", hint="banger session start -i gives one, -t a terminal")
        sessions = self._access.get_agent(row, vm).sessions
        try:
            return await stack.enter_async_context(sessions.write(row.id, steal=steal))
        except GuestProblem as problem:
            if problem.errno in (errno.EPIPE, errno.ESRCH):
                return None
            if problem.errno not in (TAKEN, errno.EBUSY):
                raise
            why = (
                "has not read yet what was sent to it"
                if problem.errno == errno.EBUSY
                else "has a writer already"
            )
            hint = f"banger session attach --read-only {name}; or take it over with --steal"
            raise conflict(f"{name} {why}", hint=hint) from problem


def _deaf(row: SessionRow, vm: VmRecord) -> Problem:
    name = name_session(row, vm)
    return conflict(f"{name} takes no more input", hint=f"banger session show {name}")


async def _accept(
    stream: CommandStream,
    row: SessionRow,
    vm: VmRecord,
    info: SessionInfo,
    *,
    since: int | None,
    writer: Writer | None = None,
) -> int:
    """The sequence number of the first byte that comes, unless a gap or another number is told before it."""
    at = min(since or 0, info.end)
    session = describe_state(info) | {"name": row.name, "vm": vm.name}
    await stream.accept(pid=info.pid, session=session, at=at, writer=writer is not None)
    return at
