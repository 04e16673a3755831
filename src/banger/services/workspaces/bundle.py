"""What of a repository goes into a guest, as one pack: a window of its history and the working tree as it is.

Owns a directory of its own in which git works: the repository's objects are borrowed there, its configuration, hooks
and filters are not, and nothing is written to it. The working tree becomes a commit on top of the one that it stands
on, the same one for the same files, so that what a guest has can be told by a name. A window that ends before the
history does is a shallow repository (gitformat-index, "shallow"): no object beyond its borders is reached.
"""

import os
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.base.process import Completed
from banger.model.workspace import is_object_id
from banger.services.workspaces.git import (
    HISTORY_BYTES,
    GitPlace,
    git_failed,
    read_git,
    render_words,
    run_git,
    start_git,
)
from banger.services.workspaces.inspect import Repository
from banger.services.workspaces.overlay import Item, ObjectStore

_WHO = b"banger <banger@localhost> 1000000000 +0000"
_MESSAGE = b"The working tree as banger brought it in"
_CHUNK_BYTES = 1 << 18
_TREES = "trees"
_FILES_MAX = 1_000_000  # a small repository can name many more: trees that hold one another many times


class Window(NamedTuple):
    """The history that goes: commits from `head` to `borders`, whose parents stay home."""

    head: str
    commits: int
    borders: tuple[str, ...]
    tags: tuple[tuple[str, str], ...] = ()


class Has(NamedTuple):
    """What a guest has already, by its own words: commits, and objects that are not of the host's history."""

    commits: tuple[str, ...] = ()
    objects: frozenset[str] = frozenset()


class Scratch(NamedTuple):
    """Where git works for us."""

    directory: Path

    @property
    def place(self) -> GitPlace:
        return GitPlace(self.directory, self.directory)

    @property
    def objects(self) -> Path:
        return self.directory / "objects"


@asynccontextmanager
async def open_scratch(parent: Path, repository: Repository) -> AsyncIterator[Scratch]:
    """A bare repository of ours that borrows another's objects. It goes with the block."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="workspace-", dir=parent) as name:
        directory = Path(name)
        for each in ("objects/info", "objects/pack", "refs/heads", _TREES):
            (directory / each).mkdir(parents=True)
        (directory / "HEAD").write_text("ref: refs/heads/prepared\n")
        version = "0" if repository.object_format == "sha1" else "1"
        text = f"[core]\n\trepositoryformatversion = {version}\n\tbare = true\n"
        if version == "1":
            text += f"[extensions]\n\tobjectformat = {repository.object_format}\n"
        (directory / "config").write_text(text)
        lent = b"".join(os.fsencode(each) + b"\n" for each in (repository.objects, directory / _TREES))
        (directory / "objects" / "info" / "alternates").write_bytes(lent)
        yield Scratch(directory)


async def read_commit_tree(scratch: Scratch, repository: Repository, commit: str) -> dict[bytes, Item]:
    """All files of a commit by path. Raises `bad_request` when they are too many."""
    tree: dict[bytes, Item] = {}

    def keep(record: bytes) -> None:
        about, _, path = record.partition(b"\t")
        mode, _, oid = about.decode("ascii").split(" ")
        tree[path] = Item(sys.intern(mode), oid)
        require_countable(len(tree), repository)

    await read_git(scratch.place, ("ls-tree", "-r", "-z", "--full-tree", commit), keep)
    return tree


def require_countable(count: int, repository: Repository) -> None:
    if count > _FILES_MAX:
        raise bad_request(
            f"{repository.shown} has too many files: at most {_FILES_MAX} are taken",
            hint=f"git -C {repository.shown} ls-tree -r HEAD | wc -l",
        )


async def open_window(scratch: Scratch, repository: Repository, head: str, depth: int | None) -> Window:
    """The newest commits, `depth` generations of them, or all that the host has. Git sees no other afterwards."""
    if not head:
        return Window("", 0, ())
    borders = set(repository.borders)
    if depth is not None:
        borders |= await _find_borders(scratch, repository, head, depth)
    _write_shallow(scratch, borders)
    done = await run_git(scratch.place, ("rev-list", head), limit_bytes=HISTORY_BYTES)
    listed = done.stdout.decode("ascii").split()
    tags = await _find_tags(repository, frozenset(listed)) if depth is None else ()
    return Window(head, len(listed), tuple(sorted(borders & set(listed))), tags)


class Snapshot(NamedTuple):
    """A commit of ours, and its tree."""

    commit: str
    tree: str


async def write_snapshot(
    scratch: Scratch, store: ObjectStore, tree: Mapping[bytes, Item], base: str
) -> Snapshot:
    """The working tree as a commit, on top of `base` if there is one. Its trees are made where git sees no others: of
    one that it finds it renews the time, in the owner's repository, too."""
    apart = {
        "GIT_INDEX_FILE": str(scratch.directory / "snapshot.index"),
        "GIT_OBJECT_DIRECTORY": str(scratch.directory / _TREES),
    }
    lines = b"".join(
        f"{item.mode} {item.oid}\t".encode() + path + b"\0" for path, item in sorted(tree.items())
    )
    await run_git(scratch.place, ("update-index", "-z", "--index-info"), stdin=lines, environment=apart)
    done = await run_git(scratch.place, ("write-tree", "--missing-ok"), environment=apart)
    oid = done.stdout.strip()
    parents = [b"parent " + base.encode()] if base else []
    words = [b"tree " + oid, *parents, b"author " + _WHO, b"committer " + _WHO, b"", _MESSAGE, b""]
    text = b"\n".join(words)
    return Snapshot(store.keep(len(text), iter((text,)), kind=b"commit"), oid.decode("ascii"))


