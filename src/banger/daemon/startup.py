"""What must hold before the daemon serves: private directories, and no other daemon on them.

Owns the lock files. They are never removed: a removed lock file can be locked by two. A holder writes into them its
pid and where it listens.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from banger.base.files import ensure_private_directory, refuse_links, verify_private_directory
from banger.base.paths import Paths
from banger.base.problem import Problem, bad_request, conflict, unavailable

SUN_PATH_BYTES = 107  # unix(7); the last of 108 is zero
_VM_SOCKET_BYTES = len("/vms/0123456789ab/firecracker.sock")  # longer than any name that a VMM uses there


def ensure_directories(paths: Paths) -> None:
    """Runtime and state, 0700 and ours. Raises `unauthorized`, and `unavailable` where they cannot be made. All are
    looked at before one is made."""
    verify_socket_room(paths, len("/daemon.sock"))
    refuse_links(Path(paths.runtime))
    for directory in (paths.runtime, paths.state, paths.data, paths.cache):
        verify_private_directory(Path(directory))
    for directory in (paths.runtime, paths.state):
        ensure_private_directory(Path(directory))


def verify_socket_room(paths: Paths, name_bytes: int = _VM_SOCKET_BYTES) -> None:
    """For names of that length, which is a VM's longest. Without, bind(2) would say so in the midst of a start."""
    excess = len(os.fsencode(paths.runtime)) + name_bytes - SUN_PATH_BYTES
    if excess > 0:
        raise bad_request(
            f"the runtime directory {paths.runtime} is {excess} bytes too long for sockets",
            hint=f"export BANGER_RUNTIME_DIR=/tmp/banger-{os.getuid()}",
        )


@contextmanager
def hold_lock(path: Path, socket: str) -> Iterator[None]:
    """The right to be the daemon of these directories. The kernel releases it however the process ends.

    Raises `conflict` with the other daemon's pid; `unavailable` where that listens elsewhere than at `socket`, so that
    trying again would not help, with the way there.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unavailable(f"cannot use the lock {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _explain(_find_holder(descriptor), _read_record(descriptor), socket) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(f"{os.getpid()}\n{socket}\n"), 0)
        yield
    finally:
        os.close(descriptor)


def _find_holder(descriptor: int) -> str:
    """The pid of who holds the lock, as the kernel has it (proc_locks(5)). What the file says may be of an earlier
    holder, for it is written when the lock is held; it is read where the kernel knows the file by another device."""
    file = os.fstat(descriptor)
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            match line.split():
                case [_, "FLOCK", _, _, pid, found, *_] if found == place and pid.isdecimal():
                    return pid
    return _read_record(descriptor).pid or "unknown"


class _Record(NamedTuple):
    """What a holder has written into the lock file."""

    pid: str = ""
    socket: str = ""


def _read_record(descriptor: int) -> _Record:
    lines = os.pread(descriptor, 4096, 0).decode("utf-8", "replace").splitlines()
    return _Record(*(line.strip() for line in lines[:2]))


def _explain(pid: str, record: _Record, socket: str) -> Problem:
    """Words of an earlier holder, or of a daemon that is just beginning, say nothing about where this one listens."""
    if record.pid != pid or record.socket in ("", socket):
        return conflict(f"another daemon runs (pid {pid})", hint="banger daemon status")
    runtime = Path(record.socket).parent
    in_xdg = runtime.name == "banger" and "BANGER_RUNTIME_DIR" not in os.environ
    way = f"XDG_RUNTIME_DIR={runtime.parent}" if in_xdg else f"BANGER_RUNTIME_DIR={runtime}"
    return unavailable(
        f"another daemon of yours runs (pid {pid}) and listens at {record.socket}, not at {socket}",
        hint=f"export {way}",
    )


class Herald:
    """Tells whoever started the daemon that it is ready, or why it is not: one JSON line, once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell_ready(self, socket: str) -> None:
        self._tell({"ready": True, "socket": socket})

    def tell_problem(self, problem: Problem) -> bool:
        """False when nobody listens (any more)."""
        return self._tell({"error": problem.as_data()})

    def _tell(self, message: dict[str, Any]) -> bool:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return False
        try:
            os.write(descriptor, msgspec.json.encode(message) + b"\n")
        except OSError:  # whoever started us has left, or named no descriptor
            return False
        finally:
            with suppress(OSError):
                os.close(descriptor)
        return True
