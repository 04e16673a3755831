"""Ruby, PHP, .NET, Terraform and OpenTofu. Pure."""

import re
from collections.abc import Iterator
from functools import partial

from banger.model.tooling.found import Finding, Rank, Reader, Unmapped, show, want, want_range
from banger.model.tooling.text import find_line, find_text, list_lines, parse_json

_GEMFILE = re.compile(r"ruby[\s(]+((?:[\"'][^\"']{1,40}[\"'][,\s]*)+)\)?")
_QUOTED = re.compile(r"[\"']([^\"']{1,40})[\"']")


def read_ruby_version(text: str) -> Iterator[Finding]:
    """`3.2.2`, `ruby-3.2.2`, or another Ruby by its name."""
    for number, line in list_lines(text):
        yield want("ruby", line.removeprefix("ruby-"), number, Rank.OWN, written=line)
        return


def read_gemfile(text: str) -> Iterator[Finding]:
    """Bundler's `ruby` with text. It is a program of Ruby's: a version that is computed is not seen."""
    for number, line in list_lines(text):
        if match := _GEMFILE.match(line):
            written = ", ".join(_QUOTED.findall(match[1]))
            yield want_range("ruby", written, number, Rank.NEEDED)
            return


def read_composer(text: str) -> Iterator[Finding]:
    """Composer's `~8.1` allows 8.2, as Ruby's `~>` does."""
    data = parse_json(text)
    platform = find_text(data, "config", "platform", "php")
    if platform is not None:
        yield want_range("php", platform, find_line(text, '"platform"', '"php"'), Rank.OWN)
    written = find_text(data, "require", "php")
    if written is not None:
        number = find_line(text, '"require"', '"php"')
        yield want_range("php", re.sub(r"~(?!>)", "~>", written), number, Rank.NEEDED)


def read_global_json(text: str) -> Iterator[Finding]:
    """`rollForward` says what else would do; the version itself always does."""
    version = find_text(parse_json(text, comments=True), "sdk", "version")
    if version is not None:
        yield want("dotnet", version, find_line(text, '"sdk"', '"version"'), Rank.OWN)


def read_infrastructure_version(tool: str) -> Reader:
    """Of tfenv's or tofuenv's file."""
    return partial(_read_infrastructure_version, tool)


def _read_infrastructure_version(tool: str, text: str) -> Iterator[Finding]:
    for number, line in list_lines(text):
        if ":" in line or line in ("min-required", "latest-allowed"):
            yield Unmapped(f"{show(line)} of {tool} is not looked up", number)
        else:
            yield want(tool, line.removeprefix("v"), number, Rank.OWN, written=line)
        return
