"""Somebody's own file, changed in place: whole or not at all, its mode and owner kept, links to it followed.

Owns nothing. Refuses what is no regular file, a file of somebody else's whose owner could not be kept, and one that
has changed since it was read.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from banger.client.wire import Failure

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_BYTES_MAX = 16 * 1024 * 1024


class OwnFile:
    """A file as it was read: `content` is None where there is none. `path` is where links have led."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.content: bytes | None = None
        self._found: os.stat_result | None = None
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            self._found = os.fstat(descriptor)
            if not stat.S_ISREG(self._found.st_mode):
                raise Failure("conflict", f"{self.path} is no regular file", hint=f"ls -ld {self.path}")
            if self._found.st_size > _BYTES_MAX:
                raise Failure("conflict", f"{self.path} is larger than 16 MiB", hint=f"ls -l {self.path}")
            self.content = b""
            while part := os.read(descriptor, _BYTES_MAX):
                self.content += part
        finally:
            os.close(descriptor)

    def replace(self, content: bytes, *, mode: int = 0o600) -> None:
        """`mode` is for a file that is new; its directory is made 0700."""
        target = Path(self.path)
        aside = target.with_name(f".{target.name}.banger-{os.getpid()}")
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(aside, _NEW, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            try:
                self._fill(descriptor, content, mode)
            finally:
                os.close(descriptor)
            self._refuse_changed()
            aside.rename(target)
        except OSError as error:
            raise _unusable(self.path, error) from error
        finally:
            with suppress(FileNotFoundError):
                aside.unlink()

    def remove(self) -> None:
        self._refuse_changed()
        try:
            Path(self.path).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unusable(self.path, error) from error

    def _fill(self, descriptor: int, content: bytes, mode: int) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        found = self._found
        if found is not None and (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, found.st_uid, found.st_gid)
        os.fchmod(descriptor, mode if found is None else stat.S_IMODE(found.st_mode))
        os.fsync(descriptor)

    def _refuse_changed(self) -> None:
        try:
            now: os.stat_result | None = Path(self.path).stat()
        except FileNotFoundError:
            now = None
        if _identify(now) != _identify(self._found):
            raise Failure("conflict", f"{self.path} has just been changed by somebody else", hint="try again")


def _identify(found: os.stat_result | None) -> tuple[int, ...] | None:
    return None if found is None else (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _unusable(path: str, error: OSError) -> Failure:
    return Failure("unavailable", f"{path} cannot be changed: {error.strerror}", hint=f"ls -ld {path}")
