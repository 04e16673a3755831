"""The shell of a guest that runs our programs, and how long it may keep us waiting.

Owns the bounds of it: whatever a guest does or leaves undone, what waits for it here ends by itself and lets go of what
it holds. Words are arguments, never part of a program.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, conflict
from banger.base.tasks import beside
from banger.guest.agent import Agent
from banger.guest.command import Command, ExecRequest
from banger.guest.frames import Stream
from banger.model.returned import show_path
from banger.model.workspace import list_some

STALL_S = 600.0
OUTPUT_BYTES = 8 << 20
_WORK_STALLS = 6  # what has come in is indexed and checked out without a word
_ENVIRONMENT = (
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
)
Pack = AsyncGenerator[bytes, None]


class Shell(NamedTuple):
    """A guest's, by the name of its VM. A program has `stall_s` for all it does; one with input has so long for each
    piece of it, and an hour or so for what it makes of it."""

    agent: Agent
    vm_name: str
    stall_s: float = STALL_S

    async def run(self, script: str, arguments: tuple[str, ...], stdin: Pack | None = None) -> bytes:
        """What it says, the first OUTPUT_BYTES of it. Raises `unavailable` when the guest keeps us waiting, and Problem
        with its last words when it fails."""
        request = ExecRequest(
            argv=("/bin/sh", "-c", script, "banger", *arguments),
            env=_ENVIRONMENT,
            cwd="/",
            stdin=stdin is not None,
        )
        kept = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        failure: list[BaseException] = []
        async with awaiting(self.vm_name, self.stall_s) as deadline:
            feed = _Feed(deadline, self.stall_s, failure)
            async with self.agent.exec(request) as command, beside(feed.run(command, stdin)):
                async for stream, data in command:
                    kept[stream] += data[: OUTPUT_BYTES - len(kept[stream])]
                end = await command.wait()
        if failure:
            raise failure[0]
        if end.shell_status != 0:
            raise _render_failure(self.vm_name, bytes(kept[Stream.STDERR]))
        return bytes(kept[Stream.STDOUT])


@asynccontextmanager
async def awaiting(vm_name: str, stall_s: float) -> AsyncIterator[asyncio.Timeout]:
    """A block in which a guest has to do its part. Raises `unavailable` when it does not."""
    try:
        async with asyncio.timeout(stall_s) as deadline:
            yield deadline
    except TimeoutError as error:
        raise Problem(
            Code.UNAVAILABLE,
            f"git in {vm_name} has kept us waiting for more than {stall_s:g} s",
            hint=f"banger vm health {vm_name}; banger vm restart {vm_name} if it does not answer",
            outcome=Outcome.UNKNOWN,
        ) from error


class _Feed:
    """What goes into a program. While the host makes the next piece, the guest has nothing to answer for."""

    def __init__(self, deadline: asyncio.Timeout, stall_s: float, failure: list[BaseException]) -> None:
        self._deadline = deadline
        self._stall_s = stall_s
        self._failure = failure

    async def run(self, command: Command, stdin: Pack | None) -> None:
        """What fails on the host ends the input, with which the command fails, too."""
        if stdin is None:
            return
        try:
            self._allow(None)
            async with aclosing(stdin) as pieces:
                async for data in pieces:
                    self._allow(self._stall_s)
                    if not await command.write_stdin(data):
                        break
                    self._allow(None)
        except Problem as problem:
            self._failure.append(problem)
            command.signal(15)
        finally:
            self._allow(self._stall_s * (1 if self._failure else _WORK_STALLS))
        command.close_stdin()

    def _allow(self, seconds: float | None) -> None:
        if not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(None if seconds is None else now + seconds)


def _render_failure(vm_name: str, untrusted_words: bytes) -> Problem:
    lines = [show_path(line) for line in untrusted_words.splitlines() if line.strip()][-8:]
    text = "\n".join(lines)
    if "No space left" in text or "unable to write file" in text:  # read-tree keeps the reason to itself
        return Problem(
            Code.NO_SPACE,
            f"the disk of {vm_name} is full",
            detail=text,
            hint=f"banger vm exec {vm_name} -- df -h, then prepare again",
        )
    if "not uptodate" in text or "would be overwritten" in text:
        names = [line.split("'")[1] for line in lines if line.count("'") >= 2]
        return conflict(
            f"the guest has changed or made what would be overwritten: {list_some(names)}",
            hint=f"banger workspace export {vm_name} -o work.patch, or throw it away with --force",
        )
    return Problem(
        Code.OPERATION_FAILED, "git failed in the guest", detail=text or None, outcome=Outcome.FAILED
    )
