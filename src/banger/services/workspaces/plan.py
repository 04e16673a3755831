"""What of a repository is to go, settled before anything goes: everything is read, nothing is sent.

Owns the order: what would be refused is refused before the first large file is read. Submodules of a full workspace
are repositories of their own below the first.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from banger.base.problem import bad_request
from banger.base.tasks import in_thread
from banger.base.units import render_size
from banger.model.returned import show_path
from banger.model.workspace import Wanted, looks_secret, validate_branch
from banger.services.workspaces.bundle import (
    Scratch,
    Window,
    open_scratch,
    open_window,
    read_commit_tree,
    require_countable,
    write_snapshot,
)
from banger.services.workspaces.git import read_git, run_git
from banger.services.workspaces.guest import describe_paths
from banger.services.workspaces.inspect import Repository, get_commit, inspect
from banger.services.workspaces.overlay import (
    SUBMODULE,
    ObjectStore,
    Overlay,
    Reading,
    Tracked,
    list_named,
    read_tree,
)

_LARGE_BYTES = 50 << 20
_UNBORN_BRANCH = "main"
_DEEPEST = 8


class Staged(NamedTuple):
    """A repository, ready to go. `path` is where it lies below the first, which has none. `base` is the commit
    that its branch begins at, `snapshot` the commit with the working tree, `tree` that one's."""

    repository: Repository
    scratch: Scratch
    window: Window
    overlay: Overlay
    base: str
    snapshot: str
    tree: str
    branch: str
    path: bytes
    home: Sequence[bytes]
    warnings: Sequence[str]
    below: Sequence["Staged"]

    @property
    def all(self) -> "Iterator[Staged]":
        """This one and all below, each after the one that it lies in."""
        yield self
        for each in self.below:
            yield from each.all

    @property
    def is_plain(self) -> bool:
        """Whether git takes the bytes of the working tree as they are: then its own tree of them is ours."""
        attributes = any(path.rpartition(b"/")[2] == b".gitattributes" for path in self.overlay.tree)
        return not attributes and not self.repository.line_ends

    @property
    def size_bytes(self) -> int:
        return sum(each.overlay.size_bytes for each in self.all)


async def stage_repository(
    stack: AsyncExitStack, parent: Path, repository: Repository, wanted: Wanted
) -> Staged:
    """Reads everything that is to go. What was made for it goes with the stack."""
    if wanted.branch is not None:
        validate_branch(wanted.branch)
    base = repository.head if wanted.commit is None else await get_commit(repository, wanted.commit)
    if not repository.head and (wanted.commit is not None or wanted.mode == "full"):
        raise bad_request(f"{repository.shown} has no commits yet", hint=f"git -C {repository.shown} commit")
    staged = await _stage(stack, parent, repository, wanted, base, b"", 0)
    if not staged.overlay.tree and not base:
        raise bad_request(
            f"{repository.shown} has nothing that git tracks",
            hint=f"git -C {repository.shown} add -A, or: --untracked",
        )
    return staged


async def _stage(
    stack: AsyncExitStack,
    parent: Path,
    repository: Repository,
    wanted: Wanted,
    base: str,
    path: bytes,
    deep: int,
) -> Staged:
    tracked, conflicts = await _read_index(repository)
    modules, empty = await _find_submodules(repository, tracked)
    if modules and wanted.mode != "full":
        raise bad_request(
            f"{repository.shown} has submodules ({describe_paths(list(modules))}), which need its full history",
            hint="say --full: it brings them, too",
        )
    named = await in_thread(list_named, repository.root, wanted.include) if wanted.include else []
    untracked, ignored = await _list_untracked(repository)
    if wanted.untracked:
        named += untracked
    scratch = await stack.enter_async_context(open_scratch(parent, repository))
    depth = None if wanted.mode == "full" else wanted.depth
    window = await open_window(scratch, repository, base, depth)
    commit = await read_commit_tree(scratch, repository, base) if base else {}
    store = ObjectStore(scratch.objects, repository.object_format)
    if base == repository.head:
        heads = {each: module.head for each, module in modules.items()}
        reading = Reading(repository.root, tracked, frozenset(named), heads)
        overlay = await in_thread(read_tree, reading, commit, store)
    else:
        overlay, modules = Overlay(commit, ()), {}
    commit_of_ours, tree = await write_snapshot(scratch, store, overlay.tree, base)
    below = [
        await _stage_below(stack, parent, module, wanted, join_path(path, each), deep)
        for each, module in modules.items()
    ]
    home = [each for each in (*untracked, *ignored) if each not in overlay.tree]
    warnings = [
        *_warn_of_state(repository, wanted, base, conflicts),
        *_warn_of_files(overlay, home, store.pointers),
    ]
    if empty:
        warnings.append(f"submodules that are not checked out stay empty: {describe_paths(empty)}")
    branch = wanted.branch or repository.branch or ("" if base else _UNBORN_BRANCH)
    return Staged(
        repository=repository,
        scratch=scratch,
        window=window,
        overlay=overlay,
        base=base,
        snapshot=commit_of_ours,
        tree=tree,
        branch=branch,
        path=path,
        home=home,
        warnings=warnings,
        below=tuple(below),
    )


