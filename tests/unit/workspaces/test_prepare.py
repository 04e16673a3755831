"""A repository on its way in, against plain git."""

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.support.nasty import CORPUS
from tests.support.preparing import (
    Preparing,
    check_round,
    fingerprint,
    has_anything_to_bring,
    list_objects,
    open_preparing,
    read_all,
    read_tracked,
    require_same,
)
from tests.support.repositories import (
    Case,
    Git,
    Link,
    Remove,
    Write,
    commit,
    git,
    make_plain,
    perform,
    repositories,
    run_git,
)

from banger.base.problem import Code, Problem
from banger.services.workspaces import guest, prepare, scripts

_PLAIN = (
    Write(b"README", b"hello\n"),
    Write(b"src/main.c", b"int main;\n"),
    Write(b"run", b"#!/bin/sh\n", 0o755),
)


@pytest.fixture
async def preparing(tmp_path: Path):
    async with open_preparing(tmp_path) as made:
        yield made


def make(preparing: Preparing, *steps: object, name: str = "host", **options: object) -> Path:
    return make_plain(preparing.outside / name, Case("case", tuple(steps) or _PLAIN, **options))


def head(tree: Path, name: str = "HEAD") -> str:
    return run_git(tree, "rev-parse", name).decode().strip()


def is_borrowing(host: Path) -> bool:
    return (host / ".git/objects/info/alternates").exists()


def has_submodules(host: Path) -> bool:
    return b"160000 " in run_git(host, "-c", "core.fsmonitor=false", "ls-files", "-s")


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
async def test_the_nasty_ones_arrive_byte_for_byte_and_the_host_is_untouched(
    preparing: Preparing, case: Case
):
    host = case.build(preparing.outside / "case")
    if is_borrowing(host):
        with pytest.raises(Problem, match="borrows objects"):
            await preparing.prepare(host)
        return
    before = fingerprint(preparing.outside / "case")
    options = {"full": True} if has_submodules(host) else {}
    if not has_anything_to_bring(host):
        with pytest.raises(Problem, match="nothing that git tracks"):
            await preparing.prepare(host, **options)
        return
    prepared = await preparing.prepare(host, **options)
    assert prepared.changed
    if options:
        mine = {name: found for name, found in read_all(preparing.inside).items() if b"sub" not in name}
        assert mine == read_tracked(host)
    else:
        require_same(preparing, host)
    assert not (await preparing.prepare(host, **options)).changed
    assert fingerprint(preparing.outside / "case") == before
    assert list(preparing.scratch.iterdir()) == []


@settings(max_examples=20)
@given(case=repositories())
async def test_any_repository_arrives_and_what_is_done_to_it_follows(tmp_path_factory, case: Case):
    async with open_preparing(tmp_path_factory.mktemp("random")) as preparing:
        await check_round(preparing, case)


# What goes


async def test_nothing_beyond_the_window_goes(preparing: Preparing):
    host = make(preparing)
    for number in range(4):
        perform(host, [Write(b"counter", b"%d\n" % number), *commit(f"count {number}")])
    run_git(host, "tag", "old", "HEAD~2")
    run_git(host, "branch", "side", "HEAD~1")
    await preparing.prepare(host)
    window = set(run_git(host, "rev-list", "--objects", "--no-object-names", "HEAD^{tree}").decode().split())
    snapshot = head(preparing.inside, "refs/banger/prepared")
    assert list_objects(preparing.inside) == {*window, head(host), snapshot}
    assert run_git(preparing.inside, "rev-list", "--count", "HEAD") == b"1\n"


async def test_a_deeper_window_has_so_many_generations(preparing: Preparing):
    host = make(preparing)
    for number in range(5):
        perform(host, [Write(b"counter", b"%d\n" % number), *commit(f"count {number}")])
    await preparing.prepare(host, depth=3)
    assert run_git(preparing.inside, "rev-list", "HEAD") == run_git(host, "rev-list", "-3", "HEAD")
    assert head(host, "HEAD~3") not in list_objects(preparing.inside)


