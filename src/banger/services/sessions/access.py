"""The way from a reference to the guest that has the session, and what can be in it.

Owns nothing. A guest that does not know a session any more says so here, and the row learns of it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from banger.base.problem import Code, Outcome, Problem, conflict, unavailable
from banger.guest.agent import Agent
from banger.guest.errors import NO_SESSION, GuestProblem
from banger.model.session import SessionRow, SessionState
from banger.model.vm import VmRecord, VmState, require_running
from banger.services.sessions.contract import Vms
from banger.services.sessions.rows import Rows
from banger.services.sessions.rules import FORGOTTEN

_ANSWER_S = 10.0


class Access:
    def __init__(self, vms: Vms, rows: Rows) -> None:
        self._vms = vms
        self.rows = rows

    def resolve(self, untrusted_reference: str) -> tuple[SessionRow, VmRecord]:
        """Raises `not_found`, `ambiguous`."""
        return self.rows.resolve(untrusted_reference)

    def require_open(self, untrusted_reference: str) -> tuple[SessionRow, VmRecord]:
        """One that has not ended. Raises `not_running`."""
        row, vm = self.resolve(untrusted_reference)
        if not row.is_open:
            raise _has_ended(row, vm)
        return row, vm

    def get_agent(self, row: SessionRow, vm: VmRecord) -> Agent:
        """Of the guest that has it and its output. Raises Problem."""
        if row.state in (SessionState.LOST, SessionState.FAILED):
            raise _has_ended(row, vm)
        if vm.state is VmState.STOPPING:
            raise _not_running(f"{name_session(row, vm)} ends with {vm.name}, which is stopping", row, vm)
        require_running(vm)
        agent = self._vms.get_agent(vm)
        if row.boot_id and agent.welcome.boot_id not in ("", row.boot_id):
            raise self._miss(row, vm)
        return agent

    def touch(self, vm: VmRecord) -> None:
        self._vms.touch(vm.id)

    @contextmanager
    def minding(self, row: SessionRow, vm: VmRecord) -> Iterator[None]:
        """Around what is asked of the guest. Raises `not_running` when it does not know the session."""
        try:
            yield
        except GuestProblem as problem:
            if problem.errno != NO_SESSION:
                raise
            raise self._miss(row, vm) from problem

    def _miss(self, row: SessionRow, vm: VmRecord) -> Problem:
        if self.rows.is_starting(row.id):
            name = name_session(row, vm)
            return conflict(f"{name} is being started", hint=f"banger session show {name}, then try again")
        current = self.rows.find(row.id)
        if current is not None and current.is_open:
            current = self.rows.lose(current, FORGOTTEN)
        if current is None or not current.error:
            return _not_running(f"nothing is kept of {name_session(row, vm)} in the guest any more", row, vm)
        return _has_ended(current, vm)


def name_session(row: SessionRow, vm: VmRecord) -> str:
    return f"{vm.name}/{row.name}"


@asynccontextmanager
async def answering(vm: VmRecord, extra_s: float = 0.0) -> AsyncIterator[None]:
    """Around a question to a guest, which may be asked again. Raises `unavailable` when the answer does not come."""
    try:
        async with asyncio.timeout(_ANSWER_S + extra_s):
            yield
    except TimeoutError as error:
        problem = unavailable(
            f"the agent in {vm.name} does not answer within {_ANSWER_S + extra_s:g} s",
            hint=f"banger session list {vm.name}",
        )
        problem.outcome = Outcome.UNKNOWN
        raise problem from error


def _has_ended(row: SessionRow, vm: VmRecord) -> Problem:
    why = f": {row.error}" if row.error else ""
    if row.state is SessionState.LOST:
        return _not_running(f"{name_session(row, vm)} is lost{why}", row, vm)
    return _not_running(f"{name_session(row, vm)} has ended ({row.state.value}){why}", row, vm)


def _not_running(brief: str, row: SessionRow, vm: VmRecord) -> Problem:
    hint = f"banger session show {name_session(row, vm)}"
    return Problem(Code.NOT_RUNNING, brief, hint=hint, outcome=Outcome.NOT_STARTED)
