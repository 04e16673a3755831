"""What of a change that came back from a guest deserves a look before it is checked out, merged or pushed. Pure.

Owns the rules: what would run on the host or elsewhere, what reaches out of the tree, and names that are something else
than they seem. A finding is no verdict: an ordinary change to a workflow is one.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from banger.model.returned import (
    ABSENT,
    HIDDEN,
    LINK,
    NESTED,
    PROGRAM,
    REGULAR,
    Change,
    Finding,
    FindingKind,
    show_path,
    show_text,
)

LARGE_BYTES = 10 << 20
FINDINGS_MAX = 500
_LONG_NAME = 240


class Contents(NamedTuple):
    """What of a tree has to be read to judge it: by the id of a blob its bytes, or None where it is too long to be what
    its place says; and the sizes of all new ones. `submodules` and `old_submodules` are (key, value) of .gitmodules,
    None for one that is no list of settings."""

    blobs: Mapping[str, bytes | None]
    sizes: Mapping[str, int]
    submodules: Sequence[tuple[str, str]] | None = ()
    old_submodules: Sequence[tuple[str, str]] = ()


def wants_reading(change: Change) -> bool:
    """Whether its content is needed for `list_findings`."""
    if change.new_mode == LINK:
        return True
    return change.new_mode in (REGULAR, PROGRAM) and _base_name(change.path) in (
        b".gitattributes",
        b".gitmodules",
    )


def list_findings(
    changes: Sequence[Change], contents: Contents, tree_paths: Iterable[bytes] = ()
) -> list[Finding]:
    """In the order of the paths within each kind; at most FINDINGS_MAX, and the last one says how many more there are.
    `tree_paths` are all of the new tree: two of them may be one on another system."""
    there = [change for change in changes if change.new_mode != ABSENT]
    found: list[Finding] = []
    more = 0
    for change in there:
        found += _judge_change(change, contents)
        more += _cut(found)
    found += _judge_submodules(contents)
    found += _judge_clashes({change.path for change in there if change.old_mode == ABSENT}, tree_paths)
    more += _cut(found)
    if more:
        found.append(Finding(kind="more", path="", what=f"{more} more findings are not listed"))
    return found


def _judge_change(change: Change, contents: Contents) -> list[Finding]:
    found = _judge_place(change)
    found += _judge_name(change.path)
    found += _judge_mode(change)
    found += _judge_size(change, contents.sizes)
    if change.new_mode == LINK:
        found += _judge_link(change, contents.blobs.get(change.new_id))
    if _base_name(change.path) == b".gitattributes" and change.new_mode != LINK:
        found += _judge_attributes(change, contents.blobs.get(change.new_id))
    if _base_name(change.path) == b".gitmodules" and change.new_mode == LINK:
        found.append(_find("submodule", change.path, "is a link: git refuses to read submodules from it"))
    return found


def _cut(found: list[Finding]) -> int:
    """How many there were beyond FINDINGS_MAX: nobody holds what nobody is told."""
    more = max(0, len(found) - FINDINGS_MAX)
    del found[FINDINGS_MAX:]
    return more


# Places that make programs run

_HOOK_PLACES = re.compile(
    rb"(^|/)(\.githooks|githooks|hooks|\.husky)/[^/]+|(^|/)(\.pre-commit-config\.ya?ml|\.?lefthook(-local)?\.ya?ml|"
    rb"\.overcommit\.yml|\.lintstagedrc[^/]*)$",
    re.IGNORECASE,
)
_CI_PLACES = re.compile(
    rb"^(\.github/(workflows|actions)/.+|\.gitlab-ci\.yml|\.gitlab/ci/.+|\.circleci/.+|\.(gitea|forgejo)/workflows/.+|"
    rb"\.buildkite/.+|\.woodpecker(/.+|\.ya?ml)|\.drone\.(ya?ml|jsonnet)|\.travis\.yml|\.appveyor\.yml|appveyor\.yml|"
    rb"azure-pipelines\.ya?ml|bitbucket-pipelines\.yml|cloudbuild\.ya?ml|\.cirrus\.(ya?ml|star)|\.teamcity/.+|"
    rb"\.builds?/.+\.ya?ml|\.build\.yml|\.zuul\.ya?ml|\.github/dependabot\.yml|renovate\.json5?|(.*/)?Jenkinsfile[^/]*)$",
    re.IGNORECASE,
)
_OPENING_PLACES = re.compile(
    rb"(^|/)(\.vscode/(tasks|launch|settings|extensions)\.json|\.idea/.+|\.devcontainer(/.+|\.json)|\.envrc|\.direnv/.+|"
    rb"\.?mise(\.[^/]+)?\.toml|\.mise/.+|\.exrc|\.nvimrc|\.nvim\.lua|\.vimrc|\.lvimrc|\.dir-locals\.el|\.gdbinit|\.lldbinit|"
    rb"\.npmrc|\.yarnrc(\.yml)?|\.pnpmfile\.cjs|\.cargo/config(\.toml)?|sitecustomize\.py|"
    rb"\.claude/.+|\.cursor/.+|\.opencode/.+|opencode\.jsonc?|\.mcp\.json)$",
    re.IGNORECASE,
)


def _judge_place(change: Change) -> list[Finding]:
    """Files whose very place makes some program run them, or believe them."""
    word = "is new" if change.old_mode == ABSENT else "has changed"
    path = change.path
    if _HOOK_PLACES.search(path):
        return [_find("hook", path, f"{word}: hooks run on your machine once git is told to use them")]
    if _CI_PLACES.search(path):
        return [_find("automation", path, f"{word}: it runs with your rights and secrets where it is pushed")]
    if _OPENING_PLACES.search(path):
        return [
            _find(
                "automation",
                path,
                f"{word}: a tool may act on it as soon as the directory is opened or entered",
            )
        ]
    return []


# Attributes and submodules

_DRIVERS = re.compile(rb"(?:^|\s)(filter|diff|merge)=([^\s]+)")
_BUILT_IN = {b"merge": {b"text", b"binary", b"union"}}


def _judge_attributes(change: Change, content: bytes | None) -> list[Finding]:
    if content is None:
        return [_find("attribute", change.path, "is too long to be read")]
    found = []
    for key, value in dict.fromkeys(_DRIVERS.findall(content)):
        if value in _BUILT_IN.get(key, ()):
            continue
        what = f"{key.decode()}={_show(value)}: git runs what your configuration has under this name"
        found.append(_find("attribute", change.path, what))
    for word in (b"working-tree-encoding=", b"export-subst", b"export-ignore"):
        if re.search(rb"(?:^|\s)" + re.escape(word), content):
            what = f"{word.decode().rstrip('=')}: files are not what the history has, once checked out or archived"
            found.append(_find("attribute", change.path, what))
    return found


def _judge_submodules(contents: Contents) -> list[Finding]:
    """Every setting of a submodule that is new or another now."""
    found = []
    if contents.submodules is None:
        return [Finding(kind="submodule", path=".gitmodules", what="cannot be read as settings")]
    before = set(contents.old_submodules)
    for key, value in contents.submodules:
        if (key, value) in before:
            continue
        setting = key.rpartition(".")[2]
        name = show_text(key.removeprefix("submodule.").rpartition(".")[0])
        if setting == "url":
            what = f"submodule {name} comes from {show_text(value)}{_judge_url(value)}"
        elif setting == "update" and value.startswith("!"):
            what = f"submodule {name} would run a command when updated: {show_text(value)}"
        elif setting == "path":
            what = f"submodule {name} is at {show_text(value)}"
        else:
            what = f"submodule {name}: {show_text(setting)} = {show_text(value)}"
        found.append(Finding(kind="submodule", path=".gitmodules", what=what))
    return found


def _judge_url(url: str) -> str:
    if url.startswith("-"):
        return ", which a program would take for an option"
    if re.match(r"[A-Za-z0-9+.-]+::", url):
        return ", which runs a helper program of that name"
    if url.startswith(("/", "file:")):
        return ", a place on your own machine"
    if url.startswith("../") or url.startswith("./"):
        return ", beside wherever the repository came from"
    if re.match(r"(http|git|ftp)://", url):
        return ", not encrypted"
    return ""


# Links, modes, sizes


def _judge_link(change: Change, target: bytes | None) -> list[Finding]:
    if target is None:
        return [_find("link", change.path, "leads to a place with a name too long to be one")]
    if target.startswith(b"/"):
        return [_find("link", change.path, f"leads out of the tree, to {_show(target)}")]
    depth = change.path.count(b"/")
    for part in target.split(b"/"):
        depth += (part not in (b"", b".", b"..")) - (part == b"..")
        if depth < 0:
            return [_find("link", change.path, f"leads out of the tree, to {_show(target)}")]
    if any(part.lower() == b".git" for part in target.split(b"/")):
        return [_find("link", change.path, f"leads into git's own directory, to {_show(target)}")]
    return []


def _judge_mode(change: Change) -> list[Finding]:
    old, new = change.old_mode, change.new_mode
    if new == NESTED and old != NESTED:
        return [_find("nested", change.path, f"is a submodule now, at commit {change.new_id[:12]}")]
    if new == NESTED and change.old_id != change.new_id:
        return [_find("nested", change.path, f"is another commit of a submodule: {change.new_id[:12]}")]
    if new == PROGRAM and old == REGULAR:
        return [_find("mode", change.path, "has become executable")]
    if new == LINK and old not in (LINK, ABSENT):
        return [_find("mode", change.path, "has become a link")]
    if new not in (REGULAR, PROGRAM, LINK, NESTED):
        return [_find("mode", change.path, f"has the unusual mode {show_text(new)}")]
    return []


def _judge_size(change: Change, sizes: Mapping[str, int]) -> list[Finding]:
    size = sizes.get(change.new_id, 0)
    return [_find("size", change.path, f"has {size >> 20} MiB")] if size >= LARGE_BYTES else []


# Names

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('<>:"|?*\\')


def _judge_name(path: bytes) -> list[Finding]:
    """What the name does to terminals, to other systems and to who reads it: the worst of it."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return [_find("name", path, "is no UTF-8: other systems cannot have this name")]
    parts = text.split("/")
    rules = (
        (any(unicodedata.category(c) == "Cc" for c in text), "has control characters in its name"),
        (bool(HIDDEN & set(text)), "has invisible characters in its name, or such that turn the text round"),
        (text.startswith("-"), "begins like an option"),
        (any(_RESERVED.fullmatch(part) for part in parts), "is the name of a device on Windows"),
        (any(part.endswith((" ", ".")) for part in parts), "cannot be a file on Windows"),
        (bool(_FORBIDDEN & set(text)), "cannot be a file on Windows"),
        (len(path) > _LONG_NAME, f"has a name of {len(path)} bytes"),
    )
    return [_find("name", path, what) for applies, what in rules if applies][:1]


