"""The store in one SQLite file: WAL, synchronous=NORMAL, one writer, every call one short transaction.

Owns the connection. With NORMAL a power failure may lose the last transactions but never tears the file
(https://www.sqlite.org/pragma.html#pragma_synchronous). A file that is damaged or newer than this program is
refused and left as it is.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from banger.base.problem import Code, Outcome, Problem, conflict, unavailable
from banger.model.operation import Operation, OperationState
from banger.model.vm import VmRecord
from banger.store.migration import Migration, apply_migrations, read_migrations

_BUSY_TIMEOUT_S = 1.0
_MAGIC = b"SQLite format 3\0"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

T = TypeVar("T")


class SqliteStore:
    """Implements store.contract.Store. Open it with `open_store`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._vms = SqliteVms(connection, path)
        self._operations = SqliteOperations(connection, path)

    @property
    def vms(self) -> "SqliteVms":
        return self._vms

    @property
    def operations(self) -> "SqliteOperations":
        return self._operations

    def close(self) -> None:
        self.connection.close()


def open_store(path: Path, *, migrations: Sequence[Migration] | None = None) -> SqliteStore:
    """Opens or makes the database, 0600, and brings its schema up to date.

    Raises `unavailable` for a damaged or newer file, `conflict` when another process writes it, `no_space`.
    """
    with translate_errors(path):
        _prepare_file(path)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _verify(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            apply_migrations(connection, read_migrations() if migrations is None else migrations, path)
        except BaseException:
            connection.close()
            raise
        return SqliteStore(connection, path)


def _prepare_file(path: Path) -> None:
    """Makes it private before SQLite writes to it; the -wal and -shm files take its mode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unavailable(f"cannot open the database {path}: {error.strerror}") from error
    try:
        os.fchmod(descriptor, 0o600)
        beginning = os.pread(descriptor, len(_MAGIC), 0)
    finally:
        os.close(descriptor)
    if beginning and beginning != _MAGIC:
        raise _damaged(path, "file is not a database")


def _verify(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, str(verdict))


def _damaged(path: Path, why: str) -> Problem:
    return unavailable(
        f"the database {path} is damaged",
        hint=f"put a backup in its place, or begin anew: mv {path} {path}.damaged",
        detail=why,
    )


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as Problems."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise _damaged(path, str(error)) from error
        if code == sqlite3.SQLITE_FULL:
            raise Problem(
                Code.NO_SPACE,
                f"no space is left for the database {path}",
                hint="banger vm prune",
                outcome=Outcome.NOT_STARTED,
            ) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise conflict(f"another process is writing the database {path}") from error
        raise unavailable(f"the database {path} cannot be used: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    with translate_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                connection.execute("ROLLBACK")
            raise


class _Table:
    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with translate_errors(self._path):
            return self._connection.execute(query, values).fetchall()

    def _decode(self, record: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(record, type=kind)
        except ValueError as error:
            raise _damaged(self._path, f"a record is not understood: {error}") from error


class SqliteVms(_Table):
    """Implements store.contract.VmRepository."""

    def insert(self, vm: VmRecord) -> None:
        try:
            with _transaction(self._connection, self._path):
                self._connection.execute(
                    "INSERT INTO vms (id, name, state, record) VALUES (?, ?, ?, ?)",
                    (vm.id, vm.name, vm.state.value, _encode(vm)),
                )
        except Problem as problem:
            self._explain_taken(vm, problem)
            raise

    def save(self, vm: VmRecord) -> None:
        try:
            with _transaction(self._connection, self._path):
                cursor = self._connection.execute(
                    "UPDATE vms SET name = ?, state = ?, record = ? WHERE id = ?",
                    (vm.name, vm.state.value, _encode(vm), vm.id),
                )
                assert cursor.rowcount == 1, f"VM {vm.id} has no row"
        except Problem as problem:
            self._explain_taken(vm, problem)
            raise

    def find(self, vm_id: str) -> VmRecord | None:
        rows = self._rows("SELECT record FROM vms WHERE id = ?", vm_id)
        return self._decode(rows[0][0], VmRecord) if rows else None

    def list(self) -> Sequence[VmRecord]:
        return [
            self._decode(record, VmRecord) for (record,) in self._rows("SELECT record FROM vms ORDER BY name")
        ]

    def delete(self, vm_id: str) -> None:
        with _transaction(self._connection, self._path):
            self._connection.execute("DELETE FROM vms WHERE id = ?", (vm_id,))

    def _explain_taken(self, vm: VmRecord, problem: Problem) -> None:
        """Raises `already_exists` when a constraint of uniqueness was the cause."""
        if not isinstance(problem.__cause__, sqlite3.IntegrityError):
            return
        for (holder,) in self._rows("SELECT id FROM vms WHERE name = ? OR id = ?", vm.name, vm.id):
            raise Problem(
                Code.ALREADY_EXISTS,
                f"a VM named {vm.name} exists already (id {holder})",
                hint=f"use another name, or: banger vm delete {vm.name}",
                outcome=Outcome.NOT_STARTED,
            ) from problem.__cause__


class SqliteOperations(_Table):
    """Implements store.contract.OperationRepository."""

    def save(self, operation: Operation) -> None:
        with _transaction(self._connection, self._path):
            self._connection.execute(
                "INSERT INTO operations (id, state, record) VALUES (?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record",
                (operation.id, operation.state.value, _encode(operation)),
            )

    def find(self, operation_id: str) -> Operation | None:
        rows = self._rows("SELECT record FROM operations WHERE id = ?", operation_id)
        return self._decode(rows[0][0], Operation) if rows else None

    def list(self, limit: int) -> Sequence[Operation]:
        rows = self._rows("SELECT record FROM operations ORDER BY sequence DESC LIMIT ?", limit)
        return [self._decode(record, Operation) for (record,) in rows]

    def prune(self, keep: int) -> None:
        running = OperationState.RUNNING.value
        with _transaction(self._connection, self._path):
            self._connection.execute(
                "DELETE FROM operations WHERE state != ? AND sequence <= ("
                " SELECT sequence FROM operations WHERE state != ? ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
                (running, running, keep),
            )


def _encode(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()
