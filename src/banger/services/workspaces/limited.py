"""git on what a guest has sent: with limits on its memory, its processor time, the size of its files, and its words.

A pack that unpacks to more than it looks like, or to a riddle, ends the git that reads it and nothing else. Owns the
words for what is wrong with it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from banger.base.clock import monotonic
from banger.base.problem import Code, Problem
from banger.base.process import Argv, Completed, get_tool, start_process
from banger.services.workspaces.git import GitPlace, render_argv
from banger.services.workspaces.shell import STALL_S
from banger.services.workspaces.snapshot import defuse

GIT_DIR = "git"
_ERROR_BYTES = 8192
_OUTPUT_BYTES = 256 << 20
_READ_BYTES = 65536
_OPTIONS = (
    "core.bigFileThreshold=16m",  # larger ones are checked as they stream by, not in memory
    "core.packedGitWindowSize=32m",
    "core.packedGitLimit=512m",
    "core.deltaBaseCacheLimit=64m",
    "core.logAllRefUpdates=false",
    "pack.threads=1",
)


class Limits(NamedTuple):
    """What a pull may cost. `unpacked_bytes` is the sum of all objects as they are checked out, `names_bytes` that of
    what git says of changed files. `work_s` is for one look at it, `pull_s` for all of them, the guest's sending
    included."""

    pack_bytes: int = 1 << 30
    objects: int = 1_000_000
    object_bytes: int = 1 << 30
    unpacked_bytes: int = 8 << 30
    memory_bytes: int = 2 << 30
    names_bytes: int = 96 << 20
    work_s: float = 600.0
    stall_s: float = STALL_S
    pull_s: float = 3600.0

    def scaled(self, pack_bytes: int) -> "Limits":
        """For a larger or smaller pack, everything that grows with it."""
        return self._replace(
            pack_bytes=pack_bytes,
            objects=max(self.objects, pack_bytes >> 10),
            object_bytes=max(self.object_bytes, pack_bytes),
            unpacked_bytes=max(self.unpacked_bytes, pack_bytes * 8),
            memory_bytes=max(self.memory_bytes, pack_bytes * 2),
        )


class TooLong(Problem):
    """git says more of it than is read."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(
            Code.OPERATION_FAILED,
            f"the guest sends more names than can be listed, at most {most_bytes >> 20} MiB of them are read",
            hint="banger workspace pull --branch NAME VM",
        )


class LimitedGit:
    """gits in one directory of ours, whose repository is the directory `git` below it."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._place = GitPlace(directory, directory / GIT_DIR)
        self._limits = limits
        self._ends_at = monotonic() + limits.pull_s

    async def run(
        self,
        arguments: Sequence[str],
        stdin: AsyncIterator[bytes],
        *,
        check: bool = True,
        within_s: float | None = None,
        most_bytes: int = _OUTPUT_BYTES,
    ) -> Completed:
        """Runs one to its end, within the time that is left of the pull's. What feeds it may raise, which ends it.
        Raises `operation_failed` when it fails, takes too long or costs too much, `TooLong` when it says more than
        `most_bytes`."""
        allowed_s = self._limits.work_s if within_s is None else within_s
        try:
            async with asyncio.timeout(min(allowed_s, max(0.0, self._ends_at - monotonic()))):
                done = await self._run(arguments, stdin, most_bytes)
        except TimeoutError as error:
            raise Problem(
                Code.OPERATION_FAILED,
                "looking at what the guest sent takes longer than "
                f"{allowed_s:g} s, or all of it than {self._limits.pull_s:g} s",
                hint="banger workspace pull --branch NAME VM",
            ) from error
        if check and done.status != 0:
            raise self._explain(done.status, done.stderr)
        return done

    async def _run(self, arguments: Sequence[str], stdin: AsyncIterator[bytes], most_bytes: int) -> Completed:
        pipe = asyncio.subprocess.PIPE
        argv, environment = self._render(arguments), self._place.environment
        async with start_process(
            argv, cwd=self._place.directory, extra_env=environment, stdin=pipe
        ) as process:
            reading = asyncio.ensure_future(_read_ends(process, most_bytes))
            try:
                await _feed(process, stdin)
                stdout, stderr = await reading
                await process.wait()
            finally:
                reading.cancel()
                await asyncio.wait([reading])
        assert process.returncode is not None
        return Completed(("git", *arguments), process.returncode, stdout, stderr)

    def _render(self, arguments: Sequence[str]) -> Argv:
        limits = self._limits
        return (
            get_tool("prlimit", package="util-linux"),
            f"--as={limits.memory_bytes}",
            f"--fsize={limits.pack_bytes * 2}",
            f"--cpu={int(limits.work_s) + 1}",
            "--core=0",
            *render_argv(get_tool("git", package="git"), arguments, _OPTIONS),
        )

    def _explain(self, status: int, stderr: bytes) -> Problem:
        said = defuse(stderr.decode("utf-8", "replace").strip())
        last = said.splitlines()[-1] if said else ""
        if status < 0 or "out of memory" in said.lower() or "mmap failed" in said:
            return Problem(
                Code.OPERATION_FAILED,
                "what the guest sent takes more memory, time or disk to read than a pull may use",
                detail=last or None,
                hint="banger workspace pull --max-size SIZE VM",
            )
        if "exceeds maximum allowed size" in said:
            return too_much("a larger pack", f"{self._limits.pack_bytes >> 20} MiB")
        if "did not receive expected object" in said or "missing blob" in said or "bad tree object" in said:
            return Problem(
                Code.OPERATION_FAILED,
                "the guest's history is not whole: it names objects that neither the guest nor the host has",
                detail=last or None,
                hint="git fetch --unshallow (in the guest)",
            )
        problem = bad_pack(last.removeprefix("fatal: ").removeprefix("error: ")[:200] or f"status {status}")
        problem.detail = said or None
        return problem


async def _feed(process: asyncio.subprocess.Process, stdin: AsyncIterator[bytes]) -> None:
    """To the end, or until it goes away: why, its stderr says."""
    assert process.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        async for data in stdin:
            process.stdin.write(data)
            await process.stdin.drain()
    process.stdin.close()


async def _read_ends(process: asyncio.subprocess.Process, most_bytes: int) -> tuple[bytes, bytes]:
    """Its stdout, which is not to be too long, and the beginning of its stderr, the rest of which is dropped."""
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = bytearray(), bytearray()

    async def read_answer(reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_READ_BYTES):
            stdout.extend(data)
            if len(stdout) > most_bytes:
                raise TooLong(most_bytes)

    async def read_words(reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_READ_BYTES):
            stderr.extend(data[: _ERROR_BYTES - len(stderr)])

    words = asyncio.ensure_future(read_words(process.stderr))
    try:
        await read_answer(process.stdout)
        await words
    finally:
        words.cancel()
    return bytes(stdout), bytes(stderr)


def bad_pack(why: str) -> Problem:
    return Problem(
        Code.OPERATION_FAILED,
        f"what the guest sent is no sound history: {why}",
        hint="git fsck (in the guest)",
    )


def too_much(what: str, limit: str) -> Problem:
    return Problem(
        Code.OPERATION_FAILED,
        f"the guest sends {what}, at most {limit} is taken",
        hint="banger workspace pull --max-size SIZE VM",
    )
