"""Looking into a database without opening it as a store does: nothing is migrated, mended or written.

A file in WAL mode cannot be read without its shared memory, which a reader makes where it is missing
(https://www.sqlite.org/wal.html, "Read-Only Databases"). So what no daemon has open is looked at as a copy.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from banger.base.problem import unavailable
from banger.model.vm import VmRecord
from banger.store.migration import find_missing, read_migrations
from banger.store.table import translate_errors

_BUSY_TIMEOUT_S = 1.0


class Examination(NamedTuple):
    """`pending` is how many migrations the next start applies; `newest` the latest moment that any row names."""

    size_bytes: int
    schema: int
    pending: int
    vms: Sequence[VmRecord]
    newest: str


def examine(path: Path, *, live: bool) -> Examination | None:
    """None where there is no database. Raises `unavailable` for one that is damaged, newer than this program or not
    ours to read. `live`: this process has it open, and then nobody may open and close the file itself, as that would
    drop SQLite's locks (fcntl(2))."""
    if not path.exists():
        return None
    size_bytes = sum(file.stat().st_size for file in _files(path) if file.exists())
    with translate_errors(path), _readable(path, live=live) as file:
        address = f"{file.as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_TIMEOUT_S)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise unavailable(
                    f"the database {path} is damaged: {verdict}",
                    hint=f"mv {path} {path}.damaged",
                )
            migrations = read_migrations()
            missing = find_missing(connection, migrations, path)
            vms = [] if len(missing) == len(migrations) else _read_vms(connection, path)
            newest = max((vm.updated_at for vm in vms), default="")
    return Examination(size_bytes, len(migrations) - len(missing), len(missing), vms, newest)


def _files(path: Path) -> tuple[Path, Path]:
    return path, path.with_name(path.name + "-wal")


@contextmanager
def _readable(path: Path, *, live: bool) -> Iterator[Path]:
    if live:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="banger-") as place:
        for file in _files(path):
            if file.exists():
                try:
                    shutil.copyfile(file, Path(place) / file.name)
                except OSError as error:
                    raise unavailable(
                        f"{file} cannot be read: {error.strerror}", hint=f"ls -l {file}"
                    ) from error
        yield Path(place) / path.name


def _read_vms(connection: sqlite3.Connection, path: Path) -> Sequence[VmRecord]:
    try:
        return [
            msgspec.json.decode(record, type=VmRecord)
            for (record,) in connection.execute("SELECT record FROM vms ORDER BY name")
        ]
    except msgspec.DecodeError as error:
        raise unavailable(
            f"the database {path} is damaged: a record is not understood: {error}",
            hint=f"mv {path} {path}.damaged",
        ) from error