async def test_a_full_one_has_the_branch_with_its_tags_and_no_other(preparing: Preparing):
    host = make(preparing)
    perform(host, [Write(b"a", b"1"), *commit("a"), git("tag", "-a", "-m", "x", "v1"), git("branch", "side")])
    perform(
        host, [git("checkout", "-q", "side"), Write(b"b", b"2"), *commit("b"), git("checkout", "-q", "main")]
    )
    await preparing.prepare(host, full=True)
    assert run_git(preparing.inside, "rev-list", "HEAD") == run_git(host, "rev-list", "HEAD")
    assert head(preparing.inside, "v1") == head(host, "v1")
    assert head(host, "side") not in list_objects(preparing.inside)


async def test_a_second_prepare_sends_only_what_is_new(preparing: Preparing):
    host = make(preparing, *_PLAIN, Write(b"large", os.urandom(300_000)), Write(b"changed", b""))
    perform(host, [Write(b"changed", os.urandom(200_000))])
    first = await preparing.prepare(host)
    perform(host, [Write(b"small", b"new\n"), git("add", "small"), git("commit", "-qm", "only small")])
    second = await preparing.prepare(host)
    assert first.sent_bytes > 500_000
    assert second.changed
    assert second.sent_bytes < 5_000
    require_same(preparing, host)


async def test_untracked_and_ignored_files_stay_home_unless_named(preparing: Preparing):
    host = make(preparing, *_PLAIN, Write(b".gitignore", b".env\nbuild/\n"))
    perform(
        host,
        [Write(b".env", b"KEY=1\n"), Write(b"build/a", b"a"), Write(b"build/b/c", b"c"), Write(b"new", b"n")],
    )
    plan = await preparing.plan(host)
    assert sorted(plan.stays_home) == [".env", "build/", "new"]
    assert any("staying home: .env" in warning for warning in plan.warnings)
    await preparing.prepare(host)
    assert not {b".env", b"build/a", b"new"} & set(read_all(preparing.inside))
    await preparing.prepare(host, untracked=True)
    assert b"new" in read_all(preparing.inside)
    assert b".env" not in read_all(preparing.inside)
    await preparing.prepare(host, include=[".env", "build"])
    assert {b".env", b"build/a", b"build/b/c"} <= set(read_all(preparing.inside))
    assert b"new" not in read_all(preparing.inside)
    await preparing.prepare()  # as before
    assert b".env" in read_all(preparing.inside)


async def test_a_plan_lists_exactly_what_goes_and_its_bytes(preparing: Preparing):
    host = make(preparing)
    perform(
        host,
        [
            Write(b"README", b"changed\n"),
            Remove(b"src/main.c"),
            Write(b"new", b"12345"),
            git("add", "new"),
            Link(b"run", b"x"),
        ],
    )
    plan = await preparing.plan(host)
    assert [(file.change, file.path, file.size_bytes) for file in plan.files] == [
        ("modified", "README", 8),
        ("added", "new", 5),
        ("type", "run", 1),
        ("deleted", "src/main.c", 0),
    ]
    assert not preparing.inside.exists()
    prepared = await preparing.prepare(host)
    assert prepared.sent_bytes == plan.transfer_bytes
    assert (await preparing.plan(host, vm="web", guest_path=str(preparing.inside))).up_to_date


async def test_work_begins_in_the_same_subdirectory(preparing: Preparing):
    host = make(preparing)
    prepared = await preparing.prepare(host / "src")
    assert prepared.workspace.subdirectory == "src"
    assert prepared.workspace.directory == f"{preparing.inside}/src"
    perform(host, [Write(b"src/.env", b"x"), Write(b".env", b"y")])
    await preparing.prepare(host / "src", include=[".env"])
    assert b"src/.env" in read_all(preparing.inside)
    assert b".env" not in read_all(preparing.inside)


