"""git on the host, as a process that is told to run nothing else: no hooks, filters, pagers, helpers, no network.

Owns the environment and the options of every git that banger runs on the host. Two kinds: one looks at the owner's
repository and writes nothing to it; the other works in a bare directory of ours, reads no configuration but that one's
own, and may borrow the objects of others. No caller gives a shell a word.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from banger.base.problem import Code, Problem, bad_request
from banger.base.process import Argv, Completed, get_tool, render_failure, start_process
from banger.model.returned import show_path

DEADLINE_S = 120.0
HISTORY_BYTES = 512 << 20  # of answers that name each object once, which the repository really has
_ANSWER_BYTES = 128 << 20
_RECORD_BYTES = 1 << 16
_ERROR_BYTES = 1 << 16
_READ_BYTES = 1 << 16
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.pager=cat",
    "core.sshCommand=/bin/false",
    "core.gitProxy=",
    "core.askPass=/bin/false",
    "core.alternateRefsCommand=/bin/false",
    "credential.helper=",
    "protocol.allow=never",
    "uploadpack.packObjectsHook=",
    "gc.auto=0",
    "maintenance.auto=false",
    "diff.external=",
    "log.showSignature=false",
    "core.compression=1",
    "core.looseCompression=1",
    "pack.compression=1",
    "core.bigFileThreshold=64m",
)
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_PAGER": "cat",
    "GIT_ASKPASS": "/bin/false",
    "GIT_EDITOR": "/bin/false",
}
_ALONE = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
_OWNERS_PLACES = ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL")  # git-config(1), Files


class GitPlace(NamedTuple):
    """Where a git works. With `git_dir` it looks for no other repository and reads no other's configuration."""

    directory: Path
    git_dir: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        if self.git_dir is None:
            owners = {name: os.environ[name] for name in _OWNERS_PLACES if name in os.environ}
            return _ENVIRONMENT | owners
        return _ENVIRONMENT | _ALONE | {"GIT_DIR": str(self.git_dir)}


def render_argv(git: str, arguments: Sequence[str], options: Sequence[str] = ()) -> Argv:
    """The command line of a git that runs nothing else. Pure."""
    words = [word for option in (*_OPTIONS, *options) for word in ("-c", option)]
    return (git, "--no-pager", *words, *arguments)


@asynccontextmanager
async def start_git(
    place: GitPlace,
    arguments: Sequence[str],
    *,
    stdin: int | IO[bytes] = asyncio.subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A git whose output is read as it comes; it ends with the block. Raises `unavailable` where there is none."""
    argv = render_argv(get_tool("git", package="git"), arguments)
    async with start_process(
        argv,
        cwd=place.directory,
        extra_env=place.environment | dict(environment or {}),
        stdin=stdin if isinstance(stdin, int) else stdin.fileno(),
    ) as process:
        yield process


async def run_git(
    place: GitPlace,
    arguments: Sequence[str],
    *,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = DEADLINE_S,
    limit_bytes: int = _ANSWER_BYTES,
    check: bool = True,
) -> Completed:
    """Runs a git to its end. Raises `operation_failed` on a status other than 0 (unless `check` is off) and on the
    deadline, `bad_request` when it answers with more than the limit; a cancelled caller takes it down."""
    answer = bytearray()
    talk = _Talk(answer.extend, stdin, limit_bytes)
    done = await _run(place, arguments, talk, environment, timeout_s)
    if check and done.status != 0:
        raise git_failed(done)
    return done._replace(stdout=bytes(answer))


async def read_git(place: GitPlace, arguments: Sequence[str], keep: Callable[[bytes], None]) -> None:
    """Runs a git whose answer is records that end with a NUL, and gives each to `keep` as it comes, which may refuse
    more by raising. Raises as `run_git`."""
    rest = b""

    def split(data: bytes) -> None:
        nonlocal rest
        *records, rest = (rest + data).split(b"\0")
        for record in records:
            keep(record)
        if len(rest) > _RECORD_BYTES:
            raise bad_request("the repository has a path that no system takes", hint="git fsck")

    done = await _run(place, arguments, _Talk(split, None, _ANSWER_BYTES), None, DEADLINE_S)
    if done.status != 0:
        raise git_failed(done)


class _Talk(NamedTuple):
    """What is said to a git, and who hears its answer."""

    hear: Callable[[bytes], None]
    stdin: bytes | None
    limit_bytes: int


async def _run(
    place: GitPlace,
    arguments: Sequence[str],
    talk: _Talk,
    environment: Mapping[str, str] | None,
    timeout_s: float,
) -> Completed:
    pipe = asyncio.subprocess.DEVNULL if talk.stdin is None else asyncio.subprocess.PIPE
    async with start_git(place, arguments, stdin=pipe, environment=environment) as process:
        try:
            async with asyncio.timeout(timeout_s):
                stderr = await _talk_to(process, arguments[0], talk)
        except TimeoutError as error:
            raise Problem(
                Code.OPERATION_FAILED, f"git {arguments[0]} did not finish within {timeout_s:.0f} s"
            ) from error
    assert process.returncode is not None
    return Completed(("git", *arguments), process.returncode, b"", stderr)


async def _talk_to(process: asyncio.subprocess.Process, name: str, talk: _Talk) -> bytes:
    """To its end. Returns the last of its stderr."""
    assert process.stdout is not None
    assert process.stderr is not None
    left = talk.limit_bytes
    feeding = asyncio.ensure_future(_feed(process.stdin, talk.stdin))
    words = asyncio.ensure_future(_read_last(process.stderr))
    try:
        while data := await process.stdout.read(_READ_BYTES):
            left -= len(data)
            if left < 0:
                raise bad_request(
                    f"the repository has too many files, or too long a history: git {name} answers with more than "
                    f"{talk.limit_bytes >> 20} MiB",
                    hint="git count-objects -v; git ls-files | wc -l",
                )
            talk.hear(data)
        await feeding
        await process.wait()
        return await words
    except Problem:
        process.kill()  # then what it has said already is dropped, so that its pipe closes
        while await process.stdout.read(_READ_BYTES):
            pass
        raise
    finally:
        feeding.cancel()
        words.cancel()
        await asyncio.wait((feeding, words))


async def _feed(stdin: asyncio.StreamWriter | None, data: bytes | None) -> None:
    """All of it, or until git goes away: why, its stderr says."""
    if stdin is None or data is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()


async def _read_last(reader: asyncio.StreamReader) -> bytes:
    last = bytearray()
    while data := await reader.read(_READ_BYTES):
        last += data
        del last[:-_ERROR_BYTES]
    return bytes(last)


def git_failed(done: Completed) -> Problem:
    """git's own last words, for people."""
    return Problem(
        Code.OPERATION_FAILED,
        f"git {done.argv[1]} failed",
        detail=render_words(done),
    )


def render_words(done: Completed) -> str:
    """How a git ended, and its last words, in which paths are escaped."""
    lines = render_failure(done.argv, done.status, done.stderr).split("\n")
    return "\n".join(show_path(line.encode("utf-8", "surrogateescape")) for line in lines)
