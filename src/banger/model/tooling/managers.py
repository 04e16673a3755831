"""Files of managers of all tools: .tool-versions (asdf) and mise.toml by each of its names. Pure.

Of mise's file only the tools are taken: its environment, hooks and tasks are code of the repository's, which is for
whoever trusts it to run, in the guest.
"""

import re
from collections.abc import Iterator

from banger.model.tooling.found import Finding, Rank, Unmapped, show, want
from banger.model.tooling.text import find_line, find_table, list_lines, parse_toml

_CODE = ("env", "hooks", "tasks", "task_config", "plugins", "bootstrap", "watch_files", "deps")
_ELSEWHERE = re.compile(r"(?:ref|path|sub|prefix):.*|system")


def read_tool_versions(text: str) -> Iterator[Finding]:
    for number, line in list_lines(text):
        name, *versions = line.split()
        if not versions:
            yield Unmapped(f"{show(name)} has no version", number)
        for version in versions:
            yield _want(name, version, number)


def read_mise(text: str) -> Iterator[Finding]:
    data = parse_toml(text)
    for name, value in find_table(data, "tools").items():
        number = find_line(text, "tools", name)
        for version in value if isinstance(value, list) else [value]:
            asked = version.get("version") if isinstance(version, dict) else version
            if isinstance(asked, str):
                yield _want(name, asked, number)
            else:
                yield Unmapped(f"{show(name)} has no version that is text", number)
    left = [key for key in _CODE if key in data]
    if left:
        what = " and ".join(f"[{key}]" for key in left)
        yield Unmapped(f"{what} is not used: in the guest, mise trust does", find_line(text, f"[{left[0]}"))


def _want(name: str, version: str, number: int) -> Finding:
    if _ELSEWHERE.fullmatch(version):
        return Unmapped(f"{show(name)} {show(version)} is none that can be downloaded", number)
    return want(name, version.removeprefix("v"), number, Rank.MANAGER, written=version)
