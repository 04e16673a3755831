"""Room on the disk that the database has before it needs it: on a full disk what makes room must still be recorded.

Owns one file of zeros beside the database. It goes when a commit finds no room, and comes back when there is plenty.
"""

import logging
import os
from pathlib import Path

from banger.base.files import free_bytes
from banger.base.units import MIB

SIZE_BYTES = MIB  # a few hundred commits, or all records of operations that are kept
_PLENTY = 8  # times its size: a disk that is about to be full does not see it come and go
_log = logging.getLogger(__name__)


class Reserve:
    def __init__(self, database: Path, size_bytes: int = SIZE_BYTES) -> None:
        self._file = database.with_name(f"{database.name}-reserve")
        self._size_bytes = size_bytes
        self.is_held = self._find()

    def hold(self) -> bool:
        """Takes the room, unless it is there, or there is not plenty. True when it is there then."""
        try:
            if not self.is_held and free_bytes(self._file.parent) >= _PLENTY * self._size_bytes:
                self._take()
        except OSError as error:
            _log.debug("no room is held for the database", extra={"why": error.strerror})
        return self.is_held

    def release(self) -> bool:
        """Gives the room back to the disk. False when there was none."""
        self.is_held = False
        try:
            self._file.unlink()
        except OSError:
            return False
        _log.warning("the disk is full: the database uses its reserve", extra={"file": str(self._file)})
        return True

    def _find(self) -> bool:
        try:
            return self._file.lstat().st_blocks * 512 >= self._size_bytes
        except OSError:
            return False

    def _take(self) -> None:
        """Never half of it: that would pass for all of it where a file system tells no blocks."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._file, flags, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
            self.is_held = True
        finally:
            os.close(descriptor)
            if not self.is_held:
                self._file.unlink()