async def _stage_below(
    stack: AsyncExitStack, parent: Path, module: Repository, wanted: Wanted, path: bytes, deep: int
) -> Staged:
    if deep >= _DEEPEST:
        raise bad_request(f"{module.shown} lies in more than {_DEEPEST} submodules", hint="name it alone")
    inner = Wanted(mode=wanted.mode, untracked=wanted.untracked)
    return await _stage(stack, parent, module, inner, module.head, path, deep + 1)


def join_path(above: bytes, path: bytes) -> bytes:
    return above + b"/" + path if above else path


async def _read_index(repository: Repository) -> tuple[Tracked, list[bytes]]:
    """What git tracks, and the paths among it whose merge is not settled."""
    tracked: dict[bytes, tuple[str, str, bool]] = {}
    conflicts: list[bytes] = []

    def keep(record: bytes) -> None:
        about, _, path = record.partition(b"\t")
        tag, mode, oid, number = about.decode("ascii").split(" ")
        if number != "0" and path not in conflicts[-1:]:
            conflicts.append(path)
        tracked[path] = (sys.intern(mode), oid, tag == "S")
        require_countable(len(tracked), repository)

    await read_git(repository.place, ("ls-files", "-s", "-t", "-z"), keep)
    return tracked, conflicts


async def _find_submodules(
    repository: Repository, tracked: Tracked
) -> tuple[Mapping[bytes, Repository], list[bytes]]:
    """Those that are checked out, and those that are not."""
    found, empty = {}, []
    for path, (mode, _, _) in tracked.items():
        if mode == SUBMODULE:
            place = repository.root / os.fsdecode(path)
            module = await inspect(str(place)) if os.path.lexists(place / ".git") else None
            if module is not None and module.root == place and module.head:
                found[path] = module
            else:
                empty.append(path)
    return found, empty


async def _list_untracked(repository: Repository) -> tuple[list[bytes], list[bytes]]:
    """Files that git does not track; and what it ignores, directories as one."""
    asked = ("ls-files", "-o", "-z", "--exclude-standard")
    both = await asyncio.gather(
        run_git(repository.place, asked), run_git(repository.place, (*asked, "-i", "--directory"))
    )
    untracked, ignored = ([path for path in done.stdout.split(b"\0") if path] for done in both)
    return [path for path in untracked if not path.endswith(b"/")], ignored


def _warn_of_state(
    repository: Repository, wanted: Wanted, base: str, conflicts: Sequence[bytes]
) -> Iterator[str]:
    if repository.head and repository.is_detached and wanted.branch is None:
        yield f"HEAD is detached at {repository.head[:12]}, and will be in the guest; --branch NAME begins a branch"
    if not repository.head:
        yield "there are no commits yet: only the files go"
    if base != repository.head:
        yield f"the branch begins at {base[:12]}: changes that are not committed stay home"
    if conflicts:
        yield f"files with conflicts go as they are: {describe_paths(conflicts)}"


def _warn_of_files(overlay: Overlay, home: Sequence[bytes], pointers: Sequence[bytes]) -> Iterator[str]:
    if pointers:
        yield f"pointers of Git LFS go, not what they point to: {describe_paths(pointers)}"
    large = [path for path, item in overlay.tree.items() if item.size_bytes > _LARGE_BYTES]
    if large:
        sizes = render_size(sum(overlay.tree[path].size_bytes for path in large))
        yield f"large files go ({sizes}): {describe_paths(large)}"
    going = [change.path for change in overlay.changes if change.untracked]
    if secret := [path for path in going if looks_secret(show_path(path))]:
        yield f"named like secrets, and going: {describe_paths(secret)}"
    if secret := [path for path in home if looks_secret(show_path(path))]:
        yield f"named like secrets, and staying home: {describe_paths(secret)}"
