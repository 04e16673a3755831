"""What must hold before the daemon serves: private directories, and no other daemon on them.

Owns the lock file. It is never removed: a removed lock file can be locked by two.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from banger.base.files import ensure_private_directory
from banger.base.paths import Paths
from banger.base.problem import Problem, conflict, unavailable


def ensure_directories(paths: Paths) -> None:
    """Runtime and state, 0700 and ours. Raises `unauthorized`, or `unavailable` where they cannot be made."""
    for directory in (paths.runtime, paths.state):
        try:
            ensure_private_directory(Path(directory))
        except OSError as error:
            raise unavailable(f"cannot use the directory {directory}: {error.strerror}") from error


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """The right to be the daemon of these directories. The kernel releases it however the process ends.

    Raises `conflict` with the other daemon's pid.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unavailable(f"cannot use the lock {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise conflict(f"another daemon runs (pid {pid})", hint="banger daemon status") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


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
