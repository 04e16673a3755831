"""What came back from a guest, for people: a patch in colours and without what drives a terminal, a pull's report."""

from __future__ import annotations

import codecs

from banger.cli.output import defuse
from banger.cli.render.tables import render_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BOLD, _RED, _GREEN, _CYAN, _PLAIN = "\033[1m", "\033[31m", "\033[32m", "\033[36m", "\033[m"
_LONGEST = 65536
_COMMITS_SHOWN = 10
_FINDINGS_SHOWN = 40
_MOVES = {
    "new": "new",
    "forward": "moved on",
    "rewritten": "rewritten by the guest (the old commits are in the ref's reflog)",
    "unchanged": "as it was",
}
_KINDS = {
    "hook": "hooks",
    "automation": "runs by itself",
    "attribute": "attributes",
    "submodule": "submodules",
    "nested": "submodules",
    "link": "links",
    "mode": "modes",
    "name": "names",
    "size": "large files",
    "more": "and more",
}


class Painter:
    """A patch on its way to a terminal, line by line. Lines that are too long are painted in pieces."""

    def __init__(self, write: Callable[[str], object], *, colour: bool) -> None:
        self._write = write
        self._colour = colour
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._in_hunk = False

    def feed(self, data: bytes | memoryview) -> None:
        *lines, self._rest = (self._rest + self._decoder.decode(bytes(data))).split("\n")
        for line in lines:
            self._write(self._paint(line) + "\n")
        if len(self._rest) > _LONGEST:
            self._write(defuse(self._rest))
            self._rest = ""

    def end(self) -> None:
        if self._rest:
            self._write(self._paint(self._rest) + "\n")

    def _paint(self, line: str) -> str:
        text = defuse(line)
        if line.startswith("diff --git "):
            self._in_hunk = False
        elif line.startswith("@@"):
            self._in_hunk = True
            return self._in(_CYAN, text)
        if self._in_hunk and line[:1] in ("+", "-"):
            return self._in(_GREEN if line[0] == "+" else _RED, text)
        if line.startswith(("diff --git ", "--- ", "+++ ", "index ", "new file", "deleted file", "rename ")):
            return text if self._in_hunk else self._in(_BOLD, text)
        return text

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour and text else text


def render_returned(returned: dict[str, Any]) -> str:
    """Refs, commits, and what to look at before merging; then what did not come."""
    branches = returned["branches"]
    lines = [] if branches else ["the guest has no commits that are not here already"]
    for branch in branches:
        lines += _render_branch(branch)
    lines += returned.get("notes") or ()
    uncommitted = returned.get("uncommitted")
    vm = returned["vm"]
    if uncommitted:
        are = "file is" if uncommitted == 1 else "files are"
        lines.append(
            f"{uncommitted} {are} changed in the guest and not committed: banger workspace export {vm}"
        )
    elif uncommitted is None:
        lines.append("the guest does not tell what it has not committed")
    moved = [branch for branch in branches if branch["move"] != "unchanged"]
    if moved:
        lines.append(f"{returned['objects']} objects, {render_size(returned['unpacked_bytes'])}")
        lines.append(f"look: git diff HEAD...{moved[0]['ref']}, then: git merge {moved[0]['ref']}")
    return "".join(f"{defuse(line)}\n" for line in lines)


def _render_branch(branch: dict[str, Any]) -> list[str]:
    files = branch["files"]
    count = branch["commit_count"]
    lines = [
        f"{branch['ref']} {branch['commit'][:12]} ({_MOVES[branch['move']]})",
        f"  {count} new commit{'s' * (count != 1)}; files: {files['added']} added, {files['modified']} changed, "
        f"{files['deleted']} deleted",
    ]
    commits = branch.get("commits") or []
    lines += [
        f"    {each['id'][:12]} {each['subject']} ({each['author']})" for each in commits[:_COMMITS_SHOWN]
    ]
    if count > len(commits[:_COMMITS_SHOWN]):
        lines.append(f"    and {count - len(commits[:_COMMITS_SHOWN])} more")
    findings = branch.get("findings") or []
    if findings:
        lines.append("  look at these before you merge:")
    lines += [f"    [{_KINDS[each['kind']]}] {_join(each)}" for each in findings[:_FINDINGS_SHOWN]]
    if len(findings) > _FINDINGS_SHOWN:
        lines.append(f"    and {len(findings) - _FINDINGS_SHOWN} more: --json has all")
    return lines


def _join(finding: dict[str, Any]) -> str:
    return f"{finding['path']} {finding['what']}" if finding["path"] else finding["what"]
