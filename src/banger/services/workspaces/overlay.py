"""The working tree of a repository as it is, byte for byte, beside the commit that it stands on.

Owns the reading of the owner's files: by descriptors, never through a link, nothing above the root. What git would do
to the bytes on their way (line ends, LFS, other filters) is not done: bytes go as they are. Blocks.
"""

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Literal, NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request, conflict
from banger.base.trees.names import MAX_DEPTH
from banger.model.returned import show_path

FILE, PROGRAM, LINK, SUBMODULE = "100644", "100755", "120000", "160000"
_CHUNK_BYTES = 1 << 20
_SHOWN = 100
_WHOLE_BYTES = 16 << 20
_ELSEWHERE = {b"", b".", b"..", b".git"}  # an index that somebody has made by hand may say anything
_POINTER, _POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1024
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Item(NamedTuple):
    """What a tree has under a path. `size_bytes` is the file's, 0 where nobody looked."""

    mode: str
    oid: str
    size_bytes: int = 0


class Change(NamedTuple):
    """A path at which the working tree differs from the commit; `item` is None where it is gone."""

    path: bytes
    item: Item | None
    was: Item | None
    untracked: bool

    @property
    def word(self) -> Literal["added", "modified", "deleted", "type"]:
        if self.item is None:
            return "deleted"
        if self.was is None:
            return "added"
        return "modified" if self.item.mode[:3] == self.was.mode[:3] else "type"


class Overlay(NamedTuple):
    """The whole tree that goes, and where it differs from the commit."""

    tree: Mapping[bytes, Item]
    changes: Sequence[Change]

    @property
    def size_bytes(self) -> int:
        return sum(item.size_bytes for item in self.tree.values())


Tracked = Mapping[
    bytes, tuple[str, str, bool]
]  # by path: mode, oid, and whether a sparse checkout leaves it out


class Reading(NamedTuple):
    """What of a working tree is to be read: what git tracks, what was named beside it, and the submodules that have a
    commit of their own checked out."""

    root: Path
    tracked: Tracked
    named: frozenset[bytes]
    submodules: Mapping[bytes, str]


def read_tree(reading: Reading, commit: Mapping[bytes, Item], store: "ObjectStore") -> Overlay:
    """The working tree against a commit. Files that differ are kept in the store."""
    tree: dict[bytes, Item] = {}
    changes: list[Change] = []
    with _Walker(reading.root) as walker:
        paths = sorted({*reading.tracked, *reading.named, *commit})
        for path in paths:
            item = _read_path(reading, commit, path, walker, store)
            was = commit.get(path)
            if item is not None:
                tree[path] = item
            if _name(item) != _name(was):
                changes.append(Change(path, item, was, path not in reading.tracked and item is not None))
    return Overlay(tree, changes)


def _name(item: Item | None) -> tuple[str, str] | None:
    return (item.mode, item.oid) if item is not None else None


def _read_path(
    reading: Reading, commit: Mapping[bytes, Item], path: bytes, walker: "_Walker", store: "ObjectStore"
) -> Item | None:
    mode, oid, is_left_out = reading.tracked.get(path, ("", "", False))
    was = commit.get(path)
    if is_left_out:
        return was
    if mode == SUBMODULE:
        return Item(SUBMODULE, reading.submodules.get(path, oid))
    if not mode and path not in reading.named:
        return None
    known = was.oid if was is not None else ""
    return walker.read(path, known, store)


class ObjectStore:
    """Objects as git keeps them loose (gitformat-loose(5)), in a directory of ours."""

    def __init__(self, objects: Path, algorithm: str) -> None:
        self._objects = objects
        self._algorithm = algorithm
        self._count = 0
        self.pointers: list[bytes] = []  # files of Git LFS that are not here

    def digest(self, size: int, pieces: Iterator[bytes]) -> str:
        summed = hashlib.new(self._algorithm, b"blob %d\0" % size, usedforsecurity=False)
        for piece in pieces:
            summed.update(piece)
        return summed.hexdigest()

    def keep(self, size: int, pieces: Iterator[bytes], kind: bytes = b"blob") -> str:
        header = b"%s %d\0" % (kind, size)
        summed = hashlib.new(self._algorithm, header, usedforsecurity=False)
        packer = zlib.compressobj(1)
        self._count += 1
        temporary = self._objects / f"incoming-{self._count}"
        with temporary.open("xb") as file:
            file.write(packer.compress(header))
            for piece in pieces:
                summed.update(piece)
                file.write(packer.compress(piece))
            file.write(packer.flush())
        oid = summed.hexdigest()
        directory = self._objects / oid[:2]
        directory.mkdir(exist_ok=True)
        temporary.rename(directory / oid[2:])
        return oid


class _Walker:
    """Files below one directory. Holds the way to the last one's directory open: paths come sorted."""

    def __init__(self, root: Path) -> None:
        self._names: list[bytes] = []
        self._descriptors = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]

    def __enter__(self) -> "_Walker":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def read(self, path: bytes, known: str, store: ObjectStore) -> Item | None:
        """A file or a link; None where there is none (any more), or a directory or a device instead."""
        *above, name = path.split(b"/")
        if _ELSEWHERE & {name, *above}:
            return None
        if len(above) > MAX_DEPTH:
            raise _too_deep(path)
        try:
            directory = self._enter(above)
            state = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISLNK(state.st_mode):
                return _keep_link(os.readlink(name, dir_fd=directory), known, store)
            if not stat.S_ISREG(state.st_mode):
                return None
            return _keep_file(path, os.open(name, _FLAGS, dir_fd=directory), known, store)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # a directory on the way is a link now
                return None
            raise _unreadable(path, error) from error

    def _enter(self, above: list[bytes]) -> int:
        same = 0
        while same < min(len(above), len(self._names)) and above[same] == self._names[same]:
            same += 1
        while len(self._names) > same:
            self._names.pop()
            os.close(self._descriptors.pop())
        for name in above[same:]:
            opened = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=self._descriptors[-1])
            self._descriptors.append(opened)
            self._names.append(name)
        return self._descriptors[-1]


