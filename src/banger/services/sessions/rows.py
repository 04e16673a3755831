"""The rows of sessions as the rest of this package sees them. The only writer.

Owns which sessions are being started right now. Of the sessions of a VM that have ended only the newest are kept.
"""

import logging
from collections.abc import Callable, Iterable, Sequence, Set

from banger.base.clock import utc_now
from banger.base.problem import Problem
from banger.guest.sessions import SessionInfo
from banger.model.session import Candidate, SessionRow, resolve_session
from banger.model.vm import VmRecord
from banger.services.sessions.rules import FORGOTTEN, find_loss, learn, lose, miss
from banger.store.contract import SessionRepository

ENDED_KEPT = 32
_log = logging.getLogger(__name__)


class Rows:
    def __init__(self, sessions: SessionRepository, list_vms: Callable[[], Sequence[VmRecord]]) -> None:
        self._sessions = sessions
        self._list_vms = list_vms
        self._starting: set[str] = set()

    def resolve(self, untrusted_reference: str) -> tuple[SessionRow, VmRecord]:
        """Raises `not_found`, `ambiguous`."""
        vms = {vm.id: vm for vm in self._list_vms()}
        rows = {row.id: row for row in self._sessions.list() if row.vm_id in vms}
        known = (Candidate(row.id, row.name, row.vm_id, vms[row.vm_id].name) for row in rows.values())
        row = rows[resolve_session(untrusted_reference, known)]
        vm = vms[row.vm_id]
        return self.settle(row, vm), vm

    def list(self, vm: VmRecord | None = None) -> Sequence[tuple[SessionRow, VmRecord]]:
        """Of one VM or of all, the oldest first."""
        vms = {each.id: each for each in ([vm] if vm else self._list_vms())}
        rows = self._sessions.list(vm.id if vm else None)
        return [(self.settle(row, vms[row.vm_id]), vms[row.vm_id]) for row in rows if row.vm_id in vms]

    def list_open(self, vm_id: str) -> Sequence[SessionRow]:
        """As they were last seen."""
        return [row for row in self._sessions.list(vm_id) if row.is_open]

    def find(self, session_id: str) -> SessionRow | None:
        return self._sessions.find(session_id)

    # Starting

    def begin(self, row: SessionRow) -> None:
        """Written before the guest hears of it. Until `begun` or `drop` the guest need not know it. Raises
        `already_exists`."""
        self._sessions.save(row)
        self._starting.add(row.id)

    def begun(self, session_id: str) -> None:
        """The guest has heard of it, or may have."""
        self._starting.discard(session_id)

    def is_starting(self, session_id: str) -> bool:
        """Whether somebody waits for its beginning: until its command runs no guest admits to it."""
        return session_id in self._starting

    def drop(self, session_id: str) -> None:
        self._starting.discard(session_id)
        self._sessions.delete(session_id)

    # What guests say

    def settle(self, row: SessionRow, vm: VmRecord) -> SessionRow:
        """The row, or what becomes of it once its VM has ended or booted anew."""
        if row.is_open and row.id not in self._starting and (why := find_loss(row, vm)):
            return self._write(row, lose(row, why, utc_now()))
        return row

    def learn(self, vm_id: str, info: SessionInfo) -> None:
        """A guest speaks of its own sessions only. One may have ended and given way before its end could be told."""
        row = self._sessions.find(info.id)
        if row is None or row.vm_id != vm_id:
            return
        if info.state == "removed" and row.is_open and row.id not in self._starting:
            self.lose(row, FORGOTTEN)
        else:
            self._write(row, learn(row, info))

    def list_due(self, vm_id: str) -> frozenset[str]:
        """Those that a guest which is asked now must know."""
        return frozenset(row.id for row in self.list_open(vm_id) if row.id not in self._starting)

    def compare(self, vm_id: str, boot_id: str, known: Iterable[SessionInfo], due: Set[str]) -> None:
        """All that the guest knew, in its present boot, when it was asked; `due` were to be among them."""
        infos = {info.id: info for info in known}
        for row in self.list_open(vm_id):
            if row.boot_id in ("", boot_id) and row.id in infos:
                self._write(row, learn(row, infos[row.id]))
            elif row.id in due:
                self._write(row, miss(row, boot_id, utc_now()))

    def lose(self, row: SessionRow, why: str) -> SessionRow:
        return self._write(row, lose(row, why, utc_now()))

    def list_surplus(self, vm_id: str) -> Sequence[SessionRow]:
        """Those that have ended so long ago that they are not kept."""
        ended = [row for row in self._sessions.list(vm_id) if not row.is_open]
        return sorted(ended, key=lambda row: row.ended_at)[: max(0, len(ended) - ENDED_KEPT)]

    def _write(self, before: SessionRow, after: SessionRow) -> SessionRow:
        """What a guest says is worth no failure of who asked something else."""
        if after == before:
            return before
        try:
            self._sessions.save(after)
        except Problem as problem:
            why = problem.brief
            _log.warning("a session's state is not written down", extra={"session": after.id, "why": why})
        if after.state is not before.state:
            state = after.state.value
            _log.info("a session has changed", extra={"session": after.id, "vm": after.vm_id, "state": state})
        return after
