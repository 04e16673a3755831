"""Numbered changes of the schema: each runs once, in its transaction, and is never edited afterwards.

Owns the table `migrations`, which records number and checksum of what has been applied.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from banger.base.problem import unavailable

_DIRECTORY = Path(__file__).parent / "migrations"


class Migration(NamedTuple):
    number: int
    name: str
    script: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.script.encode()).hexdigest()


def read_migrations(directory: Path = _DIRECTORY) -> list[Migration]:
    """`NNNN_name.sql`, numbered from 1 without gaps."""
    migrations = []
    for path in sorted(directory.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        migrations.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    assert [migration.number for migration in migrations] == list(range(1, len(migrations) + 1))
    return migrations


def apply_migrations(connection: sqlite3.Connection, migrations: Sequence[Migration], path: Path) -> None:
    """Applies what is missing. Raises `unavailable` when the file knows migrations that we do not."""
    for migration in find_missing(connection, migrations, path):
        _apply(connection, migration)


def find_missing(
    connection: sqlite3.Connection, migrations: Sequence[Migration], path: Path
) -> list[Migration]:
    """What has not been applied yet. Raises `unavailable` when the file knows migrations that we do not."""
    applied = _read_applied(connection)
    known = {migration.number: migration for migration in migrations}
    for number, checksum in applied.items():
        if number not in known:
            raise unavailable(
                f"the database {path} is newer than this banger (schema {number}, here {len(known)})",
                hint="python3 -m pip install --upgrade banger",
            )
        if known[number].checksum != checksum:
            raise unavailable(
                f"the database {path} was made by another build of banger (migration {number} differs)",
                hint=f"mv {path} {path}.other",
            )
    return [migration for migration in migrations if migration.number not in applied]


def _read_applied(connection: sqlite3.Connection) -> dict[int, str]:
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migrations'").fetchone():
        return {}
    return dict(connection.execute("SELECT number, checksum FROM migrations ORDER BY number"))


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations ("
            " number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,"
            " applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))) STRICT"
        )
        for statement in _split(migration.script):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO migrations (number, name, checksum) VALUES (?, ?, ?)",
            (migration.number, migration.name, migration.checksum),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _split(script: str) -> Iterator[str]:
    """Single statements: executescript(3) of Python would commit the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), "a migration's last statement has no end"