def _keep_link(target: bytes, known: str, store: ObjectStore) -> Item:
    oid = store.digest(len(target), iter((target,)))
    if oid != known:
        store.keep(len(target), iter((target,)))
    return Item(LINK, oid, len(target))


def _keep_file(path: bytes, descriptor: int, known: str, store: ObjectStore) -> Item:
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        size = state.st_size
        mode = PROGRAM if state.st_mode & stat.S_IXUSR else FILE
        if size <= _WHOLE_BYTES:
            content = b"".join(_pieces(path, file, size))
            if size < _POINTER_BYTES and content.startswith(_POINTER):
                store.pointers.append(path)
            oid = store.digest(size, iter((content,)))
            if oid != known:
                store.keep(size, iter((content,)))
            return Item(mode, oid, size)
        oid = store.digest(size, _pieces(path, file, size))
        if oid != known:
            file.seek(0)
            oid = store.keep(size, _pieces(path, file, size))
        return Item(mode, oid, size)


def _pieces(path: bytes, file: FileIO, size: int) -> Iterator[bytes]:
    """Exactly as many bytes as the file had when it was opened."""
    left = size
    while left:
        piece = file.read(min(left, _CHUNK_BYTES))
        if not piece:
            raise conflict(f"{show_path(path)} changes while it is read", hint="try again")
        left -= len(piece)
        yield piece


def _unreadable(path: bytes, error: OSError) -> Problem:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(
            Code.NO_SPACE, "the host's disk is full", hint="banger df", outcome=Outcome.NOT_STARTED
        )
    code = Code.UNAUTHORIZED if isinstance(error, PermissionError) else Code.OPERATION_FAILED
    return Problem(
        code,
        f"{show_path(path)} cannot be read: {error.strerror}",
        hint=f"ls -l {show_path(path)}",
        outcome=Outcome.NOT_STARTED,
    )


def list_named(root: Path, untrusted_names: Sequence[str]) -> list[bytes]:
    """The files that were asked for by name: each, or all below each. Raises `bad_request`."""
    found: list[bytes] = []
    for name in untrusted_names:
        parts = os.fsencode(name).rstrip(b"/").split(b"/")
        if name.startswith("/") or not name or _ELSEWHERE & set(parts):
            raise bad_request(f"{name!r} is no path in the repository", hint="--include .env")
        if len(parts) > MAX_DEPTH:
            raise _too_deep(b"/".join(parts))
        found += _list_one(root, parts)
    return found


def _too_deep(path: bytes) -> Problem:
    shown = show_path(path)
    return bad_request(
        f"{shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'} lies more than {MAX_DEPTH} directories deep",
        hint="move it up, or leave it out",
    )


def _list_one(root: Path, parts: list[bytes]) -> list[bytes]:
    name, shown_root = show_path(b"/".join(parts)), show_path(os.fsencode(root))
    descriptors = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for part in parts[:-1]:
            descriptors.append(os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=descriptors[-1]))
        state = os.stat(parts[-1], dir_fd=descriptors[-1], follow_symlinks=False)
        if not stat.S_ISDIR(state.st_mode):
            return [b"/".join(parts)]
        return list(_list_below(descriptors[-1], parts))
    except FileNotFoundError as error:
        raise bad_request(f"there is no {name} in {shown_root}", hint=f"ls -a {shown_root}") from error
    except OSError as error:
        raise bad_request(
            f"{name} in {shown_root} cannot be read: {error.strerror}", hint=f"ls -la {shown_root}"
        ) from error
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


class _Level(NamedTuple):
    """A directory that is being listed: what of it is still to come, and its name below the root."""

    descriptor: int
    entries: Iterator[tuple[bytes, bool]]
    parts: tuple[bytes, ...]


def _list_below(above: int, parts: Sequence[bytes]) -> Iterator[bytes]:
    """Repositories in the repository stay home."""
    levels = [_open_level(above, tuple(parts))]
    try:
        while levels:
            descriptor, entries, here = levels[-1]
            name, is_directory = next(entries, (b"", False))
            if not name:
                os.close(levels.pop().descriptor)
            elif not is_directory:
                yield b"/".join((*here, name))
            elif len(here) >= MAX_DEPTH:
                raise _too_deep(b"/".join((*here, name)))
            else:
                levels.append(_open_level(descriptor, (*here, name)))
    finally:
        for level in levels:
            os.close(level.descriptor)


def _open_level(above: int, parts: tuple[bytes, ...]) -> _Level:
    descriptor = os.open(parts[-1], _FLAGS | os.O_DIRECTORY, dir_fd=above)
    try:
        with os.scandir(descriptor) as entries:
            listed = sorted((os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries)
    except BaseException:
        os.close(descriptor)
        raise
    is_repository = any(name == b".git" for name, _ in listed)
    return _Level(descriptor, iter(() if is_repository else listed), parts)