async def list_missing(
    scratch: Scratch, repository: Repository, window: Window, snapshot: str, has: Has
) -> list[str]:
    """The objects that go: all of window and snapshot that the guest does not say it has."""
    known = await keep_known(scratch, has.commits)
    _write_shallow(scratch, {*repository.borders, *window.borders, *(known if window.borders else ())})
    wanted = [
        snapshot,
        *(oid for _, oid in window.tags),
        *(f"^{each}" for commit in known for each in (commit, commit + "^{tree}")),
    ]
    asked = ("rev-list", "--objects", "--no-object-names", "--stdin")
    lines = "\n".join(wanted).encode() + b"\n"
    done = await run_git(scratch.place, asked, stdin=lines, limit_bytes=HISTORY_BYTES, check=False)
    if done.status != 0:
        raise _incomplete(repository, done)
    return [oid for oid in done.stdout.decode("ascii").split() if oid not in has.objects]


async def keep_known(scratch: Scratch, commits: Iterable[str]) -> list[str]:
    """Those of the commits that the host has, too."""
    asked = sorted({commit for commit in commits if is_object_id(commit)})
    if not asked:
        return []
    done = await run_git(
        scratch.place,
        ("cat-file", "--batch-check=%(objectname) %(objecttype)"),
        stdin="\n".join(asked).encode() + b"\n",
    )
    words = (line.split() for line in done.stdout.decode("ascii", "replace").splitlines())
    return [each[0] for each in words if each[1:] == ["commit"]]


async def stream_pack(
    scratch: Scratch, repository: Repository, objects: Sequence[str], *, is_small: bool
) -> AsyncGenerator[bytes, None]:
    """The objects as git's pack. `is_small` leaves out the search for likenesses, which costs more than it saves where
    the past does not come along."""
    listed = scratch.directory / "wanted"
    listed.write_text("".join(f"{oid}\n" for oid in objects))
    arguments = ["pack-objects", "--stdout", "-q", "--delta-base-offset"]
    if is_small:
        arguments.append("--window=0")
    with listed.open("rb") as wanted:
        async with start_git(scratch.place, arguments, stdin=wanted) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while data := await process.stdout.read(_CHUNK_BYTES):
                yield data
            words = await process.stderr.read()
            status = await process.wait()
    if status != 0:
        raise _incomplete(repository, Completed(("git", "pack-objects"), status, b"", words))


def _write_shallow(scratch: Scratch, borders: Iterable[str]) -> None:
    (scratch.directory / "shallow").write_text("".join(f"{oid}\n" for oid in sorted(borders)))


async def _find_borders(scratch: Scratch, repository: Repository, head: str, depth: int) -> set[str]:
    """The commits at which a history of so many generations ends, unless it has ended by itself."""
    _write_shallow(scratch, repository.borders)
    limit = ("--max-count=1",) if depth == 1 else ()
    asked = ("rev-list", "--parents", *limit, head)
    done = await run_git(scratch.place, asked, limit_bytes=HISTORY_BYTES)
    parents = {line.split()[0]: line.split()[1:] for line in done.stdout.decode("ascii").splitlines()}
    generation, seen = {head}, {head}
    for _ in range(depth - 1):
        generation = {parent for commit in generation for parent in parents[commit]} - seen
        seen |= generation
    return {commit for commit in seen if not seen.issuperset(parents[commit])}


async def _find_tags(repository: Repository, commits: frozenset[str]) -> tuple[tuple[str, str], ...]:
    asked = ("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/tags")
    done = await run_git(repository.place, asked)
    tags = []
    for line in done.stdout.decode("utf-8", "ignore").splitlines():
        name, oid, *peeled = line.split(" ")
        if (peeled[0] if peeled and peeled[0] else oid) in commits:
            tags.append((name, oid))
    return tuple(tags)


def _incomplete(repository: Repository, done: Completed) -> Problem:
    words = done.stderr.decode("utf-8", "replace")
    if "missing" in words or "unable to read" in words or "bad object" in words or "promisor" in words:
        return Problem(
            Code.OPERATION_FAILED,
            f"the repository in {repository.shown} lacks objects of its own",
            detail=render_words(done),
            hint=f"git -C {repository.shown} fsck; in a partial clone: git checkout fetches them",
            outcome=Outcome.NOT_STARTED,
        )
    return git_failed(done)
