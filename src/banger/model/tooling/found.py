"""What a file says about tools, held to account before anybody acts on it. Pure.

Refuses any name or version that is not of the closed patterns here: both come out of a repository that nobody has
vouched for, and end in a configuration file and on a command line of the guest.
"""

import re
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

import msgspec

from banger.model.tooling.ranges import Range

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
BACKEND = re.compile(
    r"(?:aqua|cargo|core|gem|github|gitlab|go|npm|pipx|ubi):[A-Za-z0-9@][A-Za-z0-9@._/-]{0,99}"
)
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_ALIASES = {"nodejs": "node", "golang": "go", "dotnet-core": "dotnet", "python3": "python", "openjdk": "java"}
_SHOWN = 60


class Rank(IntEnum):
    """Which file is believed when several speak of one tool: the lowest."""

    MANAGER = 0  # written for a manager of all tools, such as mise or asdf
    OWN = 1  # the version file of that one tool
    NEEDED = 2  # what a package says it needs, often a range
    CONTAINER = 3  # the image that others develop in
    PRESENT = 4  # a file that only that tool reads; no version in it


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tool to be installed: its name and version as mise takes them, and the place it was read from, where it is
    `written`."""

    name: str
    version: str
    file: str
    line: int
    written: str


class Wanted(NamedTuple):
    """A tool as a file wants it. `range` is what other files are compared with."""

    name: str
    version: str
    written: str
    line: int
    rank: Rank
    range: Range | None = None


class Unmapped(NamedTuple):
    """Something that was understood, and that has no tool of mise for it."""

    text: str
    line: int


Finding = Wanted | Unmapped
Reader = Callable[[str], Iterator[Finding]]


def want(name: str, version: str, line: int, rank: Rank, *, written: str | None = None) -> Finding:
    """A tool with a version that mise takes as it is, if name and version are of the closed patterns."""
    written = version if written is None else written
    name = _ALIASES.get(name, name)
    if not (NAME.fullmatch(name) or BACKEND.fullmatch(name)) or ".." in name:
        return Unmapped(f"{show(name)} is no name of a tool", line)
    if not VERSION.fullmatch(version):
        return Unmapped(f"{show(written)} is no version of {show(name)} that mise takes", line)
    return Wanted(name, version, show(written), line, rank, Range.of_version(version))


def want_range(name: str, written: str, line: int, rank: Rank, *, vendor: str = "") -> Finding:
    """A tool with whatever version a range comes to; see `ranges`."""
    found = Range.parse(written)
    if found is None:
        return Unmapped(f"{show(written)} is no range of versions of {name}", line)
    version = found.choose(name)
    if version is None:
        return Unmapped(f"no version of {name} is in {show(written)}", line)
    finding = want(name, vendor + version, line, rank, written=written)
    return finding._replace(range=found) if isinstance(finding, Wanted) else finding


def show(text: str) -> str:
    """Text of a repository for people: one short line, nothing that a terminal acts upon."""
    line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    line = line.encode("utf-8", "replace").decode()
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
