"""Bytes on the host's disk of what banger keeps there. Blocks; reads names, sizes and extents, and no content.

What vanishes while it is looked at counts as nothing.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from banger.storage.extents import measure_shared_bytes

BUILDING = ".building@"
_WORTH_A_LOOK = 1024 * 1024  # smaller files are nobody's clones


class Tree(NamedTuple):
    """A directory's files and what they take, holes left out; `shared` is of that what other files have, too."""

    total_bytes: int
    log_bytes: int
    shared_bytes: int


class Build(NamedTuple):
    """One build on a shelf (`images/shelf.py`): NAME@ID, current when NAME leads to it."""

    name: str
    id: str
    directory: Path
    is_current: bool
    size_bytes: int


def measure_tree(directory: Path) -> Tree:
    total = logs = shared = 0
    for entry in _walk(directory):
        try:
            size = entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
        total += size
        if size >= _WORTH_A_LOOK:
            shared += measure_shared_bytes(Path(entry.path))
        if entry.name.endswith(".log") or ".log." in entry.name:
            logs += size
    return Tree(total, logs, min(shared, total))


def _walk(directory: Path) -> Iterator[os.DirEntry[str]]:
    """Files, not directories; no link is followed."""
    try:
        with os.scandir(directory) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield entry


def find_builds(shelf: Path) -> tuple[list[Build], int]:
    """All builds by name, the current one of each name first, and what unfinished ones take."""
    builds: list[Build] = []
    unfinished = 0
    for entry in sorted(shelf.glob("*@*")):
        if entry.is_symlink() or not entry.is_dir():
            continue
        size = measure_tree(entry).total_bytes
        if entry.name.startswith(BUILDING):
            unfinished += size
            continue
        name, _, build_id = entry.name.partition("@")
        builds.append(Build(name, build_id, entry, _read_link(shelf / name) == entry.name, size))
    return sorted(builds, key=lambda build: (build.name, not build.is_current)), unfinished


def _read_link(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 (a text, not a path)
    except OSError:
        return ""
