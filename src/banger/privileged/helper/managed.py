"""All of the helper's access to files: below a closed list of roots, component by component.

No component may be a symbolic link, empty, `.` or `..`, or hold a slash or NUL. Directories that the helper's socket
lies in must be root's and closed to everybody else.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import PurePosixPath

from banger.privileged.contract.values import Refusal, refuse

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_MODE = 0o755
_SMALL_BYTES = 64 * 1024
_LARGE_BYTES = 4 * 1024 * 1024


class Root(Enum):
    """Where the helper opens files at all. The kernel's, and the system's own run directory and configuration."""

    IPV4 = "/proc/sys/net/ipv4"
    IPV6 = "/proc/sys/net/ipv6"
    PROCESSES = "/proc"
    TUN = "/dev/net"
    DEVICES = "/dev"
    SYSTEMD = "/run/systemd"
    CONFIGURATION = "/etc"


def open_below(root: Root | int, parts: Sequence[str], flags: int) -> int:
    """A descriptor of the file. `root` may be a directory that `open_trusted_directory` has opened. Raises OSError
    (ELOOP or ENOTDIR for a symbolic link, wherever it is) and Refusal."""
    if not parts:
        raise refuse("a path below a root has a component")
    for part in parts:
        _validate_component(part)
    directory = os.dup(root) if isinstance(root, int) else os.open(root.value, _DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = inner
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    finally:
        os.close(directory)


def read_below(root: Root | int, parts: Sequence[str]) -> str:
    descriptor = open_below(root, parts, os.O_RDONLY)
    try:
        return os.read(descriptor, _SMALL_BYTES).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def read_trusted(root: Root, parts: Sequence[str]) -> str:
    """A file that nobody but root can have written, empty when there is none. Raises Refusal for any other, a symbolic
    link included."""
    path = "/".join((root.value, *parts))
    try:
        descriptor = open_below(root, parts, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for its writer
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Refusal(
            "unauthorized", f"{path} cannot be trusted: {error.strerror}", f"ls -l {path}"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        others_write = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != 0 or others_write:
            why = f"uid {state.st_uid}, mode {stat.S_IMODE(state.st_mode):04o}"
            raise Refusal("unauthorized", f"{path} cannot be trusted: {why}", f"ls -l {path}")
        return file.read(_LARGE_BYTES).decode("utf-8", "replace")


def write_below(root: Root, parts: Sequence[str], text: str) -> None:
    descriptor = open_below(root, parts, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def list_names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def exists_below(root: Root, parts: Sequence[str]) -> bool:
    """Whether something that is no symbolic link is there."""
    try:
        os.close(open_below(root, parts, os.O_RDONLY | os.O_NONBLOCK))  # O_PATH would open a link itself
    except OSError:
        return False
    return True


def open_trusted_directory(path: str, *, make: bool = True, hint: str = "choose a directory in /run") -> int:
    """The directory, made (0755) when only its last component is missing; with `make` off FileNotFoundError is raised.
    Raises Refusal for one that somebody other than root could change or replace: not root's, writable by others, a
    symbolic link, or inside such a directory. A sticky directory like /tmp may be on the way, but not be the directory
    itself."""
    pure = PurePosixPath(path)
    if pure.root != "/" or path != str(pure) or not pure.name:
        raise refuse(f"{path!a} is not an absolute path of a directory")
    directory = os.open("/", _DIRECTORY)
    try:
        for depth, part in enumerate(pure.parts[1:], start=2):
            _validate_component(part)
            _verify_trusted(directory, path, hint, sticky_allowed=True)
            inner = _enter(directory, part, path, hint, make=make and depth == len(pure.parts))
            os.close(directory)
            directory = inner
        _verify_trusted(directory, path, hint, sticky_allowed=False)
    except FileNotFoundError as error:
        os.close(directory)
        if make:
            raise _untrusted(path, f"{error.filename} is missing", hint) from error
        raise
    except BaseException:
        os.close(directory)
        raise
    return directory


def open_trusted_program(path: str) -> int:
    """The file, which nobody but root could change or replace, and which can be executed. Raises Refusal, and
    FileNotFoundError."""
    parent, _, name = path.rpartition("/")
    hint = f"ls -ld {path} {parent}"
    directory = open_trusted_directory(parent, make=False, hint=hint)
    try:
        program = open_below(
            directory, (name,), os.O_RDONLY | os.O_NONBLOCK
        )  # a FIFO would wait for its writer
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _untrusted(path, error.strerror or str(error), hint) from error
    finally:
        os.close(directory)
    state = os.fstat(program)
    others_write = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if (
        stat.S_ISREG(state.st_mode)
        and state.st_uid == 0
        and not others_write
        and state.st_mode & stat.S_IXUSR
    ):
        return program
    os.close(program)
    raise _untrusted(path, f"uid {state.st_uid}, mode {stat.S_IMODE(state.st_mode):04o}", hint)


def _enter(directory: int, part: str, path: str, hint: str, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, _DIRECTORY_MODE, dir_fd=directory)
            os.chmod(part, _DIRECTORY_MODE, dir_fd=directory)  # whatever the umask says
    try:
        return os.open(part, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _untrusted(path, f"{part} is a symbolic link or no directory", hint) from error


def _verify_trusted(directory: int, path: str, hint: str, *, sticky_allowed: bool) -> None:
    state = os.fstat(directory)
    if state.st_uid != 0:
        raise _untrusted(path, f"a directory of it belongs to uid {state.st_uid}", hint)
    others_write = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others_write and not (sticky_allowed and state.st_mode & stat.S_ISVTX):
        raise _untrusted(path, f"a directory of it has mode {stat.S_IMODE(state.st_mode):04o}", hint)


def _untrusted(path: str, why: str, hint: str) -> Refusal:
    return Refusal("unauthorized", f"{path} cannot be trusted: {why}", hint)


def _validate_component(part: str) -> None:
    if part in ("", ".", "..") or "/" in part or "\0" in part:
        raise refuse(f"{part!a} is not a component of a path")