async def test_the_checkout_knows_who_commits_and_where_from_without_a_password(preparing: Preparing):
    host = make(preparing)
    run_git(host, "config", "user.name", 'A "quoted" näme')
    run_git(host, "config", "user.email", "a@example.com")
    run_git(host, "config", "remote.origin.url", "https://me:secret@example.com/x.git?token=secret")
    run_git(host, "config", "core.hooksPath", "/tmp/hooks")
    await preparing.prepare(host)
    config = (preparing.inside / ".git/config").read_text()
    assert run_git(preparing.inside, "config", "user.name").decode().strip() == 'A "quoted" näme'
    assert run_git(preparing.inside, "config", "remote.origin.url") == b"https://example.com/x.git\n"
    assert "secret" not in config
    assert "hooks" not in config


async def test_a_branch_of_its_own_begins_in_the_guest_only(preparing: Preparing):
    host = make(preparing)
    perform(host, [Write(b"README", b"second\n"), *commit("second"), Write(b"README", b"not committed\n")])
    prepared = await preparing.prepare(host, branch="try/it", commit="HEAD~1")
    assert run_git(preparing.inside, "symbolic-ref", "HEAD") == b"refs/heads/try/it\n"
    assert head(preparing.inside) == head(host, "HEAD~1")
    assert (preparing.inside / "README").read_bytes() == b"hello\n"
    assert any("stay home" in warning for warning in prepared.warnings)
    assert b"try" not in run_git(host, "branch", "--list")


async def test_submodules_come_with_a_full_one(preparing: Preparing):
    inner = make(preparing, Write(b"in", b"inner\n"), name="inner")
    host = make(preparing)
    run_git(host, "submodule", "--quiet", "add", str(inner), "lib/inner")
    perform(host, commit("with a submodule"))
    perform(host, [Write(b"lib/inner/in", b"changed\n")])
    with pytest.raises(Problem, match="lib/inner") as caught:
        await preparing.prepare(host)
    assert caught.value.code is Code.BAD_REQUEST
    assert not preparing.inside.exists()
    await preparing.prepare(host, full=True)
    assert (preparing.inside / "lib/inner/in").read_bytes() == b"changed\n"
    assert run_git(preparing.inside / "lib/inner", "status", "--porcelain") == b" M in\n"
    assert run_git(preparing.inside, "status", "--porcelain").split() == [b"M", b"lib/inner"]
    perform(host, [Git(("commit", "-qam", "inner"), b"lib/inner")])
    assert (await preparing.prepare()).changed
    assert head(preparing.inside / "lib/inner") == head(host / "lib/inner")
    assert (await preparing.plan(host / "lib/inner")).host_root == str(host / "lib/inner")


async def test_a_tree_whose_every_tracked_file_is_gone_arrives_as_that(preparing: Preparing):
    host = make(preparing)
    await preparing.prepare(host)
    for path in read_tracked(host):
        (host / os.fsdecode(path)).unlink()
    assert (await preparing.prepare(host)).changed
    require_same(preparing, host)
    assert read_all(preparing.inside) == {}
    (host / "README").mkdir()
    (host / "README/inner").write_text("where git tracks a file")
    assert not (await preparing.prepare(host)).changed


async def test_a_repository_without_commits_brings_what_is_staged(preparing: Preparing):
    host = make(preparing, commits=False)
    with pytest.raises(Problem, match="nothing that git tracks"):
        await preparing.prepare(host)
    run_git(host, "add", "README")
    prepared = await preparing.prepare(host)
    assert set(read_all(preparing.inside)) == {b"README"}
    assert any("no commits" in warning for warning in prepared.warnings)
    perform(host, commit("the first"))
    await preparing.prepare(host)
    require_same(preparing, host)


async def test_a_sha256_repository_arrives(preparing: Preparing):
    host = make(preparing, object_format="sha256")
    perform(host, [Write(b"README", b"changed\n")])
    await preparing.prepare(host)
    require_same(preparing, host)


# What the guest has done


