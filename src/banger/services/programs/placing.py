"""A pinned program put into a guest, once.

What the guest has under the program's path is told by a mark beside our other things there: the digest of what was put.
A guest may lie about it, to nobody's harm but its own. A program of the same name that we did not put there is the
image's or the user's, and stays.
"""

import asyncio
from collections.abc import AsyncIterator
from enum import Enum
from pathlib import Path

from banger.base.problem import Problem, unavailable
from banger.base.progress import Progress, stage
from banger.guest.agent import Agent
from banger.guest.entries import Entry
from banger.guest.errors import GuestProblem
from banger.pinned.catalog import Pinned
from banger.pinned.obtain import obtain_pinned

MARKS = "/var/lib/banger/programs"
_CHUNK = 1024 * 1024
_ENOENT = 2
_MARK_BYTES = 64


class Placed(Enum):
    WHOLE = "whole"  # what we would put there
    OTHER = "other"  # of ours, but of another version, or damaged
    NEVER = "never"


async def find_placed(agent: Agent, pinned: Pinned) -> Placed:
    """What of ours the guest has."""
    mark = await _read_mark(agent, pinned)
    if not mark:
        return Placed.NEVER
    found = await _find(agent, pinned.guest_path)
    whole = found is not None and found.size_bytes == pinned.size_bytes and mark == pinned.sha256
    return Placed.WHOLE if whole else Placed.OTHER


async def put_pinned(agent: Agent, pinned: Pinned, directory: Path, progress: Progress) -> None:
    """Fetched to this host first, if it is not below `directory`. Whole in the guest, or not there. Raises
    `unavailable` for a guest that cannot run it, and as `obtain_pinned` does."""
    if await _find(agent, pinned.loader) is None:
        raise unavailable(
            f"{pinned.name} needs {pinned.libc}, which this guest does not have ({pinned.loader})",
            hint="use an image with it, for example: banger vm run --image debian-bookworm",
        )
    kept = await obtain_pinned(pinned, directory, progress)
    with stage(progress, f"copy {pinned.name} into the guest"):
        await agent.file_write(pinned.guest_path, _read(kept), mode=0o755, uid=0, gid=0, make_parents=True)
        mark = pinned.sha256.encode()
        await agent.file_write(f"{MARKS}/{pinned.name}", mark, mode=0o644, uid=0, gid=0, make_parents=True)


async def _read(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
    finally:
        file.close()


async def _find(agent: Agent, path: str) -> Entry | None:
    try:
        return await agent.file_stat(path, follow_links=True)
    except GuestProblem as problem:
        if problem.errno == _ENOENT:
            return None
        raise


async def _read_mark(agent: Agent, pinned: Pinned) -> str:
    try:
        async with agent.file_read(f"{MARKS}/{pinned.name}", length=_MARK_BYTES) as download:
            return b"".join([part async for part in download]).decode("ascii", "replace")
    except Problem:
        return ""
