"""Firecrackers that run at a place without a handle: whoever started them died before he wrote one down.

Found by their command line and working directory, which both are there from the first moment on; a socket would not be.
"""

import asyncio
import os
from pathlib import Path

from banger.vmm.firecracker.argv import is_ours
from banger.vmm.identity import kill_process

_END_S = 5.0


async def end_strays(runtime: str) -> None:
    """Returns when there is none at this place any more, or none that ends."""
    for pidfd in await asyncio.to_thread(_find_strays, os.path.realpath(runtime)):
        try:
            kill_process(pidfd)
            await _wait_end(pidfd)
        finally:
            os.close(pidfd)


def _find_strays(runtime: str) -> list[int]:
    """A pidfd for each. Opened before the look, so that it is the very process that was looked at."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            pidfd = os.pidfd_open(int(process.name))
        except OSError:
            continue
        if _is_stray(process, runtime):
            found.append(pidfd)
        else:
            os.close(pidfd)
    return found


def _is_stray(process: Path, runtime: str) -> bool:
    try:
        return is_ours((process / "cmdline").read_bytes()) and (process / "cwd").readlink() == Path(runtime)
    except OSError:  # gone, or somebody else's
        return False


async def _wait_end(pidfd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(_END_S):
            await ended.wait()
    except TimeoutError:
        return
    finally:
        loop.remove_reader(pidfd)