async def test_what_the_guest_changed_is_not_thrown_away_unless_forced(preparing: Preparing):
    host = make(preparing)
    await preparing.prepare(host)
    (preparing.inside / "README").write_text("the guest's")
    (preparing.inside / "new").write_text("the guest's")
    assert not (await preparing.prepare()).changed
    perform(host, [Write(b"src/main.c", b"void\n"), *commit("next")])
    with pytest.raises(Problem, match=r"work that would be lost.*README") as caught:
        await preparing.prepare()
    assert caught.value.code is Code.CONFLICT
    assert (preparing.inside / "README").read_text() == "the guest's"
    prepared = await preparing.prepare(force=True)
    assert any("thrown away" in warning for warning in prepared.warnings)
    assert (preparing.inside / "README").read_bytes() == b"hello\n"
    assert (preparing.inside / "new").read_text() == "the guest's"
    assert head(preparing.inside) == head(host)


async def test_commits_that_the_host_has_not_are_not_thrown_away(preparing: Preparing):
    host = make(preparing)
    await preparing.prepare(host)
    perform(preparing.inside, [Write(b"README", b"better\n"), *commit("in the guest")])
    made = head(preparing.inside)
    perform(host, [Write(b"x", b"x"), *commit("on the host")])
    with pytest.raises(Problem, match="work that would be lost"):
        await preparing.prepare()
    assert (await preparing.status()).guest_commits == 1
    run_git(host, "fetch", "-q", str(preparing.inside), f"{made}:refs/banger/web/main")
    perform(preparing.inside, [git("checkout", "-q", "--", ".")])
    await preparing.prepare(force=True)
    assert head(preparing.inside) == head(host)


async def test_commits_that_were_brought_back_are_no_obstacle(preparing: Preparing):
    """The usual round: in, work, pull, merge, in again."""
    host = make(preparing)
    perform(host, [Write(b"src/main.c", b"not committed on the host\n")])
    await preparing.prepare(host)
    (preparing.inside / "README").write_text("better\n")
    (preparing.inside / "made").write_text("in the guest\n")
    run_git(preparing.inside, "add", "README", "made")
    run_git(preparing.inside, "commit", "-qm", "work")
    (preparing.inside / "build-output").write_text("x")
    run_git(host, "fetch", "-q", str(preparing.inside), "HEAD:refs/banger/web/main")
    run_git(host, "merge", "-q", "--ff-only", "refs/banger/web/main")
    perform(host, [Write(b"README", b"better still\n"), git("commit", "-qm", "more", "README")])
    await preparing.prepare()
    (preparing.inside / "build-output").unlink()
    require_same(preparing, host)


async def test_what_was_not_committed_with_the_rest_still_is_an_obstacle(preparing: Preparing):
    host = make(preparing)
    await preparing.prepare(host)
    perform(
        preparing.inside, [Write(b"README", b"better\n"), *commit("work"), Write(b"run", b"not committed\n")]
    )
    run_git(host, "fetch", "-q", str(preparing.inside), "HEAD:refs/banger/web/main")
    run_git(host, "merge", "-q", "--ff-only", "refs/banger/web/main")
    with pytest.raises(Problem, match=r"would be lost: changed in \S+: run$"):
        await preparing.prepare()


async def test_a_file_of_the_guests_in_the_way_is_kept(preparing: Preparing):
    host = make(preparing)
    await preparing.prepare(host)
    (preparing.inside / "new").write_text("the guest's")
    perform(host, [Write(b"new", b"the host's\n"), *commit("new")])
    with pytest.raises(Problem, match=r"overwritten.*new"):
        await preparing.prepare()
    assert (preparing.inside / "new").read_text() == "the guest's"
    await preparing.prepare(force=True)
    assert (preparing.inside / "new").read_text() == "the host's\n"


async def test_a_directory_that_is_no_workspace_is_left_alone(preparing: Preparing):
    host = make(preparing)
    preparing.inside.mkdir(parents=True)
    await preparing.prepare(host)  # an empty one is fine
    other = make(preparing, name="other")
    with pytest.raises(Problem, match="holds another repository"):
        await preparing.prepare(other)
    await preparing.prepare(other, force=True)
    strange = preparing.outside / "guest" / "strange"
    strange.mkdir()
    (strange / "file").write_text("precious")
    with pytest.raises(Problem, match="is no workspace"):
        await preparing.prepare(host, guest_path=str(strange))
    assert (strange / "file").read_text() == "precious"


