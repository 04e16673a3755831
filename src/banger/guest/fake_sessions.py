"""The sessions of the fake guest: real processes of the host, on real pipes and terminals, outliving connections.

What it does not do: other users, limits of memory. Whoever makes sessions ends them by `lose_all`, as the end of a
guest does.
"""

import asyncio
import errno
import fcntl
import os
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from banger.base.process import clean_environment
from banger.guest.command import ExitStatus
from banger.guest.fake_session_log import Bell, Log
from banger.guest.frames import Stream
from banger.guest.session_records import SessionInfo, SessionState

_READ_BYTES = 65536
_LINGER_S = 1.0
_GROUP_LOOK_S = 0.02
_BACKLOG_BYTES = 262144


class Spec(NamedTuple):
    """What a session is made of: all was looked up and checked."""

    id: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    tags: tuple[tuple[str, str], ...]
    scrollback_bytes: int
    pty: bool
    stdin: bool
    merge_stderr: bool
    rows: int
    columns: int


class FakeSession:
    """One session. Begins by `start`; `bell` is rung at each change and at each output."""

    def __init__(self, spec: Spec, bell: Bell) -> None:
        self.spec = spec
        self.log = Log(spec.scrollback_bytes)
        self.bell = bell
        self.revision = 0
        self.readers = 0
        self.writer: object | None = None
        self.pending = bytearray()
        self.is_removed = False
        self._state: SessionState = "running"
        self._rows, self._columns = spec.rows, spec.columns
        self._outputs: dict[int, Stream] = {}
        self._input = -1
        self._closes_input = False
        self._stop_at: float | None = None
        self._started_ns = time.time_ns()
        self._ended_ns: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def info(self) -> SessionInfo:
        process = self._get_process()
        status = process.returncode if self.is_over else None
        ended = None
        if status is not None:
            ended = ExitStatus(status, None) if status >= 0 else ExitStatus(None, -status)
        return SessionInfo(
            self.spec.id,
            "removed" if self.is_removed else self._state,
            process.pid,
            ended,
            self.log.begin,
            self.log.end,
            self._started_ns,
            self._ended_ns,
            self.spec.pty,
            self._rows,
            self._columns,
            self.writer is not None,
            self.readers,
            self.takes_input,
            self.spec.tags,
        )

    @property
    def is_over(self) -> bool:
        return self._ended_ns is not None

    @property
    def takes_input(self) -> bool:
        return self._input >= 0 and not self._closes_input

    def start(self) -> None:
        """Raises OSError when the command cannot begin."""
        spec = self.spec
        if spec.pty:
            ours, theirs = os.openpty()
            self._input, self._outputs = os.dup(ours), {ours: Stream.STDOUT}
            self._set_size()
            ends: tuple[int, int, int] = (theirs, theirs, theirs)
        else:
            pipe = subprocess.PIPE
            ends = (
                pipe if spec.stdin else subprocess.DEVNULL,
                pipe,
                subprocess.STDOUT if spec.merge_stderr else pipe,
            )
        try:
            self._process = subprocess.Popen(
                spec.argv,
                cwd=spec.cwd,
                env=clean_environment(spec.env) | ({"TERM": "xterm-256color"} if spec.pty else {}),
                stdin=ends[0],
                stdout=ends[1],
                stderr=ends[2],
                start_new_session=True,
                preexec_fn=_take_terminal if spec.pty else None,  # noqa: PLW1509 (a test's process)
            )
        except OSError:
            self._close_all()
            raise
        finally:
            if spec.pty:
                os.close(theirs)
        self._adopt_pipes()
        self._task = asyncio.create_task(self._run(), name=f"fake session {spec.id}")

    def _adopt_pipes(self) -> None:
        process = self._get_process()
        if process.stdin:
            self._input = os.dup(process.stdin.fileno())
        for pipe, stream in ((process.stdout, Stream.STDOUT), (process.stderr, Stream.STDERR)):
            if pipe:
                self._outputs[os.dup(pipe.fileno())] = stream
        for file in (process.stdin, process.stdout, process.stderr):
            if file:
                file.close()
        loop = asyncio.get_running_loop()
        for fd in self._outputs:
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._read, fd)
        if self._input >= 0:
            os.set_blocking(self._input, False)

    def _get_process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def changed(self) -> None:
        self.revision += 1
        self.bell.ring()

    # Output

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose last user is gone says EIO
            data = b""
        if data:
            self.log.append(self._outputs[fd], data)
        else:
            self._close_output(fd)
        self.bell.ring()

    def _close_output(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        del self._outputs[fd]
        os.close(fd)

    # Input

    def give(self, data: bytes) -> None:
        """Kept until the command takes it. Dropped when it never will."""
        if self._input >= 0:
            self.pending += data
            asyncio.get_running_loop().add_writer(self._input, self._feed)

    @property
    def is_full(self) -> bool:
        return len(self.pending) > _BACKLOG_BYTES

    def _feed(self) -> None:
        try:
            del self.pending[: os.write(self._input, self.pending)]
        except BlockingIOError:
            return
        except OSError:
            self._close_input()
            return
        if not self.pending:
            asyncio.get_running_loop().remove_writer(self._input)
            if self._closes_input:
                self._close_input()
        self.bell.ring()

    def end_input(self) -> None:
        """What EOF means: on a terminal a key, on a pipe its end."""
        if self._input < 0:
            return
        if self.spec.pty:
            settings = termios.tcgetattr(self._input)
            if settings[3] & termios.ICANON:
                self.give(settings[6][termios.VEOF])
            return
        self._closes_input = True
        if not self.pending:
            self._close_input()
        self.changed()

    def _close_input(self) -> None:
        if self._input >= 0:
            asyncio.get_running_loop().remove_writer(self._input)
            os.close(self._input)
            self._input = -1
            self.pending.clear()
            self.changed()

    # What is done to it

    def kill(self, number: int) -> None:
        if self.is_over:
            raise OSError(errno.ESRCH, "the session has ended")
        with suppress(ProcessLookupError):
            os.killpg(self._get_process().pid, number)

    def resize(self, rows: int, columns: int) -> None:
        if self.is_over:
            raise OSError(errno.ESRCH, "the session has ended")
        if not self.spec.pty:
            raise OSError(errno.ENOTTY, "the session has no terminal")
        self._rows, self._columns = rows, columns
        self._set_size()
        self.changed()

    def _set_size(self) -> None:
        if self._input >= 0:
            fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", self._rows, self._columns, 0, 0))

    def stop(self, grace_s: float) -> None:
        if self.is_over:
            return
        at = time.monotonic() + grace_s
        self._stop_at = at if self._stop_at is None else min(self._stop_at, at)
        if self._state == "running":
            self._state = "stopping"
            self.kill(signal.SIGTERM)
        self.changed()

    async def _run(self) -> None:
        """To the end: of the command, of a stop's grace for what it leaves behind, of its output."""
        process = self._get_process()
        while process.poll() is None or (self._stop_at is not None and _group_lives(process.pid)):
            if self._stop_at is not None and time.monotonic() >= self._stop_at:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.to_thread(process.wait)
                break
            await asyncio.sleep(_GROUP_LOOK_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while self._outputs:
                    await self.bell.wait()
        self._finish()

    def _finish(self) -> None:
        for fd in list(self._outputs):
            self._read(fd)
        self._close_all()
        self._state = "stopped" if self._stop_at is not None else "exited"
        self._ended_ns = time.time_ns()
        self.changed()

    def _close_all(self) -> None:
        for fd in list(self._outputs):
            self._close_output(fd)
        self._close_input()

    def lose(self) -> None:
        """The guest is gone."""
        if self._task is not None and not self.is_over:
            self._task.cancel()
            with suppress(ProcessLookupError):
                os.killpg(self._get_process().pid, signal.SIGKILL)
            self._get_process().wait()
            self._finish()


class FakeSessionTable:
    """All sessions of one fake guest. The limit may be changed by tests."""

    def __init__(self) -> None:
        self.by_id: dict[str, FakeSession] = {}
        self.bell = Bell()
        self.removed: list[SessionInfo] = []
        self.limit = 128

    def make_room(self) -> bool:
        """False when all run."""
        if len(self.by_id) < self.limit:
            return True
        ended = next((session for session in self.by_id.values() if session.is_over), None)
        if ended is not None:
            self.forget(ended)
        return ended is not None

    def forget(self, session: FakeSession) -> None:
        del self.by_id[session.spec.id]
        session.is_removed = True
        self.removed.append(session.info)
        self.bell.ring()

    def lose_all(self) -> None:
        """As the end of a guest does: every command is killed, nothing is remembered."""
        sessions, self.by_id = self.by_id, {}
        for session in sessions.values():
            session.lose()
            session.is_removed = True
        self.removed.clear()
        self.bell.ring()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
