"""The tables of VMs and of operations."""

import sqlite3
from collections.abc import Sequence

import msgspec

from banger.base.problem import Code, Outcome, Problem
from banger.model.operation import Operation, Selection
from banger.model.vm import VmRecord
from banger.store.table import Table, encode, transaction, with_reserve

_ANY = Selection()


class SqliteVms(Table):
    """Implements store.contract.VmRepository."""

    @with_reserve
    def insert(self, vm: VmRecord) -> None:
        try:
            with transaction(self._connection, self._path):
                self._connection.execute(
                    "INSERT INTO vms (id, name, state, record) VALUES (?, ?, ?, ?)",
                    (vm.id, vm.name, vm.state.value, encode(vm)),
                )
        except Problem as problem:
            self._explain_taken(vm, problem)
            raise

    @with_reserve
    def save(self, vm: VmRecord) -> None:
        try:
            with transaction(self._connection, self._path):
                cursor = self._connection.execute(
                    "UPDATE vms SET name = ?, state = ?, record = ? WHERE id = ?",
                    (vm.name, vm.state.value, encode(vm), vm.id),
                )
                assert cursor.rowcount == 1, f"VM {vm.id} has no row"
        except Problem as problem:
            self._explain_taken(vm, problem)
            raise

    def find(self, vm_id: str) -> VmRecord | None:
        rows = self.rows("SELECT record FROM vms WHERE id = ?", vm_id)
        return self.decode(rows[0][0], VmRecord) if rows else None

    def list(self) -> Sequence[VmRecord]:
        return [
            self.decode(record, VmRecord) for (record,) in self.rows("SELECT record FROM vms ORDER BY name")
        ]

    @with_reserve
    def delete(self, vm_id: str) -> None:
        with transaction(self._connection, self._path):
            self._connection.execute("DELETE FROM vms WHERE id = ?", (vm_id,))

    def _explain_taken(self, vm: VmRecord, problem: Problem) -> None:
        """Raises `already_exists` when a constraint of uniqueness was the cause."""
        if not isinstance(problem.__cause__, sqlite3.IntegrityError):
            return
        for (holder,) in self.rows("SELECT id FROM vms WHERE name = ? OR id = ?", vm.name, vm.id):
            raise Problem(
                Code.ALREADY_EXISTS,
                f"a VM named {vm.name} exists already (id {holder})",
                hint=f"use another name, or: banger vm delete {vm.name}",
                outcome=Outcome.NOT_STARTED,
            ) from problem.__cause__


class SqliteOperations(Table):
    """Implements store.contract.OperationRepository."""

    @with_reserve
    def save(self, operation: Operation) -> None:
        with transaction(self._connection, self._path):
            self._connection.execute(
                "INSERT INTO operations (id, state, kind, subject, ended_at, record) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET state = excluded.state, subject = excluded.subject,"
                " ended_at = excluded.ended_at, record = excluded.record",
                (
                    operation.id,
                    operation.state.value,
                    operation.kind,
                    operation.subject,
                    operation.finished_at,
                    encode(operation),
                ),
            )

    def find(self, operation_id: str) -> Operation | None:
        rows = self.rows("SELECT record FROM operations WHERE id = ?", operation_id)
        return self.decode(rows[0][0], Operation) if rows else None

    def list(self, limit: int | None, selection: Selection = _ANY) -> Sequence[Operation]:
        states = msgspec.json.encode(selection.states).decode() if selection.states is not None else None
        rows = self.rows(
            "SELECT record FROM operations"
            " WHERE (?1 IS NULL OR state IN (SELECT value FROM json_each(?1)))"
            " AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR subject = ?3)"
            " ORDER BY sequence DESC LIMIT ?4",
            states,
            selection.kind,
            selection.subject,
            -1 if limit is None else limit,
        )
        return [self.decode(record, Operation) for (record,) in rows]

    @with_reserve
    def prune(self, keep: int, before: str) -> None:
        with transaction(self._connection, self._path):
            self._connection.execute(
                "DELETE FROM operations WHERE state != 'running' AND ("
                " ended_at < ? OR state != 'unknown' AND sequence <= ("
                "  SELECT sequence FROM operations WHERE state NOT IN ('running', 'unknown')"
                "  ORDER BY sequence DESC LIMIT 1 OFFSET ?))",
                (before, keep),
            )