async def test_an_update_that_was_cut_short_is_mended_by_the_next(preparing: Preparing):
    host = make(preparing, *(Write(b"f%d" % number, b"one\n") for number in range(9)))
    await preparing.prepare(host)
    before = fingerprint(preparing.inside / ".git" / "banger")
    perform(host, [*(Write(b"f%d" % number, b"two\n") for number in range(9)), *commit("two")])
    await preparing.prepare()
    target = (preparing.inside / ".git/banger/brought").read_text().split()[0]
    for path, (_, _, _, content) in before.items():  # as it was before, but for half of the tree
        if path.endswith(("brought", "/index", "heads/prepared")):
            Path(path).write_bytes(content)
    (preparing.inside / ".git/banger/target").write_text(f"{target}\n")
    (preparing.inside / ".git/banger/index.lock").write_bytes(b"")
    for number in range(4):
        (preparing.inside / f"f{number}").write_bytes(b"one\n")
    run_git(
        preparing.inside,
        "update-ref",
        "refs/banger/prepared",
        (before[str(preparing.inside / ".git/banger/brought")][3]).decode().split()[0],
    )
    perform(host, [Write(b"f8", b"three\n"), *commit("three")])
    await preparing.prepare()
    require_same(preparing, host)
    assert not (preparing.inside / ".git/banger/target").exists()


async def test_a_first_one_that_was_cut_short_leaves_nothing_in_place(preparing: Preparing):
    host = make(preparing)
    aside = preparing.inside.with_name(".repo.banger")
    aside.mkdir(parents=True)
    (aside / "half").write_text("")
    await preparing.prepare(host)
    require_same(preparing, host)
    assert sorted(path.name for path in preparing.inside.parent.iterdir()) == ["repo"]


# Bad input


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda at: at.mkdir(), "not in a git repository"),
        (lambda at: run_git(at.parent, "init", "-q", "--bare", str(at)), "bare repository"),
        (lambda at: at.write_text(""), "is not a directory"),
        (lambda at: None, "there is no directory"),
    ],
)
async def test_what_is_no_repository_is_refused_in_a_line(preparing: Preparing, make_it, words: str):
    at = preparing.outside / "it"
    make_it(at)
    with pytest.raises(Problem, match=words) as caught:
        await preparing.prepare(at)
    assert caught.value.hint
    assert "\n" not in caught.value.brief


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"commit": "0" * 40}, "is no commit"),
        ({"commit": "--help"}, "is no commit"),
        ({"branch": "a..b"}, "is not a branch's name"),
        ({"branch": "-x"}, "is not a branch's name"),
        ({"include": ["nowhere"]}, "there is no nowhere"),
        ({"include": ["../outside"]}, "is no path in the repository"),
        ({"include": [".git/config"]}, "is no path in the repository"),
        ({"include": ["/etc/passwd"]}, "is no path in the repository"),
        ({"guest_path": "relative"}, "not an absolute path"),
        ({"guest_path": "/root/../etc"}, "not an absolute path"),
        ({"guest_path": "/proc/x"}, "the guest's own"),
        ({"full": True, "depth": 3}, "contradict"),
    ],
)
async def test_bad_options_are_refused_and_change_nothing(preparing: Preparing, options: dict, words: str):
    host = make(preparing)
    with pytest.raises(Problem, match=words) as caught:
        await preparing.prepare(host, **options)
    assert caught.value.code is Code.BAD_REQUEST
    assert not preparing.inside.parent.exists()


async def test_a_detached_head_is_told_and_stays_detached(preparing: Preparing):
    host = make(preparing)
    run_git(host, "checkout", "-q", "--detach")
    prepared = await preparing.prepare(host)
    assert any("detached" in warning for warning in prepared.warnings)
    assert run_git(preparing.inside, "symbolic-ref", "-q", "HEAD", check=False) == b""


