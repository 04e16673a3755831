"""The removal of a tree that others have filled and may still be filling.

Owns nothing. No link is followed. Each directory is made root's and closed before it is looked into, so whoever still
has it open can add nothing to it; those within are moved up to the top when they are not empty, so that no depth of
nesting costs more than two descriptors. Never crosses into another file system.
"""

import errno
import os
import time
from contextlib import suppress
from itertools import count

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK_AFTER = 256  # entries between two looks at the clock


def remove_tree(parent: int, name: str, deadline: float) -> bool:
    """Whether it is gone at `deadline` (of the monotonic clock); what was removed until then stays removed. Nobody but
    root may be able to write to `parent`."""
    try:
        top = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return True
    try:
        _seize(top)
        removal = _Removal(top, deadline)
        while removal.remove_once():
            if _remove_one(parent, name):
                return True
        return False
    finally:
        os.close(top)


class _Removal:
    def __init__(self, top: int, deadline: float) -> None:
        self._top = top
        self._deadline = deadline
        self._seen = 0
        self._numbers = count()

    def remove_once(self) -> bool:
        """False when time is up. A directory may tell its entries wrongly while they are removed: there may be more."""
        for name in self._remove_plain(self._top):
            directory = os.open(name, _DIRECTORY, dir_fd=self._top)
            try:
                _seize(directory)
                for inner in self._remove_plain(directory):
                    self._lift(directory, inner)
            finally:
                os.close(directory)
            if self._is_late():
                return False
            _remove_one(self._top, name)
        return not self._is_late()

    def _remove_plain(self, directory: int) -> list[str]:
        """Removes all but directories that are not empty, and tells those."""
        full = []
        with os.scandir(directory) as entries:
            for entry in entries:
                self._seen += 1
                if self._seen % _LOOK_AFTER == 0 and self._is_late():
                    break
                if not _remove_one(directory, entry.name):
                    full.append(entry.name)
        return full

    def _lift(self, directory: int, name: str) -> None:
        while True:
            try:
                os.rename(name, f".{next(self._numbers)}", src_dir_fd=directory, dst_dir_fd=self._top)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            else:
                return

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline


def _seize(directory: int) -> None:
    os.fchown(directory, 0, 0)
    os.fchmod(directory, 0o700)


def _remove_one(directory: int, name: str) -> bool:
    """False for a directory that is not empty."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            try:
                os.rmdir(name, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return False
    return True
