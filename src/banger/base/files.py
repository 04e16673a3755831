"""Files written so that a reader never sees half of one, and directories that are ours alone.

Owns no state. Blocking; callers on the event loop use it for small files or through a thread.
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from banger.base.problem import Code, Outcome, Problem, unavailable

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_UNFINISHED = ".*.tmp"
_CHUNK = 1024 * 1024
_SYSTEM_LINKS = (Path("/"), Path("/var"))  # /var/run, and /home where it is elsewhere


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Writes beside the target and renames: a reader sees the old file or the new one."""
    with atomic_file(path, mode=mode) as descriptor:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o600) -> Iterator[int]:
    """A descriptor to write; the file takes its name when the block ends well and vanishes otherwise."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # _UNFINISHED
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def remove_unfinished(directory: Path) -> None:
    """What an `atomic_file` has left in this directory whose process died. Nobody may be at work there."""
    for file in directory.glob(_UNFINISHED):
        file.unlink(missing_ok=True)


def clone_sparse(source: Path, target: Path, *, mode: int = 0o600) -> str:
    """A copy of a disk image: by reflink where the file system can, else data extents only.

    The target must not exist. Returns which way it went: `reflink` or `copy`.
    """
    with source.open("rb") as reader, atomic_file(target, mode=mode) as writer:
        try:
            fcntl.ioctl(writer, _FICLONE, reader.fileno())
            return "reflink"
        except OSError:
            _copy_extents(reader.fileno(), writer)
            return "copy"


def _copy_extents(reader: int, writer: int) -> None:
    size = os.fstat(reader).st_size
    os.ftruncate(writer, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(reader, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(reader, start, os.SEEK_HOLE)
        offset = start
        while offset < end:
            copied = _copy_range(reader, writer, min(_CHUNK, end - offset), offset)
            if copied == 0:
                return
            offset += copied


def _copy_range(reader: int, writer: int, size: int, offset: int) -> int:
    """In the kernel where it can: not between file systems of different kinds (copy_file_range(2))."""
    try:
        return os.copy_file_range(reader, writer, size, offset, offset)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return os.pwrite(writer, os.pread(reader, size, offset), offset)


def ensure_private_directory(path: Path) -> Path:
    """Makes the directory 0700, or verifies that it is ours, private and no symbolic link. Raises `unauthorized`, or
    `unavailable` where it cannot be made."""
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise unavailable(
            f"the directory {path} cannot be made: {error.strerror}", hint=f"ls -ld {find_existing(path)}"
        ) from error
    verify_private_directory(path)
    return path


def verify_private_directory(path: Path) -> None:
    """One that is there, or nothing. Raises `unauthorized`, or `unavailable` where it cannot be written."""
    try:
        state = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unavailable(
            f"the directory {path} cannot be reached: {error.strerror}", hint=f"ls -ld {path.parent}"
        ) from error
    if stat.S_ISLNK(state.st_mode):
        raise _untrusted(path, f"is a symbolic link to {path.readlink()}", f"ls -l {path}")
    if not stat.S_ISDIR(state.st_mode):
        raise _untrusted(path, "is not a directory", f"ls -l {path}")
    if state.st_uid != os.getuid():
        why = f"belongs to uid {state.st_uid}, not to {os.getuid()}"
        raise _untrusted(path, why, f"sudo chown {os.getuid()} {path}")
    if state.st_mode & 0o077:
        why = f"has mode {stat.S_IMODE(state.st_mode):04o}, not 0700"
        raise _untrusted(path, why, f"chmod 700 {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise unavailable(f"the directory {path} cannot be written", hint=f"chmod 700 {path}")


def refuse_links(path: Path) -> None:
    """Raises `unauthorized` for a symbolic link anywhere on the way, but for those of the system, right below / and
    /var: who can change a link decides whose sockets are found behind it."""
    for parent in path.parents:
        if parent.is_symlink() and parent.parent not in _SYSTEM_LINKS:
            raise _untrusted(
                path,
                f"has a symbolic link on the way, {parent}",
                f"export BANGER_RUNTIME_DIR={os.path.realpath(path)}",
            )


def find_existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _untrusted(path: Path, why: str, hint: str) -> Problem:
    return Problem(Code.UNAUTHORIZED, f"{path} {why}", hint=hint, outcome=Outcome.NOT_STARTED)


def free_bytes(path: Path) -> int:
    """Space an ordinary user may still use on the file system that holds `path`."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def allocated_bytes(path: Path) -> int:
    """What the file really takes on disk; 0 when it is gone, or cannot be looked at: one file that is broken must not
    break the sum of all."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def remove_tree(path: Path) -> None:
    """Removes a directory that is wholly ours, or whatever has its name. Symbolic links are removed, never followed."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
