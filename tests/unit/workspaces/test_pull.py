"""Commits out of a guest: refs of the host's, by way of quarantine, and nothing else of the host's changed."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.crafted_packs import HostileAgent
from tests.support.nasty import CORPUS, find_case
from tests.support.repositories import (
    Case,
    Link,
    Write,
    commit,
    git,
    perform,
    read_working_tree,
    run_git,
)
from tests.support.workspace_guest import Brought, open_workspace

from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.model.returned import Returned
from banger.model.workspace import Workspace
from banger.services.workspaces import quarantine
from banger.services.workspaces.limited import Limits
from banger.services.workspaces.pull import Order, pull
from banger.services.workspaces.quarantine import sweep

ROOT = Path(__file__).parents[3]
NAME = "box"
LIMITS = Limits()


async def do_pull(
    brought: Brought, *branches: str, force: bool = False, limits: Limits = LIMITS, name: str = NAME
) -> Returned:
    order = Order(name, branches, force, limits)
    root = brought.inside.parents[2] / "quarantine"
    try:
        return await pull(brought.agent, brought.workspace, order, root, Silent())
    finally:
        assert not [*root.iterdir()] if root.exists() else True


def list_refs(tree: Path, below: str = "refs/banger") -> dict[str, str]:
    listed = run_git(tree, "for-each-ref", "--format=%(refname) %(objectname)", below).decode()
    return dict(line.split(" ") for line in listed.splitlines())


def host_state(host: Path) -> dict[str, str]:
    """All refs but ours, and what is checked out."""
    refs = {name: id_ for name, id_ in list_refs(host, "refs").items() if not name.startswith("refs/banger/")}
    return refs | {"HEAD": run_git(host, "rev-parse", "HEAD", check=False).decode()}


def list_trips(directory: Path) -> list[Path]:
    """What hooks and programs of the configuration leave behind when they run."""
    return [*directory.glob("ran-*")]


def forget_trips(directory: Path) -> None:
    """Plain git, which builds the cases, runs them all."""
    for trip in list_trips(directory):
        trip.unlink()


BORROWED = "borrowed objects"
PULLABLE = [case for case in CORPUS if case.name != BORROWED]


@pytest.mark.parametrize("case", PULLABLE, ids=lambda case: case.name)
async def test_the_guests_commits_are_the_hosts(case: Case, tmp_path: Path) -> None:
    host = case.build(tmp_path / "work")
    async with open_workspace(host, tmp_path / "guest") as brought:
        perform(brought.inside, case.change)
        before, tree = host_state(host), read_working_tree(host)
        forget_trips(tmp_path / "work")
        returned = await do_pull(brought)
        assert not list_trips(tmp_path / "work")
        assert host_state(host) == before
        assert read_working_tree(host) == tree
        inside = list_refs(brought.inside, "refs/heads")
        if not run_git(brought.inside, "symbolic-ref", "-q", "HEAD", check=False):
            inside["refs/heads/HEAD"] = run_git(brought.inside, "rev-parse", "HEAD").decode().strip()
        wanted = {
            ref.replace("refs/heads/", f"refs/banger/{NAME}/"): id_
            for ref, id_ in inside.items()
            if id_ != brought.workspace.base_commit
        }
        assert list_refs(host) == wanted
        assert {branch.ref: branch.commit for branch in returned.branches} == wanted
        for ref, id_ in wanted.items():
            names = run_git(host, "ls-tree", "-r", "-z", "--full-tree", ref)
            assert names == run_git(brought.inside, "ls-tree", "-r", "-z", "--full-tree", id_)
            assert run_git(host, "log", "-1", "--format=%H %T %an %s", ref) == run_git(
                brought.inside, "log", "-1", "--format=%H %T %an %s", id_
            )
        run_git(host, "fsck", "--strict", "--connectivity-only")


@asynccontextmanager
async def opened(place: Path, name: str = "an ordinary change") -> AsyncIterator[Brought]:
    async with open_workspace(find_case(name).build(place / "work"), place / "guest") as brought:
        yield brought


async def test_a_second_pull_brings_only_what_is_new(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [Write(b"one", b"1\n" * 500), *commit("one")])
        first = await do_pull(brought)
        same = await do_pull(brought)
        perform(brought.inside, [Write(b"two", b"2\n"), *commit("two")])
        second = await do_pull(brought)
    assert [branch.move for got in (first, same, second) for branch in got.branches] == [
        "new",
        "unchanged",
        "forward",
    ]
    assert [got.objects for got in (first, same, second)] == [3, 0, 3]
    assert [each.subject for each in second.branches[0].commits] == ["two"]


async def test_history_that_was_rewritten_moves_a_ref_by_force_only_and_the_old_stays_in_its_reflog(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [Write(b"one", b"1\n"), *commit("one")])
        old = (await do_pull(brought)).branches[0].commit
        perform(
            brought.inside, [Write(b"one", b"other\n"), git("commit", "-q", "-a", "--amend", "-m", "amended")]
        )
        with pytest.raises(Problem) as caught:
            await do_pull(brought)
        assert caught.value.code is Code.CONFLICT
        assert "--force" in (caught.value.hint or "")
        assert set(list_refs(brought.host).values()) == {old}
        forced = await do_pull(brought, force=True)
    assert forced.branches[0].move == "rewritten"
    assert forced.branches[0].before == old
    log = run_git(brought.host, "log", "-g", "--format=%H", "refs/banger/box/main").decode().split()
    assert log == [forced.branches[0].commit, old]


async def test_only_the_branches_that_were_asked_for_come(tmp_path: Path) -> None:
    async with opened(tmp_path, "history is rewritten") as brought:
        perform(brought.inside, find_case("history is rewritten").change)
        returned = await do_pull(brought, "topic/one")
        assert list_refs(brought.host) == {"refs/banger/box/topic/one": returned.branches[0].commit}
        with pytest.raises(Problem) as caught:
            await do_pull(brought, "topic/two")
    assert caught.value.code is Code.NOT_FOUND
    assert "topic/one" in (caught.value.hint or "")


async def test_files_that_are_not_committed_are_counted_but_not_those_that_came_like_that(
    tmp_path: Path,
) -> None:
    case = find_case("modes")
    async with open_workspace(case.build(tmp_path / "work"), tmp_path / "guest") as brought:
        assert (await do_pull(brought)).uncommitted == 0
        perform(brought.inside, [Write(b"a", b"changed\n"), Write(b"new", b"n\n")])
        returned = await do_pull(brought)
    assert returned.uncommitted == 2
    assert returned.branches == []


async def test_a_guest_that_lost_its_base_still_gives_its_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [git("checkout", "-q", "--orphan", "x"), Write(b"x", b"x\n"), *commit("x")])
        for ref in ("refs/banger/base", "refs/banger/prepared", "refs/heads/main"):
            run_git(brought.inside, "update-ref", "-d", ref)
        (brought.inside / ".git/shallow").unlink()
        run_git(brought.inside, "reflog", "expire", "--expire=all", "--all")
        run_git(brought.inside, "gc", "-q", "--prune=now")
        returned = await do_pull(brought)
    assert [branch.branch for branch in returned.branches] == ["x"]
    assert returned.uncommitted is None


async def test_the_report_names_what_deserves_a_look(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        perform(
            brought.inside,
            [
                Write(b".github/workflows/ci.yml", b"on: push\n"),
                Write(b".husky/pre-commit", b"#!/bin/sh\n", 0o755),
                Write(b".gitattributes", b"*.x filter=lfs -text\n*.y merge=union\n"),
                Write(b".gitmodules", b'[submodule "s"]\n\tpath = s\n\turl = http://example.com/s\n'),
                Link(b"out", b"../../etc"),
                Link(b"in", b"src/main.c"),
                Write(b"README", b"x\n", 0o755),
                Write(b"readme", b"x\n"),
                Write(b"aux.c", b"x\n"),
                Write(b"large", bytes(11 << 20)),
                *commit("all of it"),
            ],
        )
        returned = await do_pull(brought)
    found = {(each.kind, each.path) for each in returned.branches[0].findings}
    assert found == {
        ("automation", ".github/workflows/ci.yml"),
        ("hook", ".husky/pre-commit"),
        ("attribute", ".gitattributes"),
        ("submodule", ".gitmodules"),
        ("link", "out"),
        ("mode", "README"),
        ("name", "readme"),
        ("name", "aux.c"),
        ("size", "large"),
    }


async def test_a_repository_that_is_gone_from_the_host_is_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        brought.host.rename(tmp_path / "elsewhere")
        with pytest.raises(Problem) as caught:
            await do_pull(brought)
    assert caught.value.code is Code.NOT_FOUND


async def test_a_workspace_that_is_gone_from_the_guest_is_one_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        (brought.inside / ".git").rename(tmp_path / "git")
        with pytest.raises(Problem) as caught:
            await do_pull(brought)
        assert "no git repository" in caught.value.brief
        brought.inside.rename(tmp_path / "moved")
        with pytest.raises(Problem, match="nothing can be run in /root/project") as caught:
            await do_pull(brought)
    assert caught.value.code is Code.CONFLICT
    assert caught.value.exit_status is None


# A daemon that dies

DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.unit.workspaces import test_pull
from tests.support.workspace_guest import GUEST_PATH, Brought, open_agent
from banger.guest.fake import FakeGuest
from banger.model.workspace import Workspace
from banger.services.workspaces import pull, quarantine

stage, host, scratch, commit = sys.argv[1:]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if stage == "arriving":
    quarantine.Quarantine.describe = die
elif stage == "copying":
    os.fsync = die
elif stage == "naming":
    Path.rename = die
elif stage == "refs":
    pull.run_git = lambda place, arguments, **rest: die() if arguments[0] == "update-ref" else run(place, arguments, **rest)
run = __import__("banger.services.workspaces.git", fromlist=["x"]).run_git
async def main():
    async with open_agent(FakeGuest(Path(scratch))) as agent:
        row = Workspace(vm_id="1" * 12, host_root=host, guest_path=GUEST_PATH, head_commit=commit, base_commit=commit)
        await test_pull.do_pull(Brought(agent, row, Path(host), Path(scratch) / GUEST_PATH[1:]))
asyncio.run(main())
"""


