"""Being root over a tree of files: really, or within a user namespace of subordinate ids.

Owns no state. A tree made with a prefix belongs, seen from outside, to ids that are not the caller's; only
the same prefix can read or remove all of it.
"""

import asyncio
import os
import shutil
from pathlib import Path

from banger.base.problem import unavailable
from banger.base.process import Argv, find_tool
from banger.images.tools import run_tool

_PROBE_TIMEOUT_S = 10.0
_REMOVE_TIMEOUT_S = 120.0


def plan_namespace(unshare: str, *, subordinate: bool) -> Argv:
    """unshare(1) with uid 0 being the caller and, if asked, 1 to 65535 their subordinate ids."""
    return (unshare, *(("--map-auto",) if subordinate else ()), "--map-root-user", "--")


async def get_root_prefix() -> Argv:
    """What to put before a command so that it may give files to any owner. Raises `unavailable`."""
    if os.getuid() == 0:
        return ()
    prefix = await _find_namespace(subordinate=True)
    if prefix is None:
        raise unavailable(
            "neither root nor subordinate user ids are at hand to build a root file system",
            hint="sudo apt-get install uidmap util-linux && "
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        )
    return prefix


async def find_sole_root_prefix() -> Argv:
    """A prefix under which the caller's own files seem to be root's; empty where there is none."""
    if os.getuid() == 0:
        return ()
    return await _find_namespace(subordinate=False) or ()


async def _find_namespace(*, subordinate: bool) -> Argv | None:
    unshare, true = find_tool("unshare"), find_tool("true")
    if unshare is None or true is None:
        return None
    # Sysctls and security modules forbid namespaces in many ways: try it. The plain one first: where it is
    # forbidden, --map-auto (util-linux 2.38) leaves a helper behind that waits for ever and holds our pipes.
    prefix: Argv = ()
    for ids in (False, True) if subordinate else (False,):
        prefix = plan_namespace(str(unshare), subordinate=ids)
        answer = await run_tool(
            (*prefix, "/bin/sh", "-c", "echo yes"), timeout_s=_PROBE_TIMEOUT_S, check=False
        )
        if answer != b"yes\n":
            return None
    return prefix


async def remove_owned_tree(path: Path) -> None:
    """Removes a tree of ours, whoever its files belong to. Silent when it is gone already."""
    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    if not path.exists():
        return
    prefix = await get_root_prefix()
    await run_tool(
        (*prefix, "/bin/rm", "-rf", "--one-file-system", "--", str(path)), timeout_s=_REMOVE_TIMEOUT_S
    )
