"""How image work runs its tools: what they say while they run, and what their failures mean.

Owns no state. Adds two things to `base.process.run`: lines of a tool's output as progress, and a full disk
recognised as one.
"""

import asyncio
import os
import re
from collections import deque
from pathlib import Path

from banger.base.problem import Code, Problem
from banger.base.process import Argv, render_failure, run, start_process
from banger.base.progress import Progress

_TAIL_LINES = 8
_FULL_DISK = re.compile(rb"No space left on device|not enough free space|Disk quota exceeded", re.IGNORECASE)
# What the network names is the host's business, not a watcher's.
_ADDRESS = re.compile(r"\b\w+://\S+")


async def run_tool(
    argv: Argv, *, timeout_s: float, cwd: Path | None = None, check: bool = True, tmpdir: Path | None = None
) -> bytes:
    """The tool's stdout. Raises `no_space` when it ran out of disk, else as `run` does."""
    extra_env = None if tmpdir is None else {"TMPDIR": str(tmpdir)}
    done = await run(argv, timeout_s=timeout_s, cwd=cwd, extra_env=extra_env, check=False)
    if check and done.status != 0:
        raise render_problem(argv, done.status, done.stderr)
    return done.stdout


async def run_told(
    argv: Argv, progress: Progress, *, timeout_s: float, tmpdir: Path | None = None, cwd: Path | None = None
) -> None:
    """Runs a tool that talks, each line of its stderr becoming a line of progress."""
    tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
    extra_env = None if tmpdir is None else {"TMPDIR": str(tmpdir)}
    async with start_process(
        argv, cwd=cwd, extra_env=extra_env, stdout=asyncio.subprocess.DEVNULL
    ) as process:
        assert process.stderr is not None
        try:
            async with asyncio.timeout(timeout_s):
                while line := await _read_line(process.stderr):
                    tail.append(line)
                    if told := render_line(line):
                        progress.tell(told)
                status = await process.wait()
        except TimeoutError as error:
            raise Problem(
                Code.OPERATION_FAILED,
                f"{Path(argv[0]).name} did not finish within {timeout_s:.0f} s",
                detail=b"".join(tail).decode("utf-8", "replace").strip(),
            ) from error
    if status != 0:
        raise render_problem(argv, status, b"".join(tail))


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """A line, or what fits of one that is too long; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


def render_line(line: bytes) -> str:
    """A tool's line as people may read it: no `I:` prefix, no addresses, no control characters."""
    text = line.decode("utf-8", "replace").rsplit("\r", 1)[-1].strip().removeprefix("I: ")
    return "".join(c for c in _ADDRESS.sub("…", text) if c.isprintable())


def render_problem(argv: Argv, status: int, stderr: bytes) -> Problem:
    """What went wrong, from a tool's status and its last lines."""
    name = Path(argv[0]).name
    detail = render_failure(argv, status, stderr)
    if _FULL_DISK.search(stderr):
        return Problem(
            Code.NO_SPACE, f"the disk is full ({name})", detail=detail, hint="banger image list; df -h"
        )
    return Problem(Code.OPERATION_FAILED, f"{name} failed", detail=detail)


def processors() -> int:
    """How many this process may use: cgroups and affinity count."""
    return len(os.sched_getaffinity(0)) or 1
