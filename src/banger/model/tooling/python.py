"""Python: .python-version, pyproject.toml, Pipfile and runtime.txt. Pure."""

import re
from collections.abc import Iterator

from banger.model.tooling.found import Finding, Rank, Unmapped, show, want, want_range
from banger.model.tooling.text import find_line, find_text, list_lines, parse_toml

_VERSION = re.compile(r"(?:cpython-?|python-?)?(\d+(?:\.\d+){0,2}(?:[abrc.]+\d+|t)?)")
_OTHER = re.compile(
    r"(?:pypy|graalpy|miniconda|miniforge|anaconda|stackless|jython|ironpython|micropython)\S*"
)


def read_python_version(text: str) -> Iterator[Finding]:
    """One version a line; the first is the one that `python` is."""
    for number, line in list_lines(text):
        for word in line.split():
            if match := _VERSION.fullmatch(word):
                yield want("python", match[1], number, Rank.OWN, written=word)
            elif _OTHER.fullmatch(word):
                yield want("python", word, number, Rank.OWN)
            else:
                yield Unmapped(
                    f"{show(word)} is no version of python, but may be a virtual environment", number
                )


def read_pyproject(text: str) -> Iterator[Finding]:
    data = parse_toml(text)
    written = find_text(data, "project", "requires-python")
    if written is not None:
        yield want_range("python", written, find_line(text, "requires-python"), Rank.NEEDED)
    poetry = find_text(data, "tool", "poetry", "dependencies", "python")
    if poetry is not None:
        number = find_line(text, "tool.poetry.dependencies", "python ")
        yield want_range("python", poetry, number, Rank.NEEDED)


def read_pipfile(text: str) -> Iterator[Finding]:
    data = parse_toml(text)
    for key in ("python_full_version", "python_version"):
        written = find_text(data, "requires", key)
        if written is not None:
            yield want_range("python", written, find_line(text, "requires", key), Rank.NEEDED)
            return


def read_runtime(text: str) -> Iterator[Finding]:
    for number, line in list_lines(text):
        if match := re.fullmatch(r"python-(\d[\w.]*)", line):
            yield want("python", match[1], number, Rank.NEEDED, written=line)
        else:
            yield Unmapped(f"no runtime {show(line)} is known", number)
        return
