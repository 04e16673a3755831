"""What came back from a guest, as a report for whoever is to merge it. Pure.

Owns the report's form, which names of branches may become refs of the host's, and how the guest's bytes are shown to
people. Nothing here makes a path safe to use; `show_path` makes one safe to see. What deserves a look is in `findings`.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

FindingKind = Literal[
    "hook", "automation", "attribute", "submodule", "link", "mode", "name", "size", "nested", "more"
]
Move = Literal["new", "forward", "rewritten", "unchanged"]

REGULAR, PROGRAM, LINK, NESTED, ABSENT = "100644", "100755", "120000", "160000", "000000"


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """`author` and `subject` are the guest's words, one line each, made harmless."""

    id: str
    author: str
    date: str
    subject: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something to look at before merging. `path` as shown (odd bytes escaped), empty where it is about no file."""

    kind: FindingKind
    path: str
    what: str


class FileCounts(msgspec.Struct, frozen=True, kw_only=True):
    added: int = 0
    modified: int = 0
    deleted: int = 0


class ReturnedBranch(msgspec.Struct, frozen=True, kw_only=True):
    """One branch of the guest's, and the ref that holds it in the host's repository. `before` is where that ref was;
    `commits` are the newest of `commit_count` that the host did not have; files and findings are against the commit
    that the workspace was prepared with."""

    branch: str
    ref: str
    commit: str
    before: str = ""
    move: Move
    commit_count: int
    commits: list[Commit] = []
    files: FileCounts
    findings: list[Finding] = []


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a pull. `uncommitted` counts files that the guest has changed and not committed, None where the
    guest did not tell; `notes` are sentences about what did not come."""

    vm: str
    repository: str
    branches: list[ReturnedBranch]
    objects: int = 0
    pack_bytes: int = 0
    unpacked_bytes: int = 0
    uncommitted: int | None = None
    notes: list[str] = []


class Change(NamedTuple):
    """One path that differs between two trees, as `git diff-tree --raw -z` has it. Modes are octal, absent is zeros."""

    path: bytes
    old_mode: str
    new_mode: str
    old_id: str
    new_id: str


def parse_changes(raw: bytes) -> list[Change]:
    """Raises ValueError for what is no output of `git diff-tree -r -z --raw --no-renames --no-abbrev`."""
    words = raw.split(b"\0")
    if words.pop() != b"" or len(words) % 2:
        raise ValueError("the list of changes is cut short")
    changes = []
    for about, path in zip(words[::2], words[1::2], strict=True):
        fields = about.decode("ascii").split(" ")
        if len(fields) != 5 or not fields[0].startswith(":"):
            raise ValueError(f"{about!r} is no change")
        changes.append(Change(path, fields[0][1:], fields[1], fields[2], fields[3]))
    return changes


def count_files(changes: Iterable[Change]) -> FileCounts:
    added = modified = deleted = 0
    for change in changes:
        added += change.old_mode == ABSENT
        deleted += change.new_mode == ABSENT
        modified += ABSENT not in (change.old_mode, change.new_mode)
    return FileCounts(added=added, modified=modified, deleted=deleted)


HIDDEN = frozenset("\u00ad\u034f\u061c\u180e\ufeff") | frozenset(
    chr(code) for code in (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070))
)
"""Characters that take no room, or turn the text around them round."""
_BAD_IN_BRANCH = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.|(^|/)-|^/|/$|\.$|^@$")
_BRANCH_MAX = 200


def read_branch(untrusted_name: bytes) -> str | None:
    """A branch's name that may become part of a ref of the host's: git-check-ref-format(1), no component that looks
    like an option, printable UTF-8, not too long. None for any other."""
    if not untrusted_name or len(untrusted_name) > _BRANCH_MAX or _BAD_IN_BRANCH.search(untrusted_name):
        return None
    try:
        name = untrusted_name.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return name if name.isprintable() and not any(character in HIDDEN for character in name) else None


def show_path(path: bytes) -> str:
    """A path for people: printable, one line; what is not is escaped, so that no two look the same."""
    text = path.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return "".join(_escape(character) for character in text)


def _escape(character: str) -> str:
    if character.isprintable() and character not in HIDDEN:
        return character
    data = character.encode("utf-8", "surrogateescape")
    return "".join(f"\\x{byte:02x}" for byte in data)


def show_line(untrusted_text: str, limit: int = 200) -> str:
    """One line of the guest's words, harmless and not too long."""
    line = show_text(" ".join(untrusted_text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def show_text(text: str, limit: int = 300) -> str:
    shown = show_path(text.encode("utf-8", "surrogateescape"))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
