"""A guest that lies: whatever it sends, the host's repository has no new object and no new ref, and nothing has run."""

import asyncio
import os
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.support.crafted_packs import (
    BLOB,
    HostileAgent,
    Item,
    encode_header,
    make_commit,
    make_delta_bomb,
    make_pack,
    make_tree,
    seal,
)
from tests.support.nasty import find_case
from tests.support.repositories import run_git

from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.model.returned import Returned
from banger.model.workspace import Workspace
from banger.services.workspaces import report
from banger.services.workspaces.limited import Limits
from banger.services.workspaces.pull import Order, pull

FILE = Item(BLOB, b"content\n")
LIMITS = Limits(stall_s=20, work_s=60)


class Host:
    """A repository of the host's whose hooks and configuration are tripwires, and all that may not change in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tree = find_case("hooks and programs in the configuration").build(place / "work")
        self.head = run_git(self.tree, "rev-parse", "HEAD").decode().strip()
        for trip in (place / "work").glob("ran-*"):
            trip.unlink()
        self.before = self.look()

    def look(self) -> dict[str, bytes]:
        """Every file of the working tree and of git's directory."""
        return {str(path): path.read_bytes() for path in sorted(self.tree.rglob("*")) if path.is_file()}

    async def pull(self, agent: HostileAgent, *, limits: Limits = LIMITS, force: bool = False) -> Returned:
        workspace = Workspace(
            vm_id="1" * 12,
            host_root=str(self.tree),
            guest_path="/root/x",
            head_commit=self.head,
            base_commit=self.head,
        )
        order = Order("box", (), force, limits)
        return await pull(agent, workspace, order, self.place / "quarantine", Silent())  # type: ignore[arg-type]

    async def refuse(self, agent: HostileAgent, words: str = "", *, limits: Limits = LIMITS) -> Problem:
        with pytest.raises(Problem) as caught:
            await self.pull(agent, limits=limits)
        assert words in f"{caught.value.brief} {caught.value.detail}"
        assert caught.value.brief.isprintable()
        self.assert_untouched()
        return caught.value

    def assert_untouched(self) -> None:
        assert self.look() == self.before
        self.assert_quiet()

    def assert_quiet(self) -> None:
        assert not [*(self.place / "work").glob("ran-*")]
        assert not [*(self.place / "trips").glob("*")] if (self.place / "trips").exists() else True
        assert [*(self.place / "quarantine").glob("*")] == []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def main_at(commit: str) -> bytes:
    return f"{commit} refs/heads/main\n".encode()


def guest_with(*items: Item) -> HostileAgent:
    """The last one is the tip of main."""
    return HostileAgent(branches=main_at(items[-1].id), pack=make_pack(*items))


BAD_TREES = {
    "parent": make_tree(("100644", b"..", FILE.id)),
    "itself": make_tree(("100644", b".", FILE.id)),
    "git": make_tree(("40000", b".git", make_tree(("100644", b"config", FILE.id)).id)),
    "GIT": make_tree(("100644", b".GIT", FILE.id)),
    "git with a blank": make_tree(("100644", b".git ", FILE.id)),
    "git with a dot": make_tree(("100644", b".git.", FILE.id)),
    "short name of git": make_tree(("100644", b"git~1", FILE.id)),
    "invisible character in git": make_tree(("100644", b".g\xe2\x80\x8cit", FILE.id)),
    "git and a stream": make_tree(("100644", b".git::$INDEX_ALLOCATION", FILE.id)),
    "git below a backslash": make_tree(("100644", b"a\\.git\\config", FILE.id)),
    "absolute": make_tree(("100644", b"/etc/passwd", FILE.id)),
    "slash": make_tree(("100644", b"a/../../b", FILE.id)),
    "empty": make_tree(("100644", b"", FILE.id)),
    "twice": make_tree(("100644", b"a", FILE.id), ("100644", b"a", FILE.id)),
    "unsorted": make_tree(("100644", b"b", FILE.id), ("100644", b"a", FILE.id)),
    "nothing": make_tree(("100644", b"a", "0" * 40)),
    "modules are a link": make_tree(("120000", b".gitmodules", FILE.id)),
}


@pytest.mark.parametrize("name", BAD_TREES)
async def test_a_tree_with_bad_entries_is_refused(host: Host, name: str) -> None:
    tree = BAD_TREES[name]
    inner = make_tree(("100644", b"config", FILE.id))
    await host.refuse(guest_with(FILE, inner, tree, make_commit(tree.id)), "no sound history")


