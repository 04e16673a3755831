"""All access to the system's files: component by component, no symbolic link followed, root's own directories only.

Owns no state but the root it works below. Refuses a directory that somebody other than root could change:
who can rename what is in it decides what root runs. Two exceptions, both safe:

- a directory that all may write to with the sticky bit (/tmp): entries there are renamed by their owner only
  (unlink(2), EPERM), and the next component must be root's again;
- one that a group may write to which has no member (Debian's `staff` on /usr/local/lib).
"""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from banger.base.groups import list_members
from banger.client.wire import Failure

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = _READ | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE_BYTES_MAX = 16 * 1024 * 1024


class File(NamedTuple):
    content: bytes
    mode: int
    uid: int


class Tree:
    """Paths are absolute, as the host sees them. `uid` is who counts as root."""

    def __init__(self, root: str = "/", *, uid: int = 0) -> None:
        self._root = root
        self.uid = uid

    def find(self, path: str) -> File | None:
        """A regular file, or None. Raises Failure for anything else of that name, and for a path not to be trusted."""
        with self._parent(path) as (directory, name):
            if directory is None:
                return None
            try:
                descriptor = os.open(name, _READ | os.O_NONBLOCK, dir_fd=directory)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise _unusable(path, error) from error
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise Failure("unauthorized", f"{path} is no regular file", hint=f"ls -ld {path}")
                content = b""
                while len(content) < _FILE_BYTES_MAX and (part := os.read(descriptor, _FILE_BYTES_MAX)):
                    content += part
            finally:
                os.close(descriptor)
            return File(content, stat.S_IMODE(found.st_mode), found.st_uid)

    def write(self, path: str, content: bytes, *, mode: int) -> None:
        """Replaces the file: written aside, synced, renamed. Parents are made. A killed write leaves `.NAME.new`."""
        with self._parent(path, make=True) as (directory, name):
            assert directory is not None
            try:
                self._replace(directory, name, content, mode)
            except OSError as error:
                raise _unusable(path, error) from error

    def _replace(self, directory: int, name: str, content: bytes, mode: int) -> None:
        aside = _aside(name)
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=directory)
        descriptor = os.open(aside, _NEW, 0o600, dir_fd=directory)
        try:
            _write_all(descriptor, content)
            self._own(descriptor, mode)
            os.fsync(descriptor)
            os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(aside, dir_fd=directory)
            raise
        finally:
            os.close(descriptor)
        os.fsync(directory)

    def remove(self, path: str) -> bool:
        """Whether it was there. What a killed write has left of it goes, too."""
        with self._parent(path) as (directory, name):
            if directory is None:
                return False
            try:
                with suppress(FileNotFoundError):
                    os.unlink(_aside(name), dir_fd=directory)
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise _unusable(path, error) from error
            return True

    def remove_empty_directory(self, path: str) -> bool:
        """Whether it has gone; one that holds anything stays."""
        with self._parent(path) as (directory, name):
            if directory is None:
                return True
            try:
                os.rmdir(name, dir_fd=directory)
            except FileNotFoundError:
                return True
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise _unusable(path, error) from error
            return True

    def remove_own_directory(self, path: str) -> bool:
        """Whether it was there. With all that is in it; it must be root's alone. For directories that nobody but us has
        names in."""
        with self._parent(path + "/.") as (directory, _):
            if directory is None:
                return False
        with self._parent(path) as (directory, name):
            shutil.rmtree(name, dir_fd=directory)
            return True

    def ensure_directory(self, path: str) -> None:
        with self._parent(path + "/.", make=True):
            pass

    def give_directory(self, path: str, *, uid: int, gid: int) -> None:
        """A directory of that user's, mode 0700. One that is there must be theirs, or root's (half made)."""
        with self._parent(path, make=True) as (directory, name):
            assert directory is not None
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=directory)
            try:
                descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
            except OSError as error:
                raise _unusable(path, error) from error
            try:
                found = os.fstat(descriptor).st_uid
                if found not in (uid, self.uid):
                    raise Failure("unauthorized", f"{path} belongs to uid {found}", hint=f"ls -ld {path}")
                if found != uid:
                    os.fchown(descriptor, uid, gid)
                os.fchmod(descriptor, 0o700)
            finally:
                os.close(descriptor)

    def open_log(self, path: str) -> int:
        with self._parent(path, make=True) as (directory, name):
            try:
                return os.open(name, _APPEND, 0o600, dir_fd=directory)
            except OSError as error:
                raise _unusable(path, error) from error

    @contextmanager
    def lock(self, path: str) -> Iterator[None]:
        """Of two installations at once the second is refused. The lock is the directory's own: no file is left."""
        with self._parent(path + "/.", make=True) as (directory, _):
            assert directory is not None
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Failure(
                    "conflict",
                    "another banger system command is at work",
                    hint="try again when it has ended",
                ) from error
            yield

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int | None, str]]:
        """(the verified directory that holds the last component, or None if there is none; that component)."""
        *directories, name = path.removeprefix("/").split("/")
        assert path.startswith("/"), path
        assert not {"", ".."} & {*directories, name}, path
        current = self._open_root()
        seen = ""
        try:
            self._verify(current, seen or "/")
            for component in directories:
                seen += "/" + component
                following = self._enter(current, component, seen, make=make)
                if following is None:
                    os.close(current)
                    current = -1
                    break
                os.close(current)
                current = following
                self._verify(current, seen)
            yield (None if current < 0 else current), name
        finally:
            if current >= 0:
                os.close(current)

    def _open_root(self) -> int:
        return os.open(self._root, _DIRECTORY)

    def _enter(self, directory: int, name: str, seen: str, *, make: bool) -> int | None:
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=directory)
                    self._own_new_directory(directory, name)
            return os.open(name, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ENOTDIR and _is_link(directory, name):
                raise Failure(
                    "unauthorized",
                    f"{seen} is a symbolic link; banger follows none as root",
                    hint=f"ls -ld {seen}",
                ) from error
            raise _unusable(seen, error) from error

    def _own_new_directory(self, directory: int, name: str) -> None:
        descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            self._own(descriptor, 0o755)
        finally:
            os.close(descriptor)

    def _own(self, descriptor: int, mode: int) -> None:
        """Root's in group, too (a parent with the set-group-ID bit gives its own), whatever the umask."""
        if os.geteuid() == 0:
            os.fchown(descriptor, self.uid, 0)
        os.fchmod(descriptor, mode)

    def _verify(self, directory: int, shown: str) -> None:
        found = os.fstat(directory)
        if found.st_uid not in (self.uid, 0):
            raise Failure(
                "unauthorized",
                f"{shown} belongs to uid {found.st_uid}, not to root",
                hint=f"sudo chown root:root {shown}",
            )
        if found.st_mode & stat.S_ISVTX:
            return
        if found.st_mode & stat.S_IWOTH:
            raise Failure("unauthorized", f"everybody may write to {shown}", hint=f"sudo chmod o-w {shown}")
        if found.st_mode & stat.S_IWGRP and (members := list_members(found.st_gid)):
            raise Failure(
                "unauthorized",
                f"{members[0]} may write to {shown} as a member of its group",
                hint=f"sudo chmod g-w {shown}",
            )


def _aside(name: str) -> str:
    return f".{name}.new"


def _is_link(directory: int, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _unusable(path: str, error: OSError) -> Failure:
    if error.errno == errno.ELOOP:
        return Failure(
            "unauthorized",
            f"{path} is a symbolic link; banger follows none as root",
            hint=f"ls -ld {path}",
        )
    code = {errno.EACCES: "unauthorized", errno.ENOSPC: "no_space", errno.EDQUOT: "no_space"}
    return Failure(code.get(error.errno or 0, "unavailable"), f"{path}: {error.strerror}", outcome="failed")
