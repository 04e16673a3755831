"""The store in one SQLite file: WAL, synchronous=NORMAL, one writer, every call one short transaction.

Owns the connection. With NORMAL a power failure may lose the last transactions but never tears the file
(https://www.sqlite.org/pragma.html#pragma_synchronous); `durability` shortens that to the last few milliseconds. A file
that is damaged or newer than this program is refused and left as it is. A commit that finds the disk full is
tried again in the log's own blocks, then with the room of `reserve`: what makes room must be recorded first.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from banger.base.problem import Code, Outcome, Problem, conflict, unavailable
from banger.model.operation import Operation, Selection
from banger.model.vm import VmRecord
from banger.store.durability import LogSync
from banger.store.migration import Migration, apply_migrations, read_migrations
from banger.store.remembered import RememberedVms
from banger.store.reserve import Reserve

_BUSY_TIMEOUT_S = 1.0
_MAGIC = b"SQLite format 3\0"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_LOG_PAGES = 1000  # as SQLite itself does
_SHORT_LOG_PAGES = 16
_ANY = Selection()

T = TypeVar("T")


class Connection(sqlite3.Connection):
    """With what brings its commits to the disk, and what room there is for them."""

    sync: LogSync
    reserve: Reserve

    def hold_reserve(self) -> None:
        if not self.reserve.is_held and self.reserve.hold():
            self._bound_log(_LOG_PAGES)

    def spend_reserve(self) -> None:
        """For the database, which may have to grow. The log would take all of it before it is begun anew."""
        self.reserve.release()
        self._bound_log(_SHORT_LOG_PAGES)
        self.restart_log()

    def restart_log(self) -> None:
        """The next commit writes over the log, in blocks that it has; what it holds moves to the database."""
        with suppress(sqlite3.Error):
            self.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def _bound_log(self, pages: int) -> None:
        self.execute(f"PRAGMA wal_autocheckpoint = {pages}")


class SqliteStore:
    """Implements store.contract.Store. Open it with `open_store`."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self.connection = connection
        self._vms = RememberedVms(SqliteVms(connection, path))
        self._operations = SqliteOperations(connection, path)

    @property
    def vms(self) -> RememberedVms:
        return self._vms

    @property
    def operations(self) -> "SqliteOperations":
        return self._operations

    def close(self) -> None:
        self.connection.sync.close()
        self.connection.close()


def open_store(path: Path, *, migrations: Sequence[Migration] | None = None) -> SqliteStore:
    """Opens or makes the database, 0600, and brings its schema up to date.

    Raises `unavailable` for a damaged or newer file, `conflict` when another process writes it, `no_space`.
    """
    reserve = Reserve(path)
    with translate_errors(path):
        _prepare_file(path)
        steps = read_migrations() if migrations is None else migrations
        try:
            connection = _open(path, steps)
        except sqlite3.OperationalError as error:
            if not _lacks_room(error) or not reserve.release():
                raise
            connection = _open(path, steps)
    connection.reserve = reserve
    if not reserve.hold():
        connection.spend_reserve()
    return SqliteStore(connection, path)


def _open(path: Path, migrations: Sequence[Migration]) -> Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, factory=Connection)
    try:
        _verify(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        apply_migrations(connection, migrations, path)
        connection.sync = LogSync(path)
    except BaseException:
        connection.close()
        raise
    return connection


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
        if _lacks_room(error):
            raise Problem(
                Code.NO_SPACE,
                f"no space is left for the database {path}",
                hint="banger vm prune --dry-run",
                outcome=Outcome.NOT_STARTED,
            ) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise conflict(f"another process is writing the database {path}") from error
        raise unavailable(f"the database {path} cannot be used: {error}") from error


def _lacks_room(error: sqlite3.Error) -> bool:
    """Also for the shared memory of the write-ahead log, which is a file."""
    return not _NO_ROOM.isdisjoint({code := getattr(error, "sqlite_errorcode", 0), code & 0xFF})


@contextmanager
def _transaction(connection: Connection, path: Path) -> Iterator[None]:
    with translate_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                connection.execute("ROLLBACK")
            raise
        connection.sync.request()


class _Table:
    def __init__(self, connection: Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @property
    def connection(self) -> Connection:
        return self._connection

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with translate_errors(self._path):
            return self._connection.execute(query, values).fetchall()

    def _decode(self, record: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(record, type=kind)
        except ValueError as error:
            raise _damaged(self._path, f"a record is not understood: {error}") from error


_AnyTable = TypeVar("_AnyTable", bound=_Table)
_Arguments = ParamSpec("_Arguments")


def _with_reserve(
    write: Callable[Concatenate[_AnyTable, _Arguments], None],
) -> Callable[Concatenate[_AnyTable, _Arguments], None]:
    """A method of one transaction that is tried again when it has found no room, with more of it each time."""

    @wraps(write)
    def attempt(table: _AnyTable, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        for make_room in (table.connection.restart_log, table.connection.spend_reserve):
            try:
                write(table, *arguments, **named)
            except Problem as problem:
                if problem.code is not Code.NO_SPACE:
                    raise
                make_room()
            else:
                table.connection.hold_reserve()
                return
        write(table, *arguments, **named)

    return attempt


class SqliteVms(_Table):
    """Implements store.contract.VmRepository."""

    @_with_reserve
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

    @_with_reserve
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

    @_with_reserve
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

    @_with_reserve
    def save(self, operation: Operation) -> None:
        with _transaction(self._connection, self._path):
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
                    _encode(operation),
                ),
            )

    def find(self, operation_id: str) -> Operation | None:
        rows = self._rows("SELECT record FROM operations WHERE id = ?", operation_id)
        return self._decode(rows[0][0], Operation) if rows else None

    def list(self, limit: int | None, selection: Selection = _ANY) -> Sequence[Operation]:
        states = msgspec.json.encode(selection.states).decode() if selection.states is not None else None
        rows = self._rows(
            "SELECT record FROM operations"
            " WHERE (?1 IS NULL OR state IN (SELECT value FROM json_each(?1)))"
            " AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR subject = ?3)"
            " ORDER BY sequence DESC LIMIT ?4",
            states,
            selection.kind,
            selection.subject,
            -1 if limit is None else limit,
        )
        return [self._decode(record, Operation) for (record,) in rows]

    @_with_reserve
    def prune(self, keep: int, before: str) -> None:
        with _transaction(self._connection, self._path):
            self._connection.execute(
                "DELETE FROM operations WHERE state != 'running' AND ("
                " ended_at < ? OR state != 'unknown' AND sequence <= ("
                "  SELECT sequence FROM operations WHERE state NOT IN ('running', 'unknown')"
                "  ORDER BY sequence DESC LIMIT 1 OFFSET ?))",
                (before, keep),
            )


def _encode(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()