@pytest.mark.parametrize(
    "modules",
    [
        b'[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/x\n',
        b'[submodule "../../x"]\n\tpath = x\n\turl = https://example.com\n',
        b'[submodule "x"]\n\tpath = -x\n\turl = https://example.com\n',
        b'[submodule "x"]\n\tpath = x\n\tupdate = !touch /tmp/x\n\turl = https://example.com\n',
    ],
)
async def test_submodules_that_would_run_something_are_refused(host: Host, modules: bytes) -> None:
    blob = Item(BLOB, modules)
    tree = make_tree(("100644", b".gitmodules", blob.id))
    await host.refuse(guest_with(blob, tree, make_commit(tree.id)), "no sound history")


GOOD_TREE = make_tree(("100644", b"file", FILE.id))
GOOD = make_commit(GOOD_TREE.id)
GOOD_PACK = make_pack(FILE, GOOD_TREE, GOOD)
BAD_PACKS = {
    "nothing": b"",
    "half a header": GOOD_PACK[:7],
    "no pack": b"<!DOCTYPE html>" * 10,
    "cut": GOOD_PACK[:-30],
    "wrong sum": GOOD_PACK[:-1] + b"\0",
    "more than announced": GOOD_PACK + b"more",
    "a path follows": GOOD_PACK + b"/../../../../x",
    "announces more": make_pack(FILE, GOOD_TREE, GOOD, count=9),
    "announces all there are": make_pack(FILE, count=0xFFFFFFFF),
    "another version": b"PACK" + struct.pack(">II", 9, 1) + b"x" * 40,
    "no such kind": seal(struct.pack(">4sII", b"PACK", 2, 1) + encode_header(5, 3) + zlib.compress(b"abc")),
    "not compressed": seal(struct.pack(">4sII", b"PACK", 2, 1) + encode_header(BLOB, 3) + b"abc"),
    "longer than it says": seal(
        struct.pack(">4sII", b"PACK", 2, 1) + encode_header(BLOB, 3) + zlib.compress(b"abcd")
    ),
    "without the tree": make_pack(FILE, GOOD),
    "without the file": make_pack(GOOD_TREE, GOOD),
    "without the tip": make_pack(FILE, GOOD_TREE),
    "commit without an author": make_pack(
        Item(1, b"tree " + GOOD_TREE.id.encode() + b"\n\nx\n"), FILE, GOOD_TREE
    ),
}


@pytest.mark.parametrize("name", BAD_PACKS)
async def test_a_pack_that_is_not_right_is_refused(host: Host, name: str) -> None:
    await host.refuse(HostileAgent(branches=main_at(GOOD.id), pack=BAD_PACKS[name]))


async def test_a_history_that_is_not_whole_is_refused(host: Host) -> None:
    child = make_commit(GOOD_TREE.id, "1" * 40)
    problem = await host.refuse(guest_with(FILE, GOOD_TREE, child), "not whole")
    assert "unshallow" in (problem.hint or "")


@pytest.mark.parametrize("item", [FILE, GOOD_TREE], ids=["blob", "tree"])
async def test_a_branch_that_is_no_commit_is_refused(host: Host, item: Item) -> None:
    await host.refuse(HostileAgent(branches=main_at(item.id), pack=GOOD_PACK), "not a commit")


# Bounds


async def test_a_file_that_unpacks_to_too_much_is_refused(host: Host) -> None:
    bomb = Item(BLOB, bytes(64 << 20))
    tree = make_tree(("100644", b"bomb", bomb.id))
    agent = guest_with(bomb, tree, make_commit(tree.id))
    await host.refuse(agent, "a file of 64 MiB", limits=LIMITS._replace(object_bytes=8 << 20))
    assert agent.taken < 1 << 20


async def test_many_files_that_unpack_to_too_much_are_refused(host: Host) -> None:
    bombs = [Item(BLOB, bytes([number]) * (8 << 20)) for number in range(8)]
    await host.refuse(
        guest_with(*bombs, FILE, GOOD_TREE, GOOD),
        "MiB unpacked",
        limits=LIMITS._replace(unpacked_bytes=32 << 20),
    )


async def test_a_delta_that_wants_all_memory_gets_what_is_allowed(host: Host) -> None:
    pack = make_delta_bomb(Item(BLOB, bytes(65535)), 3 << 30)
    agent = HostileAgent(branches=main_at(GOOD.id), pack=pack)
    await host.refuse(agent, limits=LIMITS._replace(memory_bytes=1 << 30))