@pytest.mark.parametrize("stage", ["arriving", "copying", "naming", "refs"])
async def test_a_daemon_that_is_killed_leaves_no_ref_and_what_the_next_one_sweeps(
    tmp_path: Path, stage: str
) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [Write(b"one", b"1\n"), *commit("one")])
        objects = brought.host / ".git/objects/pack"
        before = set(objects.iterdir())
        argv = [
            sys.executable,
            "-c",
            DYING,
            stage,
            str(brought.host),
            str(tmp_path / "guest"),
            brought.workspace.base_commit,
        ]
        died = subprocess.run(
            argv, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, capture_output=True
        )
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()
        root = brought.inside.parents[2] / "quarantine"
        assert len([*root.iterdir()]) == 1
        sweep(root)
        assert [*root.iterdir()] == []
        left = {path.suffix for path in set(objects.iterdir()) - before}
        assert left == ({".pack", ".idx"} if stage == "refs" else set())
        assert list_refs(brought.host) == {}
        run_git(brought.host, "fsck", "--strict")
        returned = await do_pull(brought)
        assert list_refs(brought.host) == {"refs/banger/box/main": returned.branches[0].commit}


async def test_a_disk_that_is_full_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [Write(b"one", b"1\n"), *commit("one")])
        objects = brought.host / ".git/objects/pack"
        before = set(objects.iterdir())

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(Problem, match="No space left") as caught:
                await do_pull(brought)
        assert caught.value.code is Code.NO_SPACE
        assert set(objects.iterdir()) == before
        assert list_refs(brought.host) == {}