async def test_another_owners_repository_is_refused(preparing: Preparing):
    host = make(preparing)
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    for path in (host, host / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(Problem, match="another owner") as caught:
        await preparing.prepare(host)
    assert caught.value.code is Code.UNAUTHORIZED


async def test_a_guest_without_git_is_told_before_anything_is_changed(preparing: Preparing, monkeypatch):
    host = make(preparing)
    monkeypatch.setattr(scripts, "LOOK", scripts.LOOK.replace("command -v git", "command -v no-such-git"))
    with pytest.raises(Problem, match="has no git") as caught:
        await preparing.prepare(host)
    assert caught.value.code is Code.UNAVAILABLE
    assert not preparing.inside.parent.exists()


# Nothing outside is read, nothing is run


async def test_links_go_as_links_and_nothing_behind_them(preparing: Preparing):
    secret = preparing.outside / "secret"
    secret.mkdir()
    (secret / "key").write_text("SECRET")
    host = make(preparing, Write(b"d/key", b"mine\n"), Write(b"other", b"o\n"))
    perform(
        host,
        [Remove(b"d"), Link(b"d", os.fsencode(secret)), Remove(b"other"), Link(b"other", b"../secret/key")],
    )
    await preparing.prepare(host)
    assert read_all(preparing.inside) == {b"other": ("link", b"../secret/key")}
    with pytest.raises(Problem, match="cannot be read"):
        await preparing.prepare(host, include=["d/key"])


async def test_a_git_file_that_points_elsewhere_is_refused(preparing: Preparing):
    private = make(preparing, Write(b"key", b"SECRET"), name="private")
    evil = preparing.outside / "evil"
    evil.mkdir()
    (evil / ".git").write_text(f"gitdir: {private}/.git\n")
    with pytest.raises(Problem, match="does not know it"):
        await preparing.prepare(evil)
    (evil / ".git").unlink()
    (evil / ".git").symlink_to(private / ".git")
    with pytest.raises(Problem, match="does not know it"):
        await preparing.prepare(evil)


async def test_a_working_tree_elsewhere_is_refused(preparing: Preparing):
    home = preparing.outside / "home"
    home.mkdir()
    (home / "README").write_text("SECRET")
    host = make(preparing)
    run_git(host, "config", "core.worktree", str(home))
    with pytest.raises(Problem, match="does not know it"):
        await preparing.prepare(host)


async def test_objects_of_another_repository_are_refused(preparing: Preparing):
    make(preparing, name="private")
    run_git(preparing.outside, "clone", "-q", "--shared", "private", "evil")
    with pytest.raises(Problem, match="borrows objects") as caught:
        await preparing.prepare(preparing.outside / "evil")
    assert "repack" in (caught.value.hint or "")


async def test_nothing_that_the_repository_configures_runs(preparing: Preparing):
    host = make(preparing, *_PLAIN, Write(b".gitattributes", b"* filter=trip diff=trip\n"))
    trip = f"touch {preparing.outside}/ran; cat"
    for key in (
        "core.fsmonitor",
        "filter.trip.clean",
        "filter.trip.smudge",
        "filter.trip.process",
        "core.pager",
    ):
        run_git(host, "config", key, trip)
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit"):
        path = host / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{trip}\n")
        path.chmod(0o755)
    (host / "README").write_text("changed\n")
    subprocess.run(["touch", host / "src/main.c"], check=True)
    await preparing.plan(host)
    await preparing.prepare(host)
    assert not (preparing.outside / "ran").exists()
    assert not (preparing.inside / ".git/hooks").exists()
    assert (preparing.inside / "README").read_text() == "changed\n"


async def test_an_index_that_names_files_outside_reads_none(preparing: Preparing):
    """git itself writes no such index; whoever has packed a repository into an archive may."""
    (preparing.outside / "secret").write_bytes(b"SECRET\n")
    host = make(preparing, Write(b"xx/secret", b"a\n"), Write(b"README", b"b\n"))
    index = host / ".git/index"
    content = index.read_bytes().replace(b"xx/secret", b"../secret")
    index.write_bytes(content[:-20] + hashlib.sha1(content[:-20], usedforsecurity=False).digest())
    assert b"../secret" in run_git(host, "ls-files")
    await preparing.prepare(host)
    assert read_all(preparing.inside) == {b"README": ("file", b"b\n")}
    kept = preparing.inside / ".git"
    assert run_git(
        kept, "hash-object", str(preparing.outside / "secret")
    ).decode().strip() not in list_objects(kept)


async def test_packs_that_are_links_are_refused(preparing: Preparing):
    private = make(preparing, name="private")
    run_git(private, "repack", "-a", "-d", "-q")
    host = make(preparing)
    for pack in (private / ".git/objects/pack").iterdir():
        (host / ".git/objects/pack" / pack.name).symlink_to(pack)
    with pytest.raises(Problem, match="borrows objects"):
        await preparing.prepare(host)


# Cut short


async def test_a_repository_that_breaks_off_leaves_the_guest_as_it_was(preparing: Preparing, monkeypatch):
    host = make(preparing, *_PLAIN, Write(b"large", os.urandom(2_000_000)))
    whole = prepare.stream_pack

    async def broken(*arguments: object, **options: object):
        count = 0
        async for data in whole(*arguments, **options):
            count += 1
            if count > 3:
                raise Problem(Code.OPERATION_FAILED, "it broke off")
            yield data

    monkeypatch.setattr(prepare, "stream_pack", broken)
    with pytest.raises(Problem, match="it broke off"):
        await preparing.prepare(host)
    assert list(preparing.inside.parent.iterdir()) == []
    assert list(preparing.scratch.iterdir()) == []
    monkeypatch.undo()
    await preparing.prepare(host)
    require_same(preparing, host)


async def test_a_caller_who_leaves_in_the_middle_is_no_harm(preparing: Preparing, monkeypatch):
    host = make(preparing, *_PLAIN, Write(b"large", os.urandom(2_000_000)))
    whole = prepare.stream_pack
    begun = asyncio.Event()

    async def endless(*arguments: object, **options: object):
        async for data in whole(*arguments, **options):
            yield data
            begun.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(prepare, "stream_pack", endless)
    task = asyncio.create_task(preparing.prepare(host))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(preparing.inside.parent.iterdir()) == []
    monkeypatch.undo()
    await preparing.prepare(host)
    require_same(preparing, host)


async def test_two_prepares_of_one_vm_follow_one_another(preparing: Preparing):
    host = make(preparing)
    both = await asyncio.gather(preparing.prepare(host), preparing.prepare(host))
    assert sorted(prepared.changed for prepared in both) == [False, True]
    require_same(preparing, host)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"work\n",
        b"git there\nkind ours\nprepared --upload-pack=x\nbase ../../x\nhead $(id)\ncommit ; rm\non \x1b[31m\nwork\n M a\0",
        b"kind ours\ntarget x\n\0\0unlike\0\0\0 M\0work\n\0M\0 M ok\0\0\0work\0\0\0\0",
        bytes(range(256)) * 100,
        b"commit " + b"a" * 40 + b"\n" * 3,
        b"free 99999999999999999999\nfree x\n",
        b"free " + b"9" * 5000 + b"\n",
    ],
)
def test_whatever_a_guest_answers_is_ids_or_nothing(output: bytes):
    seen = guest.parse_seen(output)
    for oid in (seen.prepared, seen.base, seen.head, *seen.commits):
        assert oid == "" or len(oid) in (40, 64)
    assert seen.branch.isprintable()


async def test_a_read_only_one_is_so_again_when_its_guest_has_booted(preparing: Preparing, monkeypatch):
    host = make(preparing)
    locked: asyncio.Queue[str] = asyncio.Queue()

    async def lock(agent: object, path: str) -> None:
        locked.put_nowait(path)

    async def unlock(agent: object, path: str) -> None: ...

    monkeypatch.setattr(guest, "lock", lock)
    monkeypatch.setattr(guest, "unlock", unlock)
    preparing.service.open()
    await preparing.prepare(host, read_only=True)
    assert locked.get_nowait() == str(preparing.inside)
    preparing.vms.met(preparing.vms.vm.id, preparing.vms.agent)
    assert await locked.get() == str(preparing.inside)
    await preparing.prepare()
    preparing.vms.met(preparing.vms.vm.id, preparing.vms.agent)
    await asyncio.sleep(0)
    assert locked.empty()