async def endless() -> AsyncIterator[bytes]:
    """One file that never ends, hardly compressed."""
    yield struct.pack(">4sII", b"PACK", 2, 1) + encode_header(BLOB, 1 << 40) + b"\x78\x01"
    block = b"\x00" + struct.pack("<HH", 60000, 60000 ^ 0xFFFF) + os.urandom(60000)
    while True:
        yield block
        await asyncio.sleep(0)


async def test_a_stream_without_end_is_cut_off(host: Host) -> None:
    agent = HostileAgent(branches=main_at(GOOD.id), pack=endless)
    await host.refuse(agent, limits=LIMITS._replace(pack_bytes=4 << 20))
    assert agent.taken < 16 << 20


async def test_a_stream_that_stalls_is_given_up(host: Host) -> None:
    async def stall() -> AsyncIterator[bytes]:
        yield GOOD_PACK[:40]
        await asyncio.Event().wait()

    agent = HostileAgent(branches=main_at(GOOD.id), pack=stall)
    await host.refuse(agent, "kept us waiting", limits=LIMITS._replace(stall_s=0.3))


async def test_a_list_without_end_is_cut_off(host: Host) -> None:
    agent = HostileAgent(branches=b"x" * (3 << 20))
    await host.refuse(agent, "sends more than")
    assert agent.taken <= 2 << 20


def make_bomb(depth: int, width: int) -> list[Item]:
    """A commit with width ** depth files, in few objects: every directory holds the same one again and again."""
    trees = [make_tree(*(("100644", b"%02d" % number, FILE.id) for number in range(width)))]
    for _ in range(depth - 1):
        trees.append(make_tree(*(("40000", b"%02d" % number, trees[-1].id) for number in range(width))))
    return [FILE, *trees, make_commit(trees[-1].id)]


async def test_a_tree_of_any_number_of_files_is_not_listed(host: Host) -> None:
    problem = await host.refuse(
        guest_with(*make_bomb(5, 16)), "more names than can be listed, at most 32 MiB"
    )
    assert "--branch" in (problem.hint or "")