async def test_a_caller_that_leaves_takes_the_quarantine_along(tmp_path: Path) -> None:
    host = find_case("an ordinary change").build(tmp_path / "work")
    head = run_git(host, "rev-parse", "HEAD").decode().strip()
    stalls = asyncio.Event()

    async def stall() -> AsyncIterator[bytes]:
        yield b"PACK\0\0\0\2\0\0\0\1"
        stalls.set()
        await asyncio.Event().wait()

    agent = HostileAgent(branches=b"1" * 40 + b" refs/heads/main\n", pack=stall)
    row = Workspace(
        vm_id="1" * 12, host_root=str(host), guest_path="/root/x", head_commit=head, base_commit=head
    )
    brought = Brought(agent, row, host, tmp_path / "guest/root/project")  # type: ignore[arg-type]
    task = asyncio.create_task(do_pull(brought))
    await stalls.wait()
    assert len([*tmp_path.glob("**/quarantine/*")]) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [*tmp_path.glob("**/quarantine/*")] == []
    assert list_refs(host) == {}


@pytest.mark.parametrize("moment", ["copy", "refs"])
async def test_a_caller_that_leaves_while_objects_enter_leaves_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [Write(b"one", b"1\n"), *commit("one")])
        task = asyncio.create_task(do_pull(brought))
        publish, loop = quarantine.Quarantine.publish, asyncio.get_running_loop()

        async def leave(self: quarantine.Quarantine, pack: quarantine.Pack) -> None:
            if moment == "copy":
                loop.call_soon(task.cancel)
            await publish(self, pack)
            if moment == "refs":
                task.cancel()

        monkeypatch.setattr(quarantine.Quarantine, "publish", leave)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(list_refs(brought.host)) == 1
        run_git(brought.host, "fsck", "--strict")
        assert not [*(brought.host / ".git/objects/pack").glob("tmp_*")]
