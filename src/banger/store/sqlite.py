"""The store in one SQLite file: WAL, synchronous=NORMAL, one writer, every call one short transaction.

Owns the connection. With NORMAL a power failure may lose the last transactions but never tears the file
(https://www.sqlite.org/pragma.html#pragma_synchronous); `durability` shortens that to the last few milliseconds. A file
that is damaged or newer than this program is refused and left as it is. A commit that finds the disk full is
tried again in the log's own blocks, then with the room of `reserve`: what makes room must be recorded first.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from banger.base.problem import unavailable
from banger.store.durability import LogSync
from banger.store.migration import Migration, apply_migrations, read_migrations
from banger.store.records import SqliteOperations, SqliteVms
from banger.store.remembered import RememberedVms
from banger.store.reserve import Reserve
from banger.store.table import Connection, damaged, lacks_room, translate_errors
from banger.store.work import SqliteSessions, SqliteWorkspaces

_BUSY_TIMEOUT_S = 1.0
_MAGIC = b"SQLite format 3\0"


class SqliteStore:
    """Implements store.contract.Store. Open it with `open_store`."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self.connection = connection
        self._vms = RememberedVms(SqliteVms(connection, path))
        self._operations = SqliteOperations(connection, path)
        self._sessions = SqliteSessions(connection, path)
        self._workspaces = SqliteWorkspaces(connection, path)

    @property
    def vms(self) -> RememberedVms:
        return self._vms

    @property
    def operations(self) -> SqliteOperations:
        return self._operations

    @property
    def sessions(self) -> SqliteSessions:
        return self._sessions

    @property
    def workspaces(self) -> SqliteWorkspaces:
        return self._workspaces

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
            if not lacks_room(error) or not reserve.release():
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
        raise damaged(path, "file is not a database")


def _verify(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, str(verdict))
