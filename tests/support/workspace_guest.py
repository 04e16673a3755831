"""A workspace in a guest without a machine: git runs on this host, in a scratch directory.

`bring` is a plain stand-in for prepare, by git and copies alone: what it leaves in the guest is what a prepared
workspace is by docs/reference, however that came there.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.repositories import ENVIRONMENT, GIT, read_working_tree, run_git

from banger.guest.agent import Agent
from banger.guest.fake import FakeGuest
from banger.guest.link import Link
from banger.model.workspace import Workspace
from banger.services.workspaces.shell import Shell
from banger.services.workspaces.snapshot import record_base

GUEST_PATH = "/root/project"


@asynccontextmanager
async def open_agent(guest: FakeGuest) -> AsyncIterator[Agent]:
    host, inside = socket.socketpair()
    host_streams = await asyncio.open_connection(sock=host)
    guest_streams = await asyncio.open_connection(sock=inside)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(guest.serve(*guest_streams))
        async with await Link.open(*host_streams) as link:
            yield Agent(link)
        host_streams[1].close()
        serving.cancel()


class Brought(NamedTuple):
    agent: Agent
    workspace: Workspace
    host: Path
    inside: Path  # the guest's working tree, as this host sees it


@asynccontextmanager
async def open_workspace(host: Path, scratch: Path) -> AsyncIterator[Brought]:
    inside = scratch / GUEST_PATH.lstrip("/")
    commit = bring(host, inside)
    workspace = Workspace(
        vm_id="1" * 12, host_root=str(host), guest_path=GUEST_PATH, head_commit=commit, base_commit=commit
    )
    async with open_agent(FakeGuest(scratch)) as agent:
        tree = await record_base(Shell(agent, "web"), workspace)
        workspace = Workspace(
            vm_id="1" * 12,
            host_root=str(host),
            guest_path=GUEST_PATH,
            head_commit=commit,
            base_commit=commit,
            base_tree=tree,
        )
        yield Brought(agent, workspace, host, inside)


def bring(host: Path, inside: Path) -> str:
    """The commit that went, empty for none."""
    inside.mkdir(parents=True)
    form = run_git(host, "rev-parse", "--show-object-format").decode().strip()
    run_git(inside, "init", "--quiet", f"--object-format={form}")
    commit = run_git(host, "rev-parse", "-q", "--verify", "HEAD^{commit}", check=False).decode().strip()
    if commit:
        run_git(inside, "fetch", "--quiet", "--depth=1", f"file://{host}", "HEAD")
        branch = run_git(host, "symbolic-ref", "-q", "--short", "HEAD", check=False).decode().strip()
        run_git(inside, "checkout", "--quiet", *(("-B", branch) if branch else ("--detach",)), "FETCH_HEAD")
    for key in ("core.autocrlf", "core.eol"):
        if value := run_git(host, "config", "--get", key, check=False).decode().strip():
            run_git(inside, "config", key, value)
    _copy(host, inside)
    _record_prepared(host, inside, commit)
    return commit


def _copy(host: Path, inside: Path) -> None:
    wanted = read_working_tree(host)
    top = os.fsencode(inside)
    for name in [*read_working_tree(inside)]:
        if name not in wanted:
            Path(os.fsdecode(top + b"/" + name.rstrip(b"/"))).unlink()
    for name, (kind, content) in wanted.items():
        place = Path(os.fsdecode(top + b"/" + name.rstrip(b"/")))
        if kind == "nested":
            if run_git(host, "ls-files", "--stage", "-z", "--", os.fsdecode(name)).startswith(b"160000"):
                shutil.rmtree(place, ignore_errors=True)
                run_git(inside, "clone", "--quiet", str(host / os.fsdecode(name)), str(place))
            continue
        _clear(inside, place)
        if kind == "link":
            place.symlink_to(os.fsdecode(content))
        else:
            place.write_bytes(content)
            place.chmod(0o755 if kind == "program" else 0o644)


def _clear(inside: Path, place: Path) -> None:
    for parent in reversed(place.relative_to(inside).parents):
        above = inside / parent
        if above.is_symlink() or above.is_file():
            above.unlink()
        above.mkdir(exist_ok=True)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)


def _record_prepared(host: Path, inside: Path, commit: str) -> None:
    import subprocess

    def git(*arguments: str, input_: bytes = b"") -> str:
        done = subprocess.run(
            [*GIT, *arguments],
            cwd=inside,
            env=ENVIRONMENT | {"GIT_INDEX_FILE": str(inside / ".git/prepared-index")},
            input=input_,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    names = b"\0".join(
        name.rstrip(b"/") for name, (kind, _) in read_working_tree(inside).items() if kind != "nested"
    )
    git("update-index", "--add", "-z", "--stdin", input_=names)
    tree = git("write-tree")
    parents = ("-p", commit) if commit else ()
    git("update-ref", "refs/banger/prepared", git("commit-tree", tree, *parents, "-m", "prepared"))
    (inside / ".git/prepared-index").unlink(missing_ok=True)
