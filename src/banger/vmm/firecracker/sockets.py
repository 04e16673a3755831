"""The directory of one VMM's sockets and log, by a descriptor: a place that the VMM itself can write to.

Owns the descriptor. A VMM that its guest has broken into may leave anything in there, a link to somebody else's socket
too, and the daemon has rights that the VMM has not. So nothing is followed: a name is opened as it is, looked at, and
used through that descriptor (open(2), O_PATH). A jail's directory cannot be reached by a path at all.
"""

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DIRECTORY = "s"  # of the VMM's working directory, in a jail and outside
API_SOCKET = "api.sock"
AGENT_SOCKET = "agent.sock"
METRICS = "metrics.fifo"
VMM_LOG = "vmm.log"

_CLOSED = -1
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Kind = Callable[[int], bool]


class Sockets:
    """Every method but `close` raises OSError, once it is closed as well."""

    def __init__(self, descriptor: int, uid: int) -> None:
        """Takes the descriptor over. `uid` is the VMM's, whose sockets alone are connected to."""
        self._descriptor = descriptor
        self._uid = uid

    @classmethod
    def find(cls, directory: Path) -> "Sockets":
        """Of a VMM that runs with our own rights; closed ones when the directory is not there."""
        try:
            descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            descriptor = _CLOSED
        return cls(descriptor, os.geteuid())

    @property
    def directory(self) -> Path:
        """A name for the directory itself, good as long as this is open. Not for names in there that are followed."""
        if self._descriptor == _CLOSED:
            raise FileNotFoundError("the directory of sockets is closed")
        return Path(f"/proc/self/fd/{self._descriptor}")

    async def connect(self, name: str, *, limit: int) -> Stream:
        with self._hold(name, self._uid) as path:
            return await asyncio.open_unix_connection(path, limit=limit)

    def listen(self, name: str, *, mode: int) -> socket.socket:
        """A socket of ours among them, for the VMM to connect to."""
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            listener.bind(str(self.directory / name))
            with self._hold(name, os.geteuid()) as path:
                os.chmod(path, mode)  # noqa: PTH101 (a name of a descriptor)
            listener.listen(1)
        except BaseException:
            listener.close()
            raise
        return listener

    def remove(self, name: str) -> None:
        """Idempotent, also once the directory is closed or gone."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)

    def read_end(self, name: str, size_bytes: int) -> bytes:
        """A file's last bytes."""
        descriptor = self._open(name, stat.S_ISREG)
        try:
            size = os.fstat(descriptor).st_size
            return os.pread(descriptor, size_bytes, max(0, size - size_bytes))
        finally:
            os.close(descriptor)

    def open_pipe(self, name: str) -> int:
        """For reading, without waiting."""
        return self._open(name, stat.S_ISFIFO)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
            self._descriptor = _CLOSED

    def _open(self, name: str, is_kind: Kind) -> int:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=self._descriptor)
        if not is_kind(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(f"{name} is not what it should be")
        return descriptor

    @contextmanager
    def _hold(self, name: str, uid: int) -> Iterator[str]:
        """A path of the socket that has this name now, whatever becomes of the name."""
        descriptor = os.open(name, os.O_PATH | _FLAGS, dir_fd=self._descriptor)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISSOCK(state.st_mode) or state.st_uid != uid:
                raise ConnectionRefusedError(f"{name} is no socket of the VMM's")
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
