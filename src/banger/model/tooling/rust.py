"""Rust: rust-toolchain, rust-toolchain.toml and Cargo.toml. Pure."""

from collections.abc import Iterator

from banger.model.tooling.found import Finding, Rank, Unmapped, want, want_range
from banger.model.tooling.text import find_line, find_table, find_text, list_lines, parse_toml


def read_toolchain(text: str) -> Iterator[Finding]:
    """The older form is the channel and nothing else."""
    lines = list(list_lines(text))
    if len(lines) == 1 and "=" not in lines[0][1] and not lines[0][1].startswith("["):
        yield want("rust", lines[0][1], lines[0][0], Rank.OWN)
        return
    yield from read_toolchain_toml(text)


def read_toolchain_toml(text: str) -> Iterator[Finding]:
    """Components, targets and profile are for rustup, which reads this file in the guest."""
    toolchain = find_table(parse_toml(text), "toolchain")
    channel = find_text(toolchain, "channel")
    if channel is not None:
        yield want("rust", channel, find_line(text, "channel"), Rank.OWN)
    elif "path" in toolchain:
        yield Unmapped("a toolchain that is a path is none that can be downloaded", find_line(text, "path"))


def read_cargo(text: str) -> Iterator[Finding]:
    """Whatever compiles this package will do, if it says nothing."""
    data = parse_toml(text)
    number = find_line(text, "rust-version")
    for path in (("package", "rust-version"), ("workspace", "package", "rust-version")):
        written = find_text(data, *path)
        if written is not None:
            yield want_range("rust", f">={written}", number, Rank.NEEDED)
            return
    yield want("rust", "stable", 1, Rank.PRESENT)
