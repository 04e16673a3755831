"""The one place of the daemon where processes begin.

Owns spawning and reaping. Argv tuples only, never a shell; an absolute program; a clean environment;
stdin from /dev/null; always a deadline; TERM, then KILL, then reaped. Failure text holds the command,
its status and the last lines of stderr, never the environment.
"""

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from banger.base.problem import Code, Problem, unavailable

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM_GRACE_S = 3.0
_TAIL_LINES = 8

Argv = tuple[str, ...]


class Completed(NamedTuple):
    argv: Argv
    status: int
    stdout: bytes
    stderr: bytes


def find_tool(name: str) -> Path | None:
    """The tool's absolute path in the system's directories, or None."""
    found = shutil.which(name, path=SEARCH_PATH)
    return Path(found) if found else None


def get_tool(name: str, *, package: str) -> str:
    """The tool's absolute path. Raises `unavailable` with the package that brings it."""
    found = find_tool(name)
    if found is None:
        raise unavailable(f"{name} is not installed", hint=f"sudo apt-get install {package}")
    return str(found)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child gets: a path, a locale, a home, and what the caller names."""
    environment = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
    environment.update(extra or {})
    return environment


def render_failure(argv: Sequence[str], status: int, stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()[-_TAIL_LINES:]
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return "\n".join([f"{shlex.join(argv)} ended with {how}", *lines])


@asynccontextmanager
async def start_process(
    argv: Argv,
    *,
    cwd: Path | None = None,
    extra_env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child in a session of its own that does not outlive the block: TERM, a grace, KILL, reaped."""
    with _translated(argv):
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=clean_environment(extra_env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        try:
            await asyncio.shield(_end_group(process))
        finally:
            # A pipe that nobody has read to its end would stay open until it is collected. There is no public way.
            process._transport.close()  # type: ignore[attr-defined]


def spawn_detached(
    argv: Argv, *, cwd: Path, output: int, pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """A child that may outlive the daemon (a VMM). Who starts it records its identity and reaps it.

    Not asyncio's: its transports kill their child when they are collected. Costs the loop one vfork.
    `output` is a descriptor for both stdout and stderr.
    """
    with _translated(argv):
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )


@contextmanager
def _translated(argv: Argv) -> Iterator[None]:
    assert Path(argv[0]).is_absolute(), argv[0]
    try:
        yield
    except FileNotFoundError as error:
        raise unavailable(f"{argv[0]} is missing", hint="banger doctor") from error
    except PermissionError as error:
        raise unavailable(f"{argv[0]} cannot be executed", hint="banger doctor") from error


async def _end_group(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(TERM_GRACE_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def run(
    argv: Argv,
    *,
    timeout_s: float,
    cwd: Path | None = None,
    extra_env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Runs a tool to its end and returns its output. Raises `operation_failed` on a non-zero status
    (unless `check` is off) and on the deadline; a cancelled caller takes the tool down with it."""
    async with start_process(argv, cwd=cwd, extra_env=extra_env) as process:
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await process.communicate()
        except TimeoutError as error:
            raise Problem(
                Code.OPERATION_FAILED,
                f"{Path(argv[0]).name} did not finish within {timeout_s:.0f} s",
                detail=shlex.join(argv),
            ) from error
        status = process.returncode
    assert status is not None
    if check and status != 0:
        raise Problem(
            Code.OPERATION_FAILED,
            f"{Path(argv[0]).name} failed",
            detail=render_failure(argv, status, stderr),
        )
    return Completed(argv, status, stdout, stderr)


def run_blocking(
    argv: Argv, *, timeout_s: float, cwd: Path | None = None, extra_env: Mapping[str, str] | None = None
) -> Completed:
    """As `run`, for who works in a thread, where no event loop runs."""
    return asyncio.run(run(argv, timeout_s=timeout_s, cwd=cwd, extra_env=extra_env))
