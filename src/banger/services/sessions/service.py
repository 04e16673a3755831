"""Sessions: the handlers of `session.*`.

Owns the rows of sessions and what follows their guests. Each is written down before its guest hears of it, under the
id that its guest knows it by, so that whoever comes after a crash can ask. The sessions belong to the guests' agents:
nothing here ends with the daemon.
"""

import asyncio

from banger.api.method import Nothing
from banger.api.sessions import (
    Session,
    SessionAttach,
    SessionKill,
    SessionList,
    SessionLogs,
    SessionRemove,
    SessionResize,
    Sessions,
    SessionSend,
    SessionShow,
    SessionStart,
    SessionStop,
)
from banger.base.clock import Entropy, utc_now
from banger.base.problem import Outcome, Problem, conflict, unavailable
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.guest.errors import MISSING_COMMAND, UNKNOWN_METHOD, GuestProblem
from banger.guest.sessions import SessionInfo, StartSession
from banger.model.session import ID_DIGITS, ID_PREFIX, SessionRow
from banger.model.vm import VmRecord, require_running
from banger.services.contract import CommandStream
from banger.services.sessions.access import Access, answering, name_session
from banger.services.sessions.contract import Vms
from banger.services.sessions.joining import Joining
from banger.services.sessions.planning import parse_signal, plan_command, plan_row, plan_start
from banger.services.sessions.rows import Rows
from banger.services.sessions.views import describe
from banger.services.sessions.watching import Watches
from banger.store.contract import SessionRepository

_LOOK_S = 2.0


