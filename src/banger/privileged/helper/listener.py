"""The helper's socket: 0600, the owner's, in a directory that only root can change; one helper at a time.

The lock file beside it is what says whether a helper runs. A socket without a locked lock is left over and replaced.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from banger.privileged.contract.values import Refusal, refuse
from banger.privileged.helper.managed import open_below, open_trusted_directory

_BACKLOG = 128
_PATH_BYTES_MAX = 107  # unix(7)
_SOCKET_UMASK = 0o177


@contextmanager
def open_listener(path: str, owner: int) -> Iterator[socket.socket]:
    """Listening; removed at the end. Raises Refusal and OSError."""
    pure = PurePosixPath(path)
    if not pure.name or path != str(pure) or len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise refuse(f"{path!a} cannot be a socket's path", f"choose one of at most {_PATH_BYTES_MAX} bytes")
    directory = open_trusted_directory(str(pure.parent))
    try:
        lock = _take_lock(directory, pure)
        try:
            yield from _listen(directory, pure, owner)
        finally:
            os.close(lock)
    finally:
        os.close(directory)


def _listen(directory: int, path: PurePosixPath, owner: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        _remove_stale(directory, path)
        previous = os.umask(_SOCKET_UMASK)
        try:
            listener.bind(str(path))  # nobody but root can have replaced a component meanwhile
        finally:
            os.umask(previous)
        try:
            os.chown(path.name, owner, -1, dir_fd=directory, follow_symlinks=False)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            yield listener
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=directory)


def _remove_stale(directory: int, path: PurePosixPath) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path.name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise Refusal("conflict", f"{path} is not a socket", f"sudo rm {path}")
        os.unlink(path.name, dir_fd=directory)


def _take_lock(directory: int, path: PurePosixPath) -> int:
    lock = open_below(directory, (path.stem + ".lock",), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)  # a daemon of root's that had it before has written its pid
    except BlockingIOError:
        os.close(lock)
        raise Refusal(
            "conflict", f"another root helper serves {path}", "sudo banger system restart"
        ) from None
    return lock
