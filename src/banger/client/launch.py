"""Starts the daemon on demand and waits until it says that it is ready.

The daemon gets the write end of a pipe (`--ready-fd`), writes one line of JSON, `{"ready": true, …}` or
`{"error": {…}}`, and closes it: nobody polls. Starters queue on a lock file, so that of two clients at once
one starts the daemon and the other finds it listening.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import select
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from banger.client import places, wire
from banger.client.wire import Failure, RemoteProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEADLINE_S = 60.0
INSTALL_RECORD = "/etc/banger/install.json"
_SYSTEM_DOWN = "the daemon that the system runs for you is down"
_LOG_TAIL_BYTES = 2000
_RECORD_BYTES_MAX = 1024 * 1024


def daemon_argv() -> tuple[str, ...]:
    """How a daemon is executed. -P keeps the caller's directory from providing modules."""
    return (sys.executable, "-P", "-m", "banger.daemon")


def start_daemon(argv: Sequence[str] | None = None, *, deadline_s: float = DEADLINE_S) -> None:
    """Returns when a daemon listens: the one started here, or one that another client has started meanwhile.

    Raises the daemon's own problem, or Failure when it dies silently or misses the deadline, or when it is the
    system that runs this user's daemon.
    """
    _refuse_a_second_daemon()
    runtime = ensure_runtime_directory()
    with _turn(runtime + "/start.lock"):
        from banger.client.blocking import find_connection

        if (running := find_connection()) is not None:
            running.close()
            return
        ready, told = os.pipe()
        try:
            os.set_inheritable(told, True)
            pid = _spawn((*(argv or daemon_argv()), "--ready-fd", str(told)))
            os.close(told)
            told = -1
            _judge(_read_line(ready, deadline_s, pid), pid)
        finally:
            os.close(ready)
            if told >= 0:
                os.close(told)


def explain_absence() -> str:
    """For people: a daemon that does not run, and what starts it."""
    if (command := _find_system_start()) is not None:
        return f"{_SYSTEM_DOWN}: {command}"
    return "the daemon does not run; it starts when a command needs it"


def _refuse_a_second_daemon() -> None:
    """Where the system runs this user's daemon, one of our own beside it would write to the same database."""
    if (command := _find_system_start()) is not None:
        raise Failure("unavailable", _SYSTEM_DOWN, hint=command)


def _find_system_start() -> str | None:
    """What starts the daemon that the system runs for this user. A runtime directory that is named is somebody's own
    arrangement."""
    if os.environ.get("BANGER_RUNTIME_DIR") or not _is_installed_for(os.getuid()):
        return None
    with_systemd = Path("/run/systemd/system").is_dir()
    return "sudo systemctl start banger" if with_systemd else "sudo banger system restart"


def _is_installed_for(uid: int) -> bool:
    """By the record of `banger system install`. One that cannot be read decides nothing."""
    try:
        with Path(INSTALL_RECORD).open("rb") as record:
            found = wire.decode_json(record.read(_RECORD_BYTES_MAX).decode())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("uid") == uid


def ensure_runtime_directory() -> str:
    """The directory of the socket, made with mode 0700; refused if it is anybody else's or open to others."""
    path = places.runtime_directory()
    try:
        Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(path)
    except OSError as error:
        raise Failure(
            "unavailable", f"{path} cannot be made: {error.strerror}", hint="set BANGER_RUNTIME_DIR"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise Failure("unauthorized", f"{path} is not a directory", hint=f"rm {path}")
    if found.st_uid != os.getuid():
        raise Failure("unauthorized", f"{path} belongs to uid {found.st_uid}", hint="set BANGER_RUNTIME_DIR")
    if found.st_mode & 0o077:
        raise Failure("unauthorized", f"{path} is open to other users", hint=f"chmod 700 {path}")
    return path


@contextmanager
def _turn(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _spawn(argv: tuple[str, ...]) -> int:
    """A daemon in a session of its own, its output appended to the log."""
    log = places.log_path()
    Path(log).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        pid = os.posix_spawn(
            argv[0],
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, writing, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    except OSError as error:
        raise Failure(
            "unavailable", f"the daemon cannot be started: {error}", hint="banger doctor"
        ) from error
    _thread.start_new_thread(_reap, (pid,))
    return pid


def _reap(pid: int) -> None:
    """Waits for the daemon in a thread of its own, for in a program that lives longer it would stay a zombie.

    `_thread`, because it is built in and does not hold up the end of a command line. Not a second fork: the
    caller may have threads (fork(2), NOTES).
    """
    with suppress(ChildProcessError):  # the program ignores SIGCHLD, or reaps whatever there is
        os.waitpid(pid, 0)


def _read_line(descriptor: int, deadline_s: float, pid: int) -> bytes:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    until = time.monotonic() + deadline_s
    line = b""
    while not line.endswith(b"\n"):
        left_ms = (until - time.monotonic()) * 1000
        if left_ms <= 0 or not poll.poll(left_ms):
            raise Failure(
                "unavailable",
                f"the daemon (pid {pid}) is not ready after {deadline_s:.0f} s",
                hint=f"look into {places.log_path()}",
                outcome="unknown",
            )
        received = os.read(descriptor, 65536)
        if not received:
            break
        line += received
    return line


def _judge(line: bytes, pid: int) -> None:
    if not line.endswith(b"\n"):
        log = places.log_path()
        raise Failure(
            "unavailable",
            f"the daemon (pid {pid}) ended before it was ready",
            hint=f"look into {log}",
            detail=_last_lines(log),
        )
    said = wire.decode_line(line)
    if "error" in said:
        problem = RemoteProblem.from_reply(said)
        if problem.code != "conflict":
            raise problem


def _last_lines(path: str) -> str | None:
    """The end of the log, where a daemon that could not even import has left its traceback."""
    try:
        with Path(path).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return None
    return "\n".join(lines[-3:]) or None