class SessionService:
    """`open` before the VMs are recovered: whoever is met then is asked."""

    def __init__(
        self,
        vms: Vms,
        sessions: SessionRepository,
        tasks: Supervisor,
        *,
        entropy: Entropy | None = None,
    ) -> None:
        self._vms = vms
        self._tasks = tasks
        self._entropy = entropy or Entropy()
        self._rows = Rows(sessions, vms.list_rows)
        self._access = Access(vms, self._rows)
        self._joining = Joining(self._access)
        self._watches = Watches(self._rows, tasks)

    def open(self) -> None:
        """From now on guests tell how their sessions are, those that an earlier daemon has left included."""
        self._vms.on_agent(self._watches.meet)

    def is_busy(self, vm_id: str) -> bool:
        """Whether a session goes on in it, as far as is known."""
        return bool(self._rows.list_open(vm_id))

    # Reading

    def list_sessions(self, request: SessionList) -> Sessions:
        vm = self._vms.resolve(request.vm) if request.vm is not None else None
        wanted = request.tags.items()
        return Sessions(
            sessions=[
                describe(row, its_vm)
                for row, its_vm in self._rows.list(vm)
                if (row.is_open or not request.running) and wanted <= row.tags.items()
            ]
        )

    async def show(self, request: SessionShow) -> Session:
        """With what only the guest knows, where it answers."""
        row, vm = self._rows.resolve(request.session)
        try:
            async with asyncio.timeout(_LOOK_S):
                infos = await self._vms.get_agent(vm).sessions.list()
        except (Problem, TimeoutError):
            return describe(row, vm)
        info = next((each for each in infos if each.id == row.id), None)
        if info is not None:
            self._rows.learn(vm.id, info)
        return describe(self._rows.find(row.id) or row, vm, info)

    # Starting and ending. What has been begun goes on when the caller leaves.

    async def start(self, request: SessionStart) -> Session:
        return await self._tasks.finish(self._start(request), name=f"start a session in {request.vm}")

    async def _start(self, request: SessionStart) -> Session:
        command = plan_command(request)
        vm = require_running(self._vms.resolve(request.vm))
        agent = self._vms.get_agent(vm)
        session_id = ID_PREFIX + self._entropy.hexadecimal(ID_DIGITS)
        row = plan_row(request, vm, session_id, agent.welcome.boot_id, utc_now())
        start = plan_start(request, row, self._vms.arrange(vm, command))
        self._rows.begin(row)
        self._watches.ensure(vm.id, agent)
        self._vms.touch(vm.id)
        async with answering(vm):
            info = await self._tasks.finish(self._begin(vm, agent, start), name=f"begin {session_id}")
        return describe(self._rows.find(session_id) or row, vm, info)

    async def _begin(self, vm: VmRecord, agent: Agent, start: StartSession) -> SessionInfo:
        """To the guest's answer, however late: of a command that could not begin nobody else tells."""
        try:
            info = await agent.sessions.start(start)
        except GuestProblem as problem:
            self._rows.drop(start.id)
            raise _explain_start(problem, vm) from problem
        except Problem as problem:
            if problem.outcome is Outcome.NOT_STARTED:
                self._rows.drop(start.id)
            raise
        finally:
            self._rows.begun(start.id)
        self._rows.learn(vm.id, info)
        return info

    async def stop(self, request: SessionStop) -> Session:
        """Its guest sees to it, whoever leaves."""
        row, vm = self._rows.resolve(request.session)
        if row.is_open:
            sessions = self._access.get_agent(row, vm).sessions
            with self._access.minding(row, vm):
                async with answering(vm, request.grace_s):
                    self._rows.learn(vm.id, await sessions.stop(row.id, request.grace_s))
        return describe(self._rows.find(row.id) or row, vm)

    async def kill(self, request: SessionKill) -> Session:
        number = parse_signal(request.signal)
        row, vm = self._access.require_open(request.session)
        sessions = self._access.get_agent(row, vm).sessions
        with self._access.minding(row, vm):
            async with answering(vm):
                await sessions.signal(row.id, number)
        return describe(self._rows.find(row.id) or row, vm)

    async def resize(self, request: SessionResize) -> Session:
        row, vm = self._access.require_open(request.session)
        if not row.pty:
            raise conflict(
                f"{name_session(row, vm)} has no terminal", hint="banger session start -t gives one"
            )
        sessions = self._access.get_agent(row, vm).sessions
        with self._access.minding(row, vm):
            async with answering(vm):
                await sessions.resize(row.id, request.rows, request.columns)
        return await self.show(SessionShow(session=row.id))

    async def remove(self, request: SessionRemove) -> Nothing:
        return await self._tasks.finish(self._remove(request), name=f"remove {request.session}")

    async def _remove(self, request: SessionRemove) -> Nothing:
        row, vm = self._rows.resolve(request.session)
        name = name_session(row, vm)
        if row.is_open and not request.force:
            raise conflict(f"{name} is {row.state.value}", hint=f"banger session remove --force {name}")
        if row.is_open:
            row = await self._end_at_once(row, vm)
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._vms.get_agent(vm).sessions.remove(row.id)
        except (Problem, TimeoutError):
            pass  # its guest has forgotten it, or will: by its own bounds, or with its end
        self._rows.drop(row.id)
        return Nothing()

    async def _end_at_once(self, row: SessionRow, vm: VmRecord) -> SessionRow:
        sessions = self._access.get_agent(row, vm).sessions
        with self._access.minding(row, vm):
            async with answering(vm):
                self._rows.learn(vm.id, await sessions.stop(row.id, 0))
        return self._rows.find(row.id) or row

    # Joined to a caller

    async def attach(self, request: SessionAttach, stream: CommandStream) -> None:
        await self._joining.attach(request, stream)

    async def logs(self, request: SessionLogs, stream: CommandStream) -> None:
        await self._joining.logs(request, stream)

    async def send(self, request: SessionSend, stream: CommandStream) -> None:
        await self._joining.send(request, stream)


def _explain_start(problem: GuestProblem, vm: VmRecord) -> Problem:
    """With what helps."""
    if problem.errno == UNKNOWN_METHOD:
        brief = f"{vm.name} was started by a banger that knew no sessions"
        return unavailable(brief, hint=f"banger vm restart {vm.name}")
    if problem.errno == MISSING_COMMAND:
        problem.hint = f"install it in the guest: banger vm exec -it {vm.name} -- bash"
        problem.outcome = Outcome.NOT_STARTED
    return problem