async def test_a_tree_of_too_many_files_is_not_judged(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_NAMES_MAX", 1000)
    await host.refuse(guest_with(*make_bomb(3, 10)), "files, at most 1000 are looked at")


async def test_many_branches_have_no_more_names_than_a_pull_may_have(host: Host) -> None:
    one, other = make_bomb(3, 10), make_bomb(3, 11)
    branches = main_at(one[-1].id) + main_at(other[-1].id).replace(b"main", b"other")
    agent = HostileAgent(branches=branches, pack=make_pack(*dict.fromkeys([*one, *other])))
    await host.refuse(agent, "more names", limits=LIMITS._replace(names_bytes=200_000))
    returned = await host.pull(agent, limits=LIMITS._replace(names_bytes=400_000))
    assert sorted(branch.files.added for branch in returned.branches) == [1000, 1331]


async def test_what_a_guest_makes_long_is_not_read_by_the_loop(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops, threads = threading.get_ident(), set()

    def noting(function: Callable[..., object]) -> Callable[..., object]:
        def note(*arguments: object) -> object:
            threads.add((function.__name__, threading.get_ident() == loops))
            return function(*arguments)

        return note

    for name in ("parse_changes", "count_files", "list_findings", "wants_reading"):
        monkeypatch.setattr(report, name, noting(getattr(report, name)))
    await host.pull(guest_with(*make_bomb(2, 10)))
    assert threads == {
        (name, False) for name in ("parse_changes", "count_files", "list_findings", "wants_reading")
    }


async def test_names_that_are_too_many_to_compare_are_told(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_COMPARED_BYTES", 100)
    returned = await host.pull(guest_with(*make_bomb(2, 10)))
    assert [finding.what for finding in returned.branches[0].findings] == [
        "the tree has too many names to compare them: some may be the same on other systems"
    ]


async def test_a_pull_that_trickles_ends(host: Host) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        yield struct.pack(">4sII", b"PACK", 2, 1) + encode_header(BLOB, 1 << 20) + b"\x78\x01"
        yield b"\x00" + struct.pack("<HH", 60000, 60000 ^ 0xFFFF)
        while True:
            await asyncio.sleep(0.05)
            yield b"x"

    agent = HostileAgent(branches=main_at(GOOD.id), pack=trickle)
    await host.refuse(agent, "all of it than 2 s", limits=LIMITS._replace(pull_s=2))


async def test_words_on_stderr_are_bounded_and_harmless(host: Host) -> None:
    agent = HostileAgent(status=1, errors=b"\x1b]0;title\x07" * 100_000)
    problem = await host.refuse(agent, "failed")
    assert len(problem.detail or "") <= 2000
    assert "\x1b" not in (problem.detail or "")


# Names

HOSTILE_REFS = (
    b"refs/heads/../../heads/main", b"refs/heads/a..b", b"refs/heads/a\x1b[31mb", b"refs/heads/--upload-pack=x",
    b"refs/heads/-x", b"refs/heads/a/-x", b"refs/heads/", b"refs/heads/.hidden", b"refs/heads/a.lock", b"refs/heads/a.lock/b",
    b"refs/heads/a b", b"refs/heads/a~1", b"refs/heads/a:b", b"refs/heads/a\\b", b"refs/heads/a//b", b"refs/heads/\xff",
    b"refs/heads/\xe2\x80\xaex", b"refs/heads/" + b"x" * 300, b"refs/heads/@{-1}", b"refs/heads/@", b"refs/tags/v1",
    b"refs/remotes/origin/main", b"ORIG_HEAD", b"/etc/passwd", b"", b"refs/heads/main/", b"refs/heads/a\tb", b"refs/heads/a\0b",
)  # fmt: skip


async def test_refs_with_hostile_names_are_left_out_and_told(host: Host) -> None:
    branches = b"".join(GOOD.id.encode() + b" " + name + b"\n" for name in HOSTILE_REFS)
    returned = await host.pull(HostileAgent(branches=branches + main_at(GOOD.id), pack=GOOD_PACK))
    assert [branch.ref for branch in returned.branches] == ["refs/banger/box/main"]
    assert str(len(HOSTILE_REFS)) in returned.notes[0]
    listed = run_git(host.tree, "for-each-ref", "--format=%(refname)").decode().split()
    assert listed == ["refs/banger/box/main", "refs/heads/main"]


@pytest.mark.parametrize("id_", [b"HEAD", b"-x", b"x" * 40, b"1" * 64, b"1" * 39, b"$(id)", b"--all"])
async def test_ids_that_are_none_are_left_out(host: Host, id_: bytes) -> None:
    agent = HostileAgent(branches=id_ + b" refs/heads/main\n")
    returned = await host.pull(agent)
    assert returned.branches == []
    assert len(agent.requests) == 2  # no pack was asked for
    host.assert_untouched()


async def test_branches_that_cannot_be_beside_one_another_move_no_ref(host: Host) -> None:
    branches = main_at(GOOD.id) + main_at(GOOD.id).replace(b"main", b"main/x")
    with pytest.raises(Problem) as caught:
        await host.pull(HostileAgent(branches=branches, pack=GOOD_PACK))
    assert caught.value.code is Code.CONFLICT
    assert run_git(host.tree, "for-each-ref", "refs/banger") == b""
    host.assert_quiet()


async def test_words_in_commits_and_names_are_made_harmless(host: Host) -> None:
    tree = make_tree(("100644", b"\x1b[2Jred\n", FILE.id))
    commit = make_commit(
        tree.id, message=b"\x1b]0;x\x07 subject\n", author=b"\x1b[31mEve\r <e@example.com> 1 +0000"
    )
    returned = await host.pull(guest_with(FILE, tree, commit))
    (branch,) = returned.branches
    words = [branch.commits[0].subject, branch.commits[0].author, *(found.path for found in branch.findings)]
    assert all(word.isprintable() for word in words)
    assert [found.kind for found in branch.findings] == ["name"]


async def test_nothing_of_the_path_or_the_environment_runs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = host.place / "trips"
    programs = host.place / "programs"
    trips.mkdir()
    programs.mkdir()
    for name in (
        "git",
        "sh",
        "ssh",
        "less",
        "gpg",
        "prlimit",
        "git-remote-ext",
        "cat",
        "xargs",
        "git-lfs",
        "vi",
    ):
        (programs / name).write_text(f"#!/bin/sh\n: >'{trips}/{name}'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for key in (
        "GIT_EXTERNAL_DIFF",
        "GIT_SSH",
        "GIT_PAGER",
        "GIT_EDITOR",
        "GIT_ASKPASS",
        "GIT_PROXY_COMMAND",
        "PAGER",
    ):
        monkeypatch.setenv(key, str(programs / "sh"))
    monkeypatch.setenv("GIT_DIR", str(host.place))
    monkeypatch.setenv("GIT_TRACE", str(trips / "trace"))
    returned = await host.pull(HostileAgent(branches=main_at(GOOD.id), pack=GOOD_PACK))
    assert returned.branches[0].commit == GOOD.id
    host.assert_quiet()
