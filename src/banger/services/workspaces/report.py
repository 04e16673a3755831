"""What came back, read in quarantine for the report: commits, changed files, and the few contents that rules ask for.

Reads nothing outside the quarantine and checks nothing out. What is too large for its place is not read, and so told.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from banger.base.problem import Code, Problem
from banger.model.findings import Contents, list_findings, wants_reading
from banger.model.returned import (
    ABSENT,
    NESTED,
    Change,
    Commit,
    FileCounts,
    Finding,
    count_files,
    parse_changes,
    show_line,
)
from banger.services.workspaces.quarantine import Quarantine

_EMPTY_TREES = {
    "sha1": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "sha256": "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
_COMMITS_LISTED = 50
_READ_BYTES = 256 * 1024
_READ_ALTOGETHER_BYTES = 64 << 20
_NAMES_BYTES = 32 << 20
_NAMES_MAX = 200_000
_COMPARED_BYTES = 128 << 20
_FORMAT = "--format=%H%x00%an <%ae>%x00%aI%x00%s"


class History(NamedTuple):
    length: int
    newest: list[Commit]


class TreeReport(NamedTuple):
    files: FileCounts
    findings: list[Finding]


async def read_history(quarantine: Quarantine, tip: str, known: Sequence[str]) -> History:
    """The commits of a tip that are not of `known`, and that all they name is there: raises `operation_failed`."""
    asked = _render_revisions(tip, known)
    await quarantine.git(("rev-list", "--objects", "--quiet", "--ignore-missing", "--stdin"), stdin=asked)
    count = await quarantine.git(("rev-list", "--count", "--ignore-missing", "--stdin"), stdin=asked)
    arguments = ("rev-list", "--ignore-missing", f"--max-count={_COMMITS_LISTED}", _FORMAT, "--stdin")
    listed = await quarantine.git(arguments, stdin=asked)
    return History(int(count.stdout), _parse_commits(listed.stdout))


async def is_ancestor(quarantine: Quarantine, old: str, new: str) -> bool:
    return (await quarantine.git(("merge-base", "--is-ancestor", old, new), check=False)).status == 0


async def judge_tree(quarantine: Quarantine, object_format: str, base: str, tip: str) -> TreeReport:
    """What is different in `tip` from `base`, which is empty for nothing. Raises `operation_failed` for more than
    can be told. What a guest makes long is read in a thread: a small pack may hold a tree of any number of paths."""
    before = f"{base}^{{tree}}" if base else _EMPTY_TREES[object_format]
    options = ("-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--ignore-submodules=none")
    raw = await quarantine.list_changes(("diff-tree", *options, before, f"{tip}^{{tree}}"), _NAMES_BYTES)
    changes = await asyncio.to_thread(_read_changes, raw)
    contents = await _read_contents(quarantine, changes)
    if not any(change.old_mode == ABSENT for change in changes):
        return await asyncio.to_thread(_judge, changes, contents, b"")
    listed = await quarantine.find_names(
        ("ls-tree", "-r", "-z", "--name-only", "--full-tree", tip), _NAMES_BYTES
    )
    return await asyncio.to_thread(_judge, changes, contents, listed)


def _read_changes(raw: bytes) -> list[Change]:
    count = raw.count(b"\0") // 2
    if count > _NAMES_MAX:
        raise Problem(
            Code.OPERATION_FAILED,
            f"the guest has changed {count} files, at most {_NAMES_MAX} are looked at",
            hint="banger workspace pull --branch NAME VM, for another branch",
        )
    return parse_changes(raw)


def _judge(changes: Sequence[Change], contents: Contents, listed: bytes | None) -> TreeReport:
    paths = [] if listed is None else listed.split(b"\0")[:-1]
    new = [change.path for change in changes]
    is_compared = (
        listed is not None and len(paths) <= _NAMES_MAX and _measure([*paths, *new]) <= _COMPARED_BYTES
    )
    findings = list_findings(changes, contents, paths if is_compared else ())
    if not is_compared:
        what = "the tree has too many names to compare them: some may be the same on other systems"
        findings.insert(0, Finding(kind="name", path="", what=what))
    return TreeReport(count_files(changes), findings)


def _measure(paths: Sequence[bytes]) -> int:
    """How much there is to compare: each path, and every directory that it is in."""
    return sum(len(path) * (path.count(b"/") + 1) for path in paths)


async def _read_contents(quarantine: Quarantine, changes: Sequence[Change]) -> Contents:
    described = await quarantine.describe(await asyncio.to_thread(_list_new, changes))
    sizes, wanted = await asyncio.to_thread(_choose, changes, described)
    asked = [each for each, content in wanted.items() if content == b""]
    blobs = wanted | await _read_blobs(quarantine, asked)
    contents = Contents(blobs, sizes)
    modules = next((change for change in changes if change.path == b".gitmodules"), None)
    if modules is None or set(modules.new_id) == {"0"}:
        return contents
    old = () if set(modules.old_id) == {"0"} else await _read_settings(quarantine, modules.old_id)
    new = await _read_settings(quarantine, modules.new_id) if blobs.get(modules.new_id) is not None else None
    return contents._replace(submodules=new, old_submodules=old or ())


def _list_new(changes: Sequence[Change]) -> list[bytes]:
    ids = {change.new_id for change in changes if change.new_mode != NESTED and set(change.new_id) != {"0"}}
    return [each.encode() for each in sorted(ids)]


def _choose(
    changes: Sequence[Change], described: Sequence[Sequence[bytes]]
) -> tuple[dict[str, int], dict[str, bytes | None]]:
    """The sizes of blobs, and those that rules ask for: empty where it is to be read, None where it is too long."""
    sizes = {words[0].decode(): int(words[2]) for words in described}
    wanted: dict[str, bytes | None] = {}
    left = _READ_ALTOGETHER_BYTES
    for change in filter(wants_reading, changes):
        size = sizes.get(change.new_id, 0)
        if change.new_id not in wanted and size <= min(_READ_BYTES, left):
            left -= size
            wanted[change.new_id] = b""
        else:
            wanted.setdefault(change.new_id, None)
    return sizes, wanted


async def _read_blobs(quarantine: Quarantine, ids: Sequence[str]) -> dict[str, bytes | None]:
    if not ids:
        return {}
    asked = "".join(f"{each}\n" for each in ids).encode()
    answer = await quarantine.git(("cat-file", "--batch", "--buffer"), stdin=asked)
    return await asyncio.to_thread(_split_blobs, ids, answer.stdout)


def _split_blobs(ids: Sequence[str], answer: bytes) -> dict[str, bytes | None]:
    """git-cat-file(1), Batch output."""
    rest = memoryview(answer)
    blobs: dict[str, bytes | None] = {}
    for each in ids:
        header, _, _ = bytes(rest[:200]).partition(b"\n")
        start, size = len(header) + 1, int(header.split(b" ")[2])
        blobs[each] = bytes(rest[start : start + size])
        rest = rest[start + size + 1 :]
    return blobs


async def _read_settings(quarantine: Quarantine, blob: str) -> tuple[tuple[str, str], ...] | None:
    """As git reads .gitmodules; None for what it cannot read."""
    done = await quarantine.git(("config", f"--blob={blob}", "--no-includes", "-z", "--list"), check=False)
    if done.status != 0:
        return None
    words = done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    pairs = (word.partition("\n") for word in words)
    return tuple((key, value) for key, _, value in pairs)


def _render_revisions(tip: str, known: Sequence[str]) -> bytes:
    return "".join([f"{tip}\n", *(f"^{each}\n" for each in known)]).encode()


def _parse_commits(listed: bytes) -> list[Commit]:
    """Lines of _FORMAT; between them git puts `commit ID`."""
    found = []
    for line in listed.decode("utf-8", "surrogateescape").split("\n"):
        words = line.split("\0", 3)
        if len(words) == 4:
            id_, author, date, subject = words
            found.append(
                Commit(
                    id=id_,
                    author=show_line(author, 100),
                    date=show_line(date, 40),
                    subject=show_line(subject),
                )
            )
    return found
