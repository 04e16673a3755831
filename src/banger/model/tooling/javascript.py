"""Node, Deno, Bun and the package managers: .nvmrc, .node-version, package.json and the like. Pure."""

import re
from collections.abc import Iterator
from functools import partial

from banger.model.tooling.found import Finding, Rank, Reader, Unmapped, Wanted, show, want, want_range
from banger.model.tooling.text import find_line, find_table, find_text, list_lines, parse_json

# nodejs.org names its long-term releases.
_LTS = {
    **{"argon": "4", "boron": "6", "carbon": "8", "dubnium": "10", "erbium": "12", "fermium": "14"},
    **{"gallium": "16", "hydrogen": "18", "iron": "20", "jod": "22", "krypton": "24"},
}
_MANAGERS = ("pnpm", "yarn", "bun")  # npm comes with node
_ENGINES = ("node", "deno", *_MANAGERS)
_WITH_NODE = frozenset({"npm"})
_PACKAGE_MANAGER = re.compile(r"(\w+)@(\d[\w.-]{0,40})(?:\+.*)?")


def read_version(tool: str) -> Reader:
    """Of a file that holds one version, in the first line that says something."""
    return partial(_read_version, tool)


def read_package_json(text: str) -> Iterator[Finding]:
    data = parse_json(text)
    yield from _read_volta(data, text)
    yield from _read_package_manager(data, text)
    yield from _read_dev_engines(data, text)
    engines = find_table(data, "engines")
    for tool in _ENGINES:
        written = find_text(engines, tool)
        if written is not None:
            yield want_range(tool, written, find_line(text, '"engines"', f'"{tool}"'), Rank.NEEDED)


def read_presence(tool: str) -> Reader:
    """Of a file that only this tool reads."""
    return partial(_read_presence, tool)


def _read_presence(tool: str, _: str) -> Iterator[Finding]:
    yield want(tool, "latest", 1, Rank.PRESENT)


def _read_version(tool: str, text: str) -> Iterator[Finding]:
    for number, line in list_lines(text):
        version = line.removeprefix("v")
        if version in ("node", "stable", "latest", "current"):
            version = "latest"
        elif version == "lts/*":
            version = "lts"
        elif version.startswith("lts/"):
            version = _LTS.get(version[4:].lower(), version)
        if re.fullmatch(r"\d+(\.\d+)*(\.[xX*])+|[\^~<>=].*", version):
            yield want_range(tool, version, number, Rank.OWN)
        else:
            yield want(tool, version, number, Rank.OWN, written=line)
        return
    yield Unmapped(f"there is no version of {tool} in it", 1)


def _read_volta(data: object, text: str) -> Iterator[Finding]:
    for tool, version in find_table(data, "volta").items():
        number = find_line(text, '"volta"', f'"{tool}"')
        if tool == "extends":
            yield Unmapped(f"{show(str(version))}, which it extends, is not read", number)
        elif tool in _ENGINES and isinstance(version, str):
            yield want(tool, version, number, Rank.OWN)


def _read_package_manager(data: object, text: str) -> Iterator[Finding]:
    written = find_text(data, "packageManager")
    if written is None:
        return
    number = find_line(text, '"packageManager"')
    match = _PACKAGE_MANAGER.fullmatch(written)
    if match is None:
        yield Unmapped(f"packageManager {show(written)} is not NAME@VERSION", number)
    elif match[1] in _MANAGERS:
        yield want(match[1], match[2], number, Rank.OWN, written=written)
    elif match[1] not in _WITH_NODE:
        yield Unmapped(f"no package manager {show(match[1])} is known", number)


def _read_dev_engines(data: object, text: str) -> Iterator[Finding]:
    engines = find_table(data, "devEngines")
    for kind in ("runtime", "packageManager"):
        found = engines.get(kind)
        for entry in found if isinstance(found, list) else [found]:
            name, version = find_text(entry, "name"), find_text(entry, "version")
            if name in _ENGINES and version is not None:
                number = find_line(text, '"devEngines"', f'"{name}"')
                finding = want_range(name, version, number, Rank.NEEDED)
                yield finding if isinstance(finding, Wanted) else want(name, version, number, Rank.NEEDED)
