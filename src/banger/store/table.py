"""A table of the database: one transaction a change, errors as Problems, and a second try where the disk is full."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from banger.base.problem import Code, Outcome, Problem, conflict, unavailable
from banger.store.durability import LogSync
from banger.store.reserve import Reserve

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_LOG_PAGES = 1000  # as SQLite itself does
_SHORT_LOG_PAGES = 16

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


def damaged(path: Path, why: str) -> Problem:
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
            raise damaged(path, str(error)) from error
        if lacks_room(error):
            raise Problem(
                Code.NO_SPACE,
                f"no space is left for the database {path}",
                hint="banger vm prune --dry-run",
                outcome=Outcome.NOT_STARTED,
            ) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise conflict(f"another process is writing the database {path}") from error
        raise unavailable(f"the database {path} cannot be used: {error}") from error


def lacks_room(error: sqlite3.Error) -> bool:
    """Also for the shared memory of the write-ahead log, which is a file."""
    return not _NO_ROOM.isdisjoint({code := getattr(error, "sqlite_errorcode", 0), code & 0xFF})


@contextmanager
def transaction(connection: Connection, path: Path) -> Iterator[None]:
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


class Table:
    def __init__(self, connection: Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @property
    def connection(self) -> Connection:
        return self._connection

    def rows(self, query: str, *values: Any) -> list[Any]:
        with translate_errors(self._path):
            return self._connection.execute(query, values).fetchall()

    def decode(self, record: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(record, type=kind)
        except ValueError as error:
            raise damaged(self._path, f"a record is not understood: {error}") from error


AnyTable = TypeVar("AnyTable", bound=Table)
Arguments = ParamSpec("Arguments")


def with_reserve(
    write: Callable[Concatenate[AnyTable, Arguments], None],
) -> Callable[Concatenate[AnyTable, Arguments], None]:
    """A method of one transaction that is tried again when it has found no room, with more of it each time."""

    @wraps(write)
    def attempt(table: AnyTable, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> None:
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


def encode(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()
