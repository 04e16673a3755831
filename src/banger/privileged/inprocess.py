"""The helper's own code inside a daemon that is root itself: development, containers.

Owns one thread, in which all requests run one after the other, and a lock file for the whole host, taken at the first
call: two root daemons would fight over one bridge. Nothing here crosses a boundary of trust.
"""

import asyncio
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from banger.base.problem import Code, Outcome, Problem, conflict
from banger.privileged.calls import close_all, guard_call, verify_reply
from banger.privileged.contract.base import Reply, Request
from banger.privileged.contract.values import Refusal
from banger.privileged.helper.handlers import Handlers

R = TypeVar("R")
_log = logging.getLogger(__name__)

LOCK = Path("/run/banger-root/root.lock")  # an installed helper's, too: one of us has the bridge
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class InProcess:
    """`Privileged` for uid 0."""

    kind = "in-process"

    def __init__(self, lock: Path = LOCK, *, on_thread_start: Callable[[], None] | None = None) -> None:
        """`on_thread_start` runs in the thread before anything else: tests enter a network namespace by it."""
        self._lock_path = lock
        self._held: int | None = None
        self._handlers = Handlers(owner=0, build=self.kind)
        self._thread = ThreadPoolExecutor(1, "root", on_thread_start or (lambda: None))

    async def call(self, request: Request[R], descriptors: Sequence[int] = ()) -> Reply[R]:
        """A cancelled call that has begun goes on to its end; what it brings is closed then."""
        with guard_call(self.kind, request, descriptors):
            self._ensure_lock()
            # A caller that is cancelled closes its own while the thread still looks at them.
            lent = tuple(os.dup(descriptor) for descriptor in descriptors)
            work = self._thread.submit(self._handle, request, lent)
            work.add_done_callback(lambda _: close_all(lent))
            try:
                reply = await asyncio.wrap_future(work)
            except asyncio.CancelledError:
                work.add_done_callback(_close_received)
                raise
            return reply

    async def close(self) -> None:
        """Ends the thread after its last request; takes away what no VM uses, as the helper does when its daemon has
        gone; gives the lock back."""
        try:
            if self._held is not None:
                await asyncio.wrap_future(self._thread.submit(self._release_abandoned))
        finally:
            self._thread.shutdown(wait=False)  # it is idle, or nobody waits for it any more
            if self._held is not None:
                os.close(self._held)
                self._held = None

    def _handle(self, request: Request[R], lent: tuple[int, ...]) -> Reply[R]:
        reply: Reply[R] = self._handlers.handle(request, lent)
        return verify_reply(request, reply)

    def _release_abandoned(self) -> None:
        try:
            self._handlers.release_abandoned()
        except (Refusal, OSError) as error:
            _log.warning("what no VM uses could not be taken away", extra={"why": str(error)})

    def _ensure_lock(self) -> None:
        if self._held is None:
            if not _is_root():
                raise Problem(
                    Code.UNAUTHORIZED,
                    "a daemon that is not root cannot be its own root helper",
                    hint="sudo banger system install",
                    outcome=Outcome.NOT_STARTED,
                )
            self._held = _take_lock(self._lock_path)


def _is_root() -> bool:
    return os.geteuid() == 0


def _close_received(work: "Future[Reply[Any]]") -> None:
    if not work.cancelled() and work.exception() is None:
        close_all(work.result().descriptors)


def _take_lock(path: Path) -> int:
    """Held as long as the descriptor is open. Raises `conflict` with the pid of the daemon that has it."""
    directory = _open_directory(path.parent)
    try:
        lock = os.open(path.name, _OPEN, 0o600, dir_fd=directory)  # who may read it may lock it, too
    except OSError as error:  # ELOOP: a symbolic link
        raise _untrusted(path, os.strerror(error.errno or 0)) from error
    finally:
        os.close(directory)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
    except BlockingIOError:
        holder = os.pread(lock, 16, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise conflict(
            f"another daemon of root's (pid {holder}) has this host's bridge"
            if holder
            else "the root helper has this host's bridge, for its owner",
            hint="banger daemon stop" if holder else "banger system status",
        ) from None
    return lock


def _open_directory(path: Path) -> int:
    with suppress(FileExistsError):
        path.mkdir()
        path.chmod(0o755)  # whatever the umask says
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise _untrusted(path, os.strerror(error.errno or 0)) from error
    state = os.fstat(directory)
    if state.st_uid != os.geteuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(directory)
        raise _untrusted(path, f"belongs to uid {state.st_uid} with mode {stat.S_IMODE(state.st_mode):04o}")
    return directory


def _untrusted(path: Path, why: str) -> Problem:
    return Problem(
        Code.UNAUTHORIZED,
        f"{path} cannot be trusted: {why}",
        hint=f"sudo rm -r {path}",
        outcome=Outcome.NOT_STARTED,
    )
