"""Commits on the disk soon after they are made, for hosts that lose their power.

Owns a thread and a descriptor of the write-ahead log. Nobody waits for it: a commit takes microseconds and is safe from
the daemon's death at once, and from the host's a moment later. Without it the kernel would take up to half a minute, in
which a new VM could be lost whose guest has long synchronized its own data. Commits that come meanwhile share the next
turn.
"""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_log = logging.getLogger(__name__)


class LogSync:
    """Of a database that is open: SQLite has made the log by then, and keeps the file as long as it is open."""

    def __init__(self, database: Path) -> None:
        self._file = os.open(f"{database}-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-sync")
        self._is_due = False

    def request(self) -> None:
        """After a commit; returns at once."""
        if not self._is_due:
            self._is_due = True
            self._thread.submit(self._sync)

    def close(self) -> None:
        """What was committed is on the disk then. Idempotent."""
        self._thread.shutdown()
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _sync(self) -> None:
        self._is_due = False  # before: what is committed from here on needs a turn of its own
        try:
            os.fdatasync(self._file)
        except OSError as error:
            _log.warning("the database's log is not on the disk yet", extra={"why": error.strerror})
