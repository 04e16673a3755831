"""The plan: of all files that speak of tools, which tools in which versions. Pure.

Owns the closed list of files, their sizes and who is believed. Nothing here fails: a file that is malformed, and
whatever cannot be mapped, is a warning.
"""

from collections.abc import Iterator, Mapping

import msgspec

from banger.model.tooling import devcontainer, go, java, javascript, managers, other, python, rust
from banger.model.tooling.found import Reader, Tool, Unmapped, Wanted
from banger.model.tooling.text import Malformed

CONTENT_MAX_BYTES = 256 * 1024
TOOLS_MAX = 64
WARNINGS_MAX = 100

# The order decides between files of one rank.
READERS: dict[str, Reader] = {
    **dict.fromkeys(
        (
            *("mise.toml", ".mise.toml", "mise/config.toml", ".mise/config.toml"),
            *(".config/mise.toml", ".config/mise/config.toml"),
        ),
        managers.read_mise,
    ),
    ".tool-versions": managers.read_tool_versions,
    ".nvmrc": javascript.read_version("node"),
    ".node-version": javascript.read_version("node"),
    ".bun-version": javascript.read_version("bun"),
    ".dvmrc": javascript.read_version("deno"),
    "package.json": javascript.read_package_json,
    "go.work": go.read_go_mod,
    "go.mod": go.read_go_mod,
    ".python-version": python.read_python_version,
    "pyproject.toml": python.read_pyproject,
    "Pipfile": python.read_pipfile,
    "runtime.txt": python.read_runtime,
    "rust-toolchain.toml": rust.read_toolchain_toml,
    "rust-toolchain": rust.read_toolchain,
    "Cargo.toml": rust.read_cargo,
    ".java-version": java.read_java_version,
    ".sdkmanrc": java.read_sdkmanrc,
    "pom.xml": java.read_pom,
    "build.gradle": java.read_gradle,
    "build.gradle.kts": java.read_gradle,
    ".ruby-version": other.read_ruby_version,
    "Gemfile": other.read_gemfile,
    "composer.json": other.read_composer,
    "global.json": other.read_global_json,
    ".terraform-version": other.read_infrastructure_version("terraform"),
    ".opentofu-version": other.read_infrastructure_version("opentofu"),
    ".devcontainer/devcontainer.json": devcontainer.read_devcontainer,
    ".devcontainer.json": devcontainer.read_devcontainer,
    "deno.json": javascript.read_presence("deno"),
    "deno.jsonc": javascript.read_presence("deno"),
    "bun.lock": javascript.read_presence("bun"),
    "bun.lockb": javascript.read_presence("bun"),
    "bunfig.toml": javascript.read_presence("bun"),
}
FILES = tuple(READERS)
PRESENCE_ONLY = frozenset({"deno.json", "deno.jsonc", "bun.lock", "bun.lockb", "bunfig.toml"})


class ToolWarning(msgspec.Struct, frozen=True, kw_only=True):
    """What was not taken from a file, and why."""

    file: str
    line: int
    text: str


class ToolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The tools to install, by name; of one with several versions the first is the one that its name runs. `warnings`
    are what was not taken."""

    tools: tuple[Tool, ...] = ()
    warnings: tuple[ToolWarning, ...] = ()


class _Place(msgspec.Struct, frozen=True):
    """A finding with where it is; orders by who is believed."""

    order: tuple[int, int, int]
    file: str
    wanted: Wanted


def plan_tools(contents: Mapping[str, bytes], *, subdirectory: str = "") -> ToolPlan:
    """Out of the contents of FILES, by path below the repository's root; those in the subdirectory that is worked in
    come before those of the root. Contents of other paths are not looked at."""
    places: list[_Place] = []
    warnings: list[ToolWarning] = []
    for near, directory in enumerate(dict.fromkeys((subdirectory.strip("/"), ""))):
        for index, name in enumerate(FILES):
            path = f"{directory}/{name}" if directory else name
            if path in contents:
                for finding in _read(name, contents[path]):
                    if isinstance(finding, Unmapped):
                        warnings.append(ToolWarning(file=path, line=finding.line, text=finding.text))
                    else:
                        places.append(_Place((finding.rank, near, index), path, finding))
    places.sort(key=lambda place: place.order)
    tools = list(_choose(places, warnings))
    if len(tools) > TOOLS_MAX:
        dropped = tools[TOOLS_MAX]
        warnings.append(
            ToolWarning(file=dropped.file, line=dropped.line, text=f"more than {TOOLS_MAX} tools are planned")
        )
    return ToolPlan(tools=tuple(tools[:TOOLS_MAX]), warnings=tuple(warnings[:WARNINGS_MAX]))


def _read(name: str, content: bytes) -> Iterator[Wanted | Unmapped]:
    if name in PRESENCE_ONLY:
        yield from READERS[name]("")
        return
    if len(content) > CONTENT_MAX_BYTES:
        yield Unmapped(f"it is larger than {CONTENT_MAX_BYTES >> 10} KiB, and is not read", 1)
        return
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        yield from READERS[name](text)
    except UnicodeDecodeError:
        yield Unmapped("it is no UTF-8", 1)
    except Malformed as malformed:
        yield Unmapped(str(malformed), 1)


def _choose(places: list[_Place], warnings: list[ToolWarning]) -> Iterator[Tool]:
    """Of each tool all versions of the file that is believed. Of the others, those that want something else are told;
    a file of which only the presence speaks wants nothing."""
    believed: dict[str, _Place] = {}
    given: set[tuple[str, str]] = set()
    for place in places:
        wanted = place.wanted
        first = believed.setdefault(wanted.name, place)
        if (first.file, first.wanted.rank) == (place.file, wanted.rank):
            if (wanted.name, wanted.version) not in given:
                given.add((wanted.name, wanted.version))
                yield Tool(
                    name=wanted.name,
                    version=wanted.version,
                    file=place.file,
                    line=wanted.line,
                    written=wanted.written,
                )
        elif wanted.range and first.wanted.range and not wanted.range.agrees(first.wanted.range):
            text = f"{wanted.name} {wanted.written} is not used: {first.file} says {first.wanted.written}"
            warnings.append(ToolWarning(file=place.file, line=wanted.line, text=text))
