"""Patches out of a guest: `git apply` on the host gives the guest's tree, byte for byte."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.support.crafted_packs import HostileAgent
from tests.support.nasty import CORPUS, UNCOMMITTABLE, find_case
from tests.support.repositories import (
    Case,
    Tree,
    Write,
    commit,
    has_link_loops,
    perform,
    read_paths,
    read_working_tree,
    repositories,
    run_git,
    write_tree,
)
from tests.support.workspace_guest import Brought, open_workspace

from banger.base.problem import Code, Problem
from banger.model.workspace import Workspace
from banger.services.workspaces.export import Bounds, plan_diff, plan_export, read_script, relay


def has_attributes(case: Case) -> bool:
    """Then git may change the ends of lines on the way, and says so."""
    return any(isinstance(step, Write) and step.path == b".gitattributes" for step in case.before)


async def export(brought: Brought, base_commit: str | None = None, *, commits: bool = False) -> bytes:
    request = plan_export(brought.workspace, base_commit, commits=commits)
    pieces = read_script(brought.agent, brought.workspace, request, Bounds())
    return b"".join([piece async for piece in pieces])


def apply(tree: Path, patch: bytes) -> None:
    if patch:
        run_git(tree, "apply", "--whitespace=nowarn", input_=patch)


def guest_state(inside: Path) -> dict[str, bytes]:
    """All of the guest's repository that an export must leave alone."""
    directory = inside / ".git"
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def tidy(host: Path) -> None:
    """Away with what stays on the host by design, and would be in the way there: ignored files, empty directories."""
    run_git(host, "clean", "-f", "-d", "-X", "--quiet")
    for path in sorted(host.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and ".git" not in path.parts and not any(path.iterdir()):
            path.rmdir()


def without_nested(tree: Tree) -> Tree:
    return {name: value for name, value in tree.items() if value[0] != "nested"}


async def round_trip(case: Case, place: Path, *, is_exact: bool = True, is_random: bool = False) -> None:
    """Not exact: as git's attributes have it, which may change the ends of lines on the way. Random changes may ask
    `git apply` for what it cannot do."""
    host = case.build(place / "work")
    tidy(host)
    if is_random and has_link_loops(host):
        return
    async with open_workspace(host, place / "guest") as brought:
        assert without_nested(read_working_tree(host)) == without_nested(read_working_tree(brought.inside))
        perform(brought.inside, case.change)
        wanted = without_nested(read_working_tree(brought.inside))
        state = guest_state(brought.inside)
        patch = await export(brought)
        assert guest_state(brought.inside) == state
        apply(host, patch)
        if is_exact:
            assert read_paths(host, wanted) == wanted
        assert read_paths(host, wanted).keys() == wanted.keys()
        assert without_nested(read_working_tree(host)).keys() <= wanted.keys()
        assert write_tree(host, wanted) == write_tree(brought.inside, wanted)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
async def test_git_apply_on_the_host_gives_the_guests_tree(case: Case, tmp_path: Path) -> None:
    await round_trip(case, tmp_path)


@given(case=repositories())
@settings(max_examples=12)
def test_any_repository_comes_back_as_a_patch(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("any", numbered=True)
    try:
        asyncio.run(round_trip(case, place, is_exact=not has_attributes(case), is_random=True))
    finally:
        shutil.rmtree(place)


@asynccontextmanager
async def opened(place: Path, name: str = "an ordinary change") -> AsyncIterator[Brought]:
    async with open_workspace(find_case(name).build(place / "work"), place / "guest") as brought:
        yield brought


async def test_files_that_git_cannot_keep_are_left_out_of_the_patch(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [*UNCOMMITTABLE, Write(b"good", b"g\n")])
        patch = await export(brought)
        apply(brought.host, patch)
    assert (brought.host / "good").read_bytes() == b"g\n"
    assert patch.count(b"diff --git") == 1


async def test_a_patch_against_a_commit_of_the_guests(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, [Write(b"one", b"1\n"), *commit("one"), Write(b"two", b"2\n")])
        patch = await export(brought, "HEAD")
        assert b"b/two" in patch
        assert b"b/one" not in patch
        for name in ("no-such", "HEAD~9", "1" * 40):
            with pytest.raises(Problem, match="has no commit") as caught:
                await export(brought, name)
            assert caught.value.code is Code.BAD_REQUEST
        for name in ("--output=/tmp/x", "a b", "-x", "HEAD\n", "", "HEAD:README", "x" * 300):
            with pytest.raises(Problem, match="is no commit"):
                await export(brought, name)


async def test_commits_as_mail_are_the_same_trees_after_git_am(tmp_path: Path) -> None:
    case = find_case("odd names")
    async with open_workspace(
        case._replace(overlay=()).build(tmp_path / "work"), tmp_path / "guest"
    ) as brought:
        perform(brought.inside, [*case.change, *commit("the other half"), Write(b"not committed", b"x\n")])
        mail = await export(brought, commits=True)
        run_git(brought.host, "am", "--quiet", "--keep-cr", input_=mail)
        wanted = run_git(brought.inside, "rev-parse", "HEAD^{tree}")
    assert run_git(brought.host, "rev-parse", "HEAD^{tree}") == wanted
    assert run_git(brought.host, "log", "--format=%s", "-2").decode().split("\n")[:2] == [
        "the other half",
        "half",
    ]


async def test_the_configuration_of_the_guests_repository_changes_no_patch(tmp_path: Path) -> None:
    async with opened(tmp_path, "attributes") as brought:
        perform(brought.inside, find_case("attributes").change)
        plain = await export(brought)
        mail = await export(brought, commits=True)
        settings_ = {
            "diff.external": "touch ran; false", "diff.absent.textconv": "touch ran; cat", "diff.absent.command": "touch ran",
            "core.pager": "touch ran", "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.context": "0",
            "diff.renames": "copies", "color.ui": "always", "diff.orderFile": "README", "diff.relative": "true",
            "diff.submodule": "log", "diff.wsErrorHighlight": "all", "core.quotePath": "true", "diff.algorithm": "patience",
            "core.fsmonitor": "touch ran; echo", "core.hooksPath": str(tmp_path / "hooks"), "format.signOff": "true",
            "format.coverLetter": "true", "format.signature": "x", "format.attach": "x", "format.notes": "true",
            "format.outputDirectory": str(tmp_path / "elsewhere"), "format.to": "x@example.com", "alias.diff-tree": "!touch ran",
            "diff.interHunkContext": "9", "diff.srcPrefix": "x", "log.showSignature": "true", "core.splitIndex": "true",
        }  # fmt: skip
        for key, value in settings_.items():
            run_git(brought.inside, "config", key, value)
        hook = tmp_path / "hooks" / "post-index-change"
        hook.parent.mkdir()
        hook.write_text(f"#!/bin/sh\ntouch '{brought.inside}/ran'\n")
        hook.chmod(0o755)
        assert await export(brought) == plain
        assert await export(brought, commits=True) == mail
    assert not (brought.inside / "ran").exists()
    assert not (tmp_path / "elsewhere").exists()


async def test_an_interrupted_export_is_tidied_up_by_a_later_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        left = brought.inside / ".git/banger-out.dead"
        left.mkdir()
        (left / "objects").mkdir()
        os.utime(left, (0, 0))
        await export(brought)
        assert not left.exists()


@pytest.mark.parametrize(
    ("stat", "name_only", "words"),
    [(False, False, b"+more\n"), (True, False, b"README | 1 +"), (False, True, b"README\nnew\n")],
)
async def test_a_diff_has_three_forms(tmp_path: Path, stat: bool, name_only: bool, words: bytes) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, find_case("an ordinary change").change)
        request = plan_diff(brought.workspace, stat=stat, name_only=name_only)
        shown = [piece async for piece in read_script(brought.agent, brought.workspace, request, Bounds())]
    assert words in b"".join(shown)
    assert (b"@@" in b"".join(shown)) is not (stat or name_only)


def test_two_forms_of_a_diff_at_once_are_refused() -> None:
    with pytest.raises(Problem, match="contradict"):
        plan_diff(Workspace(vm_id="x", host_root="/x", guest_path="/root/x"), stat=True, name_only=True)


class Stream:
    """A caller that notes what it is told."""

    def __init__(self) -> None:
        self.accepted = False
        self.data = b""
        self.status: int | None = None

    async def accept(self, **_about: object) -> None:
        self.accepted = True

    async def write(self, stream: int, data: bytes) -> None:
        assert stream == 1
        self.data += data

    async def finish(self, *, status: int | None = None, signal: int | None = None) -> None:
        assert signal is None
        self.status = status


async def test_a_caller_sees_the_end_only_of_what_is_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as brought:
        perform(brought.inside, find_case("an ordinary change").change)
        stream = Stream()
        request = plan_export(brought.workspace, None, commits=False)
        await relay(brought.agent, brought.workspace, request, stream)  # type: ignore[arg-type]
        assert (stream.accepted, stream.status) == (True, 0)
        assert stream.data == await export(brought)


async def test_a_guest_without_end_or_without_a_word_is_cut_off() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    workspace = Workspace(vm_id="x", host_root="/x", guest_path="/root/x", base_tree="1" * 40)
    request = plan_export(workspace, None, commits=False)
    for rest, words in ((endless, "more than 4 MiB"), (silent, "kept us waiting")):
        agent, stream = HostileAgent(rest=rest), Stream()
        with pytest.raises(Problem, match=words):
            await relay(agent, workspace, request, stream, Bounds(4 << 20, 0.3))  # type: ignore[arg-type]
        assert stream.status is None
        assert len(stream.data) <= 4 << 20


async def test_why_it_failed_in_the_guest_is_one_line_with_harmless_words() -> None:
    workspace = Workspace(vm_id="x", host_root="/x", guest_path="/root/x", base_tree="1" * 40)
    request = plan_export(workspace, None, commits=False)
    for status, words in (
        (95, "git in the guest failed"),
        (96, "no git repository"),
        (97, "no git"),
        (98, "has lost"),
    ):
        agent = HostileAgent(status=status, errors=b"fatal: \x1b[31mbad\x07\n" * 10_000)
        with pytest.raises(Problem, match=words) as caught:
            await relay(agent, workspace, request, Stream())  # type: ignore[arg-type]
        assert "\x1b" not in (caught.value.detail or "")
        assert len(caught.value.detail or "") <= 2000
