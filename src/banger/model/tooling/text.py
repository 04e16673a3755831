"""Structured text of repositories: parsed without a fuss, and the line on which a word stands. Pure.

Everything that is malformed is a `Malformed`; nothing else is raised, however deep or odd the text.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

# Both match whatever begins a string or a comment, closed or not: to try each beginning anew would take long.
_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"?|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_STRING_OR_TRAILING = re.compile(r'"(?:[^"\\\n]|\\.)*"?|,(?=\s*[}\]])', re.DOTALL)


_LINE_MAX = 500


class Malformed(Exception):
    """With what is wrong, in a few words."""


def parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no TOML: {_brief(error)}") from error


def parse_json(text: str, *, comments: bool = False) -> dict[str, Any]:
    """With `comments`, those of JavaScript and commas before a closing bracket are let pass. Always an object."""
    if comments:
        text = _STRING_OR_COMMENT.sub(lambda match: match[0] if match[0][0] == '"' else " ", text)
        text = _STRING_OR_TRAILING.sub(lambda match: match[0] if match[0][0] == '"' else "", text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no JSON: {_brief(error)}") from error
    if not isinstance(found, dict):
        raise Malformed("it is no JSON object")
    return found


def find_table(data: object, *path: str) -> dict[str, Any]:
    """The table at the end of a path of keys; an empty one where there is none."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def find_text(data: object, *path: str) -> str | None:
    """The text at the end of a path of keys, without the space around it. None where there is none, or no text, or
    more of it than a line."""
    found = find_table(data, *path[:-1]).get(path[-1])
    return found.strip() if isinstance(found, str) and len(found) <= _LINE_MAX else None


def find_line(text: str, *words: str) -> int:
    """Where the last of the words is, each sought after the one before; 1 when one is nowhere."""
    position = 0
    for word in words:
        found = text.find(word, position)
        if found < 0:
            break
        position = found
    return text.count("\n", 0, position) + 1


def list_lines(text: str, *, comment: str = "#") -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers from 1; of a very long one its beginning."""
    for number, line in enumerate(text.split("\n"), 1):
        said = line[:_LINE_MAX].partition(comment)[0].strip()
        if said:
            yield number, said


def _brief(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).partition("\n")[0][:120]
