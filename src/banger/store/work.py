"""The tables of what is done inside guests: sessions and workspaces. Their rows go with their VM's."""

import sqlite3
from collections.abc import Sequence

from banger.base.problem import Code, Outcome, Problem
from banger.model.session import SessionRow
from banger.model.workspace import Workspace
from banger.store.table import Table, encode, transaction, with_reserve


class SqliteSessions(Table):
    """Implements store.contract.SessionRepository."""

    @with_reserve
    def save(self, session: SessionRow) -> None:
        try:
            with transaction(self._connection, self._path):
                self._connection.execute(
                    "INSERT INTO sessions (id, vm, name, record) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
                    (session.id, session.vm_id, session.name, encode(session)),
                )
        except Problem as problem:
            raise _explain(session, problem.__cause__) or problem from problem.__cause__

    def find(self, session_id: str) -> SessionRow | None:
        rows = self.rows("SELECT record FROM sessions WHERE id = ?", session_id)
        return self.decode(rows[0][0], SessionRow) if rows else None

    def list(self, vm_id: str | None = None) -> Sequence[SessionRow]:
        rows = self.rows("SELECT record FROM sessions WHERE ?1 IS NULL OR vm = ?1 ORDER BY rowid", vm_id)
        return [self.decode(record, SessionRow) for (record,) in rows]

    @with_reserve
    def delete(self, session_id: str) -> None:
        with transaction(self._connection, self._path):
            self._connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))


class SqliteWorkspaces(Table):
    """Implements store.contract.WorkspaceRepository."""

    @with_reserve
    def save(self, workspace: Workspace) -> None:
        with transaction(self._connection, self._path):
            self._connection.execute(
                "INSERT INTO workspaces (vm, record) VALUES (?, ?)"
                " ON CONFLICT (vm) DO UPDATE SET record = excluded.record",
                (workspace.vm_id, encode(workspace)),
            )

    def find(self, vm_id: str) -> Workspace | None:
        rows = self.rows("SELECT record FROM workspaces WHERE vm = ?", vm_id)
        return self.decode(rows[0][0], Workspace) if rows else None

    def list(self) -> Sequence[Workspace]:
        rows = self.rows("SELECT record FROM workspaces ORDER BY rowid")
        return [self.decode(record, Workspace) for (record,) in rows]

    @with_reserve
    def delete(self, vm_id: str) -> None:
        with transaction(self._connection, self._path):
            self._connection.execute("DELETE FROM workspaces WHERE vm = ?", (vm_id,))


def _explain(session: SessionRow, cause: BaseException | None) -> Problem | None:
    """What a constraint that does not hold says, in words."""
    if not isinstance(cause, sqlite3.IntegrityError):
        return None
    if cause.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return Problem(Code.NOT_FOUND, f"the VM {session.vm_id} is gone", outcome=Outcome.NOT_STARTED)
    return Problem(
        Code.ALREADY_EXISTS,
        f"a session named {session.name} exists already in this VM",
        hint=f"use another --name, or: banger session remove {session.vm_id}/{session.name}",
        outcome=Outcome.NOT_STARTED,
    )
