"""Being root over a tree of files: really, or within a user namespace of subordinate ids.

A tree made with a prefix belongs, seen from outside, to ids that are not the caller's; only such a prefix can read or
remove all of it. newuidmap(1), by unshare(1), maps the ids where it may. A process with no_new_privs cannot run it
with its set-user-ID bit, so there somebody else maps them, in a namespace that a keeper process of ours holds open.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from banger.base.problem import Problem, unavailable
from banger.base.process import Argv, find_tool, get_tool, run, start_process
from banger.images.tools import run_tool

MapIds = Callable[[int], Awaitable[None]]

_PROBE_TIMEOUT_S = 10.0
_REMOVE_TIMEOUT_S = 120.0
_FORBIDDEN_HINT = (
    "build as root and copy (docs/how-to/work-offline.md), or let users make user namespaces "
    "(Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
)


async def refuse_ids(_: int) -> None:
    """`MapIds` where nobody is asked."""
    raise unavailable("no root helper is installed", hint="sudo banger system install")


class Ownership:
    """How this process gives files to any owner. Owns no state."""

    def __init__(self, map_ids: MapIds = refuse_ids) -> None:
        """`map_ids` maps 65536 ids in the user namespace of a process of ours, id 0 being our own, or raises Problem.
        It is asked only where newuidmap(1) cannot be run."""
        self._map_ids = map_ids

    @asynccontextmanager
    async def open_root(self) -> AsyncIterator[Argv]:
        """What to put before a command so that it may give files to any owner, until the block ends. Raises
        `unavailable`."""
        async with AsyncExitStack() as stack:
            if os.getuid() == 0:
                prefix: Argv = ()
            elif may_gain_privileges():
                prefix = await _get_own_prefix()
            else:
                prefix = await stack.enter_async_context(_keep_namespace(self._map_ids))
            yield prefix

    async def remove_tree(self, path: Path) -> None:
        """Removes a tree of ours, whoever its files belong to. Silent when it is gone already."""
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        if not path.exists():
            return
        async with self.open_root() as prefix:
            argv = (*prefix, "/bin/rm", "-rf", "--one-file-system", "--", str(path))
            await run_tool(argv, timeout_s=_REMOVE_TIMEOUT_S)


def plan_namespace(unshare: str, *, subordinate: bool) -> Argv:
    """unshare(1) with uid 0 being the caller and, if asked, 1 to 65535 their subordinate ids."""
    return (unshare, *(("--map-auto",) if subordinate else ()), "--map-root-user", "--")


def plan_entry(nsenter: str, keeper: int) -> Argv:
    """nsenter(1) into the keeper's user namespace, as its root."""
    return (nsenter, f"--user=/proc/{keeper}/ns/user", "--")


def may_gain_privileges() -> bool:
    """Whether what we execute gets what its set-user-ID bit says (PR_GET_NO_NEW_PRIVS)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return "NoNewPrivs:\t1" not in lines


async def find_sole_root_prefix() -> Argv:
    """A prefix under which the caller's own files seem to be root's; empty where there is none."""
    if os.getuid() == 0:
        return ()
    unshare = find_tool("unshare")
    if unshare is None:
        return ()
    prefix = plan_namespace(str(unshare), subordinate=False)
    return () if await _find_complaint(prefix) is not None else prefix


async def _get_own_prefix() -> Argv:
    """Raises `unavailable`."""
    unshare = get_tool("unshare", package="util-linux")
    if find_tool("newuidmap") is None:
        raise unavailable("uidmap is not installed", hint="sudo apt-get install uidmap")
    # Sysctls and security modules forbid namespaces in many ways: try it. The plain one first: where it is
    # forbidden, --map-auto (util-linux 2.38) leaves a helper behind that waits for ever and holds our pipes.
    if (complaint := await _find_complaint(plan_namespace(unshare, subordinate=False))) is not None:
        raise _forbidden(complaint)
    prefix = plan_namespace(unshare, subordinate=True)
    if (complaint := await _find_complaint(prefix)) is not None:
        raise unavailable(
            f"subordinate user ids cannot be had: {complaint}",
            hint="sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        )
    return prefix


async def _find_complaint(prefix: Argv) -> str | None:
    """What a trial of the prefix says; None when it works."""
    argv = (*prefix, get_tool("true", package="coreutils"))
    try:
        done = await run(argv, timeout_s=_PROBE_TIMEOUT_S, cwd=Path("/"), check=False)
    except Problem as problem:
        return problem.brief
    return None if done.status == 0 else _last_line(done.stderr) or f"status {done.status}"


@asynccontextmanager
async def _keep_namespace(map_ids: MapIds) -> AsyncIterator[Argv]:
    """A user namespace that lives as long as the block. Its keeper is cat(1): what it echoes comes from inside, and
    when we are killed its stdin ends, and so does it."""
    nsenter = get_tool("nsenter", package="util-linux")
    argv = (get_tool("unshare", package="util-linux"), "--user", "--", get_tool("cat", package="coreutils"))
    async with start_process(argv, stdin=subprocess.PIPE) as keeper:
        await _wait_inside(keeper)
        await map_ids(keeper.pid)
        yield plan_entry(nsenter, keeper.pid)


async def _wait_inside(keeper: asyncio.subprocess.Process) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    with suppress(ConnectionError):
        keeper.stdin.write(b"\n")
        await keeper.stdin.drain()
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            if not await keeper.stdout.read(1):
                raise _forbidden(_last_line(await keeper.stderr.read()))
    except TimeoutError as error:
        raise _forbidden(f"no answer within {_PROBE_TIMEOUT_S:.0f} s") from error


def _last_line(stderr: bytes) -> str:
    return (stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]


def _forbidden(complaint: str) -> Problem:
    return unavailable(f"user namespaces cannot be made: {complaint}", hint=_FORBIDDEN_HINT)
