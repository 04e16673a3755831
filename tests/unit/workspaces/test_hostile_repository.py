"""A repository that somebody else has made, against the daemon that reads it: links out of it, bombs, riddles."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.preparing import Preparing, open_preparing
from tests.support.repositories import Case, Write, make_plain, run_git
from tests.support.workspace_guest import open_workspace

from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.base.trees.names import MAX_DEPTH
from banger.services.workspaces import bundle, git
from banger.services.workspaces.git import GitPlace
from banger.services.workspaces.inspect import inspect
from banger.services.workspaces.limited import Limits
from banger.services.workspaces.links import require_no_links
from banger.services.workspaces.pull import Order, pull

_ESCAPE = "s\x1b]0;title\x07"


@pytest.fixture
async def preparing(tmp_path: Path):
    async with open_preparing(tmp_path) as made:
        yield made


def make(place: Path, *steps: Write) -> Path:
    return make_plain(place, Case("case", steps or (Write(b"README", b"hello\n"),)))


async def refuse(preparing: Preparing, host: Path, words: str, **options: object) -> Problem:
    """The plan refuses it, and nothing is left behind."""
    with pytest.raises(Problem, match=words) as caught:
        await preparing.plan(host, **options)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.hint
    assert not preparing.scratch.exists() or [*preparing.scratch.iterdir()] == []
    assert "\x1b" not in f"{caught.value.brief}{caught.value.hint}{caught.value.detail}"
    return caught.value


# Links in git's own directory


async def test_loose_objects_of_another_repository_stay_home(preparing: Preparing):
    private = make(preparing.outside / "private", Write(b"secret", b"SECRET\n"))
    evil = make(preparing.outside / "evil")
    for number in range(256):
        place = evil / ".git/objects" / f"{number:02x}"
        if not place.exists():
            place.symlink_to(private / ".git/objects" / place.name)
    await refuse(preparing, evil, "borrows objects")


async def test_one_object_of_another_repository_stays_home(preparing: Preparing):
    private = make(preparing.outside / "private", Write(b"secret", b"SECRET\n"))
    evil = make(preparing.outside / "evil")
    secret = run_git(private, "rev-parse", "HEAD:secret").decode().strip()
    place = evil / ".git/objects" / secret[:2] / secret[2:]
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(private / ".git/objects" / secret[:2] / secret[2:])
    await refuse(preparing, evil, "borrows objects")


@pytest.mark.parametrize(
    "name",
    ["index", "config", "packed-refs", "shallow", "refs", "refs/heads", "refs/heads/main", "logs"],
)
async def test_gits_own_files_are_no_links(preparing: Preparing, name: str):
    private = make(preparing.outside / "private")
    run_git(private, "pack-refs", "--all", "--no-prune")
    (private / ".git/shallow").write_text("")
    evil = make(preparing.outside / "evil")
    place = evil / ".git" / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(private / ".git" / name)
    await refuse(preparing, evil, "is a link, or no file")


async def test_a_head_that_is_a_link_is_refused(preparing: Preparing):
    host = make(preparing.outside / "host")
    (host / ".git/HEAD").unlink()
    (host / ".git/HEAD").symlink_to("refs/heads/main")
    await refuse(preparing, host, "is a link, or no file")


async def test_a_pipe_among_the_refs_is_refused_before_git_waits_for_it(preparing: Preparing):
    host = make(preparing.outside / "host")
    os.mkfifo(host / ".git/refs/heads/pipe")
    await refuse(preparing, host, "is a link, or no file")


async def test_a_worktrees_own_files_are_no_links_either(preparing: Preparing):
    host = make(preparing.outside / "host")
    run_git(host, "worktree", "add", "-q", str(preparing.outside / "beside"))
    own = host / ".git/worktrees/beside"
    await preparing.plan(preparing.outside / "beside")
    (own / "logs/HEAD").unlink()
    (own / "logs/HEAD").symlink_to(preparing.outside / "victim")
    await refuse(preparing, preparing.outside / "beside", "is a link, or no file")


async def test_hooks_and_what_git_does_not_follow_may_be_links(preparing: Preparing):
    host = make(preparing.outside / "host")
    hooks = host / ".git/hooks"
    shutil.rmtree(hooks, ignore_errors=True)
    hooks.symlink_to(preparing.outside)
    assert (await preparing.plan(host)).files == []


def test_many_loose_objects_are_not_asked_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    host = make(tmp_path / "host")
    for number in range(64):
        directory = host / ".git/objects" / f"{number:02x}"
        directory.mkdir(exist_ok=True)
        for name in range(100):
            (directory / f"{name:038x}").touch()
    asked = []
    for function in ("stat", "lstat"):
        whole = getattr(os, function)
        monkeypatch.setattr(os, function, lambda *a, whole=whole, **k: asked.append(a) or whole(*a, **k))
    require_no_links(host, host / ".git", host / ".git")
    assert len(asked) < 100


@pytest.mark.parametrize(
    ("name", "words"),
    [("objects/info/alternates", "borrows objects"), ("shallow", "shallow cannot be read")],
)
@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
async def test_what_is_no_file_is_refused_in_a_line(preparing: Preparing, name: str, words: str, kind: str):
    host = make(preparing.outside / "host")
    place = host / ".git" / name
    if kind == "directory":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
        words = "is a link, or no file|borrows"
    else:
        place.symlink_to("/etc/hostname")
        words = "is a link, or no file|borrows"
    await refuse(preparing, host, words)


# A pull writes refs and reflogs, and nothing else


async def do_pull(host: Path, plant: Callable[[], None], tmp_path: Path) -> Problem:
    """A pull into a host on which something is planted after the workspace went into the guest."""
    async with open_workspace(host, tmp_path / "guest") as brought:
        (brought.inside / "README").write_text("changed\n")
        run_git(brought.inside, "commit", "-qam", "inside")
        plant()
        before = sorted((host / ".git").rglob("*"))
        with pytest.raises(Problem, match="is a link, or no file") as caught:
            await pull(
                brought.agent, brought.workspace, Order("web", (), False, Limits()), tmp_path / "q", Silent()
            )
        assert sorted((host / ".git").rglob("*")) == before
        assert not run_git(host, "for-each-ref", "refs/banger")
    return caught.value


@pytest.mark.parametrize(
    "way",
    ["logs/refs/banger/web/main", "logs/refs/banger/web", "logs/refs/banger", "logs/refs", "refs/banger/web"],
)
async def test_a_pull_follows_no_link(tmp_path: Path, way: str):
    host, victim = make(tmp_path / "host"), tmp_path / "victim"
    target = victim / "file" if way.endswith("main") else victim / "directory"
    (victim / "directory").mkdir(parents=True)
    (victim / "file").write_text("mine\n")

    def plant() -> None:
        place = host / ".git" / way
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        place.symlink_to(target)

    await do_pull(host, plant, tmp_path)
    assert (victim / "file").read_text() == "mine\n"
    assert [*(victim / "directory").iterdir()] == []


async def test_a_head_that_names_what_is_pulled_writes_no_other_log(tmp_path: Path):
    host, victim = make(tmp_path / "host"), tmp_path / "victim"
    victim.write_text("mine\n")

    def plant() -> None:
        (host / ".git/HEAD").write_text("ref: refs/banger/web/main\n")
        (host / ".git/logs/HEAD").unlink(missing_ok=True)
        (host / ".git/logs").mkdir(exist_ok=True)
        (host / ".git/logs/HEAD").symlink_to(victim)

    await do_pull(host, plant, tmp_path)
    assert victim.read_text() == "mine\n"


# Bombs


def make_bomb(host: Path, width: int, levels: int) -> Path:
    """A commit of width to the power of levels files: trees that hold one another many times."""
    kind, id_ = "100644 blob", run_git(host, "rev-parse", "HEAD:README").decode().strip()
    for _ in range(levels):
        lines = "".join(f"{kind} {id_}\tname-{number:02d}\n" for number in range(width))
        id_ = run_git(host, "mktree", input_=lines.encode()).decode().strip()
        kind = "040000 tree"
    commit = run_git(host, "commit-tree", id_, "-m", "bomb").decode().strip()
    run_git(host, "update-ref", "HEAD", commit)
    return host


async def test_a_tree_of_many_more_files_than_it_has_is_refused(
    preparing: Preparing, monkeypatch: pytest.MonkeyPatch
):
    host = make_bomb(make(preparing.outside / "host"), 10, 5)
    monkeypatch.setattr(bundle, "_FILES_MAX", 5000)
    await refuse(preparing, host, "too many files: at most 5000")


async def test_an_index_of_too_many_files_is_refused(preparing: Preparing, monkeypatch: pytest.MonkeyPatch):
    host = make(preparing.outside / "host", *(Write(b"%d" % number, b"") for number in range(20)))
    monkeypatch.setattr(bundle, "_FILES_MAX", 10)
    await refuse(preparing, host, "too many files: at most 10")


async def test_no_answer_of_gits_is_held_beyond_its_limit(
    preparing: Preparing, monkeypatch: pytest.MonkeyPatch
):
    host = make_bomb(make(preparing.outside / "host"), 10, 6)
    heard = []

    def hear(data: bytes) -> None:
        heard.append(len(data))

    talk = git._Talk(hear, None, 1 << 20)
    with pytest.raises(Problem, match="answers with more than 1 MiB"):
        await git._run(GitPlace(host), ("ls-tree", "-r", "HEAD"), talk, None, 60)
    assert sum(heard) <= 1 << 20
    monkeypatch.setattr(git, "_ANSWER_BYTES", 1 << 20)
    await refuse(preparing, host, "answers with more than 1 MiB")


async def test_a_name_without_end_is_refused_before_it_is_held(preparing: Preparing):
    host = make(preparing.outside / "host")
    id_ = run_git(host, "rev-parse", "HEAD:README").decode().strip()
    tree = b"100644 " + b"x" * 300_000 + b"\0" + bytes.fromhex(id_)
    named = run_git(host, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", input_=tree)
    commit = run_git(host, "commit-tree", named.decode().strip(), "-m", "long").decode().strip()
    run_git(host, "update-ref", "HEAD", commit)
    await refuse(preparing, host, "a path that no system takes")


async def test_git_is_fed_and_heard_at_the_same_time(tmp_path: Path):
    host = make(tmp_path / "host")
    id_ = run_git(host, "rev-parse", "HEAD").strip()
    done = await git.run_git(
        GitPlace(host), ("cat-file", "--batch-check"), stdin=b"\n".join([id_] * 50_000) + b"\n"
    )
    assert done.stdout.count(id_) == 50_000


async def test_a_git_that_does_not_listen_is_heard_to_its_end(tmp_path: Path):
    host = make(tmp_path / "host")
    with pytest.raises(Problem, match="git cat-file failed") as caught:
        await git.run_git(GitPlace(host), ("cat-file", "--no-such"), stdin=b"x" * (4 << 20))
    assert "ended with status 129" in (caught.value.detail or "")


# Depth


def make_deep(host: Path, levels: int, *, tracked: bool = False) -> None:
    descriptor = os.open(host, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    if tracked:
        run_git(host, "add", "d")
        run_git(host, "commit", "-qm", "deep")


async def test_directories_without_end_are_refused(preparing: Preparing):
    host = make(preparing.outside / "host")
    make_deep(host, 1500)
    before = len(os.listdir("/proc/self/fd"))
    await refuse(preparing, host, f"more than {MAX_DEPTH} directories deep", include=["d"])
    await refuse(preparing, host, f"more than {MAX_DEPTH} directories deep", include=["d/" * 1499 + "f"])
    await refuse(preparing, host, f"more than {MAX_DEPTH} directories deep", untracked=True)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert (await preparing.plan(host)).files == []
    subprocess.run(["rm", "-rf", host / "d"], check=True)  # Python's own gives up so deep


async def test_tracked_files_too_deep_are_refused(preparing: Preparing):
    host = make(preparing.outside / "host")
    make_deep(host, MAX_DEPTH + 1, tracked=True)
    await refuse(preparing, host, f"more than {MAX_DEPTH} directories deep")


async def test_the_deepest_that_is_taken_goes(preparing: Preparing):
    host = make(preparing.outside / "host")
    make_deep(host, MAX_DEPTH)
    plan = await preparing.plan(host, include=["d"])
    assert [each.path for each in plan.files] == ["d/" * MAX_DEPTH + "f"]


async def test_repositories_in_a_directory_that_is_named_stay_home(preparing: Preparing):
    host = make(preparing.outside / "host")
    make(host / "d/inner")
    (host / "d/beside/deeper").mkdir(parents=True)
    (host / "d/beside/deeper/file").write_text("")
    (host / "d/last").write_text("")
    plan = await preparing.plan(host, include=["d"])
    assert [each.path for each in plan.files] == ["d/beside/deeper/file", "d/last"]


# What drives a terminal


async def test_paths_in_errors_are_escaped(preparing: Preparing):
    odd = preparing.outside / _ESCAPE
    odd.mkdir()
    await refuse(preparing, odd, "is not in a git repository")
    make(odd / "file")
    await refuse(preparing, odd / "file" / "README", "is not a directory")
    with pytest.raises(Problem) as caught:
        await inspect(str(odd / "nowhere"))
    assert "\x1b" not in caught.value.brief
    host = make(odd / "host")
    await refuse(preparing, host, "is no commit of", commit="nothing")
    await refuse(preparing, host, "there is no", include=[_ESCAPE])
    (host / ".git/shallow").mkdir()
    await refuse(preparing, host, "cannot be read")
    (host / ".git/shallow").rmdir()
    (host / ".git/objects/info/alternates").write_text(f"/tmp/{_ESCAPE}\n")
    await refuse(preparing, host, "borrows objects")


async def test_a_line_break_in_the_path_of_a_repository_is_refused(preparing: Preparing):
    host = make(preparing.outside / "a\nb")
    problem = await refuse(preparing, host, "has a line break in its path")
    assert "\n" not in problem.brief