def _judge_clashes(new_paths: set[bytes], tree_paths: Iterable[bytes]) -> list[Finding]:
    """New paths that are one with another path where letters' case or the form of accents does not count, or would be
    below a directory that is."""
    others: dict[str, set[bytes]] = {}
    for path in tree_paths:
        for part in _list_parts(path):
            others.setdefault(_fold(part), set()).add(part)
    found: dict[bytes, Finding] = {}
    for path in sorted(new_paths) if others else ():
        for part in _list_parts(path):
            clashing = sorted(others.get(_fold(part), set()) - {part})
            if clashing and part not in found:
                what = f"is the same as {_show(clashing[0])} on systems that do not tell them apart"
                found[part] = _find("name", part, what)
    return [*found.values()]


def _list_parts(path: bytes) -> list[bytes]:
    """The path, and every directory that it is in."""
    return [path[:end] for end in range(len(path)) if path[end] == 0x2F] + [path]


def _fold(path: bytes) -> str:
    return unicodedata.normalize("NFKC", path.decode("utf-8", "surrogateescape")).casefold()


def _base_name(path: bytes) -> bytes:
    """As a file system would find it that does not tell upper case from lower."""
    return path.rpartition(b"/")[2].lower()


def _show(data: bytes) -> str:
    return show_text(data.decode("utf-8", "surrogateescape"), 200)


def _find(kind: FindingKind, path: bytes, what: str) -> Finding:
    return Finding(kind=kind, path=show_path(path), what=what)
