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
    from typing import Any

DEADLINE_S = 60.0
INSTALL_RECORD = "/etc/banger/install.json"
_SYSTEM_DOWN = "the daemon that the system runs for you is down"
_LOG_TAIL_BYTES = 2000
_OTHER_STATE = "export XDG_STATE_HOME=$HOME/.local/state"
_OTHER_RUNTIME = "export BANGER_RUNTIME_DIR=$HOME/.banger-run"
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


def look_without_daemon() -> list[dict[str, Any]]:
    """What the doctor finds where no daemon runs, by a process of its own that changes nothing. Raises Failure."""
    return list(_ask_process("banger.daemon.doctor")["findings"])


def check_configuration() -> None:
    """Raises RemoteProblem when a daemon that starts now would refuse its configuration."""
    _ask_process("banger.daemon.configuration")


def _ask_process(module: str) -> dict[str, Any]:
    """What a module of the daemon prints as JSON. Raises RemoteProblem for an error in it, Failure without any."""
    import subprocess

    argv = (sys.executable, "-P", "-m", module)
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(
            "unavailable", f"the checks cannot be made: {error}", hint="banger daemon start"
        ) from error
    if not done.stdout:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise Failure("internal", "the checks ended without an answer", detail="\n".join(tail) or None)
    said = wire.decode_line(done.stdout)
    if "error" in said:
        raise RemoteProblem.from_reply(said)
    return said


def explain_absence() -> str:
    """For people: a daemon that does not run, and what starts it."""
    if (command := _find_system_start()) is not None:
        return f"{_SYSTEM_DOWN}: {command}"
    return "the daemon does not run; it starts when a command needs it"


def _refuse_a_second_daemon() -> None:
    """Where the system runs this user's daemon, one of our own beside it would write to the same database."""
    if (command := _find_system_start()) is not None:
        raise Failure("unavailable", _SYSTEM_DOWN, hint=command)


def find_system_restart() -> str | None:
    """What starts it anew, where it is the system that runs this user's daemon."""
    return None if _find_system_start() is None else "sudo banger system restart"


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
    """The directory of the socket, made with mode 0700; refused if it is anybody else's or open to others, and when a
    link leads to it: who can change that decides whom we talk to."""
    path = places.runtime_directory()
    _refuse_links(path)
    return _ensure_private_directory(path, _OTHER_RUNTIME)


def _ensure_private_directory(path: str, other: str) -> str:
    """`other` is the command that names another one. Raises Failure."""
    try:
        with suppress(FileExistsError):
            Path(path).mkdir(mode=0o700, parents=True)
        found = os.lstat(path)
    except OSError as error:
        raise Failure("unavailable", f"{path} cannot be made: {error.strerror}", hint=other) from error
    if stat.S_ISLNK(found.st_mode):
        raise Failure("unauthorized", f"{path} is a symbolic link to {Path(path).readlink()}", hint=other)
    if not stat.S_ISDIR(found.st_mode):
        raise Failure("unauthorized", f"{path} is not a directory", hint=other)
    if found.st_uid != os.getuid():
        why = f"{path} belongs to uid {found.st_uid}, not to {os.getuid()}"
        raise Failure("unauthorized", why, hint=other)
    if found.st_mode & 0o077:
        why = f"{path} has mode {stat.S_IMODE(found.st_mode):04o} and is open to other users"
        raise Failure("unauthorized", why, hint=f"chmod 700 {path}")
    return path


def _refuse_links(path: str) -> None:
    """As the daemon does (`banger.base.files`): those of the system, right below / and /var, are none to fear."""
    for parent in Path(path).parents:
        if str(parent.parent) not in ("/", "/var") and parent.is_symlink():
            raise Failure(
                "unauthorized",
                f"{path} has a symbolic link on the way, {parent}",
                hint=f"export BANGER_RUNTIME_DIR={os.path.realpath(path)}",
            )


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
    _ensure_private_directory(str(Path(log).parent), _OTHER_STATE)
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
