"""One lock for each name, held against other processes and against other tasks of this one.

An flock(2) on a file that is never removed. The kernel releases it when its holder dies, so whoever holds it
may take everything half-made under that name for abandoned.
"""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from banger.base.locks import hold_rank
from banger.base.progress import Progress, stage
from banger.model.ranks import Rank


@asynccontextmanager
async def hold_name(path: Path, progress: Progress, *, waiting: str) -> AsyncIterator[None]:
    """Holds the lock; while another has it, `waiting` is the stage that is shown."""
    with hold_rank(Rank.PUBLICATION, f"the lock of {path.name}"):
        descriptor = _open(path)
        if not _try_lock(descriptor):
            os.close(descriptor)
            with stage(progress, waiting):
                descriptor = await _wait_locked(path)
        try:
            yield
        finally:
            os.close(descriptor)


@contextmanager
def try_hold_name(path: Path) -> Iterator[bool]:
    """Holds the lock if it is free; says whether it was."""
    descriptor = _open(path)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            return False
        raise
    return True


async def _wait_locked(path: Path) -> int:
    """A descriptor with the lock, waited for in a thread of its own.

    flock cannot be interrupted from outside: after a cancel the thread stays until its turn comes and lets go
    at once. It is a daemon thread, because an executor's thread would hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    locked: asyncio.Future[int] = loop.create_future()

    def give(descriptor: int) -> None:
        if locked.done():
            os.close(descriptor)
        else:
            locked.set_result(descriptor)

    def wait() -> None:
        descriptor = _open(path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            loop.call_soon_threadsafe(give, descriptor)
        except RuntimeError:  # the loop is closed: nobody waits any more
            os.close(descriptor)

    threading.Thread(target=wait, name=f"lock {path.name}", daemon=True).start()
    try:
        return await locked
    except asyncio.CancelledError:
        if locked.done() and not locked.cancelled():
            os.close(locked.result())
        raise
