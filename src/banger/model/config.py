"""The configuration file's meaning: its text as a Config, or a refusal that says where. Pure; reading is the daemon's.

Unknown keys and bad values are refused with file, line and key; what a VM may not have, its defaults may not.
"""

import re
import tomllib
from typing import NamedTuple

import msgspec

from banger.base.problem import Problem, bad_request
from banger.model.agents import AgentKeys, validate_agent_name
from banger.model.config_checks import EXAMPLES, Path, list_checks
from banger.model.config_keys import Config, FileSync, LimitKeys, Opencode, ToolingKeys, VmDefaults

__all__ = ["Config", "FileSync", "LimitKeys", "Opencode", "ToolingKeys", "VmDefaults", "parse_config"]

_TABLES: dict[str, type[msgspec.Struct]] = {
    "vm_defaults": VmDefaults,
    "limits": LimitKeys,
    "file_sync": FileSync,
    "opencode": Opencode,
    "tooling": ToolingKeys,
    "agents": AgentKeys,
}
_LISTS = frozenset({"file_sync"})  # of tables
_NAMED = frozenset({"agents"})  # tables of tables, each with a name of its own
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


def parse_config(text: str, *, file: str) -> Config:
    """Raises `bad_request` that names file, line and key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise bad_request(f"{file}: {error}", hint=f"correct {file}") from error
    _check_agents(file, text, data.get("agents"))
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise _refused(file, text, _explain(str(error))) from error
    for path, check in list_checks(config):
        try:
            check(config)
        except Problem as problem:
            refusal = _Refusal(path, problem.brief, problem.hint or _example(path))
            raise _refused(file, text, refusal) from problem
    return config


def _check_agents(file: str, text: str, agents: object) -> None:
    """Each by itself: for a table of tables msgspec does not say which one it means."""
    for name, table in agents.items() if isinstance(agents, dict) else ():
        path = ("agents", name)
        try:
            validate_agent_name(name)
            msgspec.convert(table, AgentKeys)
        except Problem as problem:
            raise _refused(file, text, _Refusal(path, problem.brief, problem.hint or "")) from problem
        except msgspec.ValidationError as error:
            raise _refused(file, text, _explain(str(error), path)) from error


class _Refusal(NamedTuple):
    path: Path
    reason: str
    hint: str


def _explain(message: str, begin: Path = ()) -> _Refusal:
    """Out of msgspec's message, which ends in the path: `… - at `$.vm_defaults.vcpu``."""
    reason, _, place = message.partition(" - at ")
    path: Path = (*begin, *(name or int(index) for name, index in _STEP.findall(place.strip("`$"))))
    if unknown := re.search(r"unknown field `([^`]+)`", reason):
        return _Refusal((*path, unknown[1]), "is no key that banger knows", _list_keys(path, unknown[1]))
    if missing := re.search(r"missing required field `([^`]+)`", reason):
        return _Refusal(path, f"{missing[1]} is missing", _example((*path, missing[1])))
    return _Refusal(path, reason[:1].lower() + reason[1:], _example(path))


def _list_keys(path: Path, unknown: str) -> str:
    """One that is spelled almost so comes first."""
    from difflib import get_close_matches  # for who has mistyped only: the daemon's start has no time for it

    table = _TABLES.get(str(path[0])) if path else None
    fields = (table or Config).__struct_fields__
    keys = ", ".join(fields)
    all_keys = f"{_header(str(path[0]))} has {keys}" if table else f"there are {keys}"
    close = get_close_matches(unknown, fields, n=1)
    return f"did you mean {close[0]}? {all_keys}" if close else all_keys


def _example(path: Path) -> str:
    key = _name(path)
    table = str(path[0]) if path and path[0] in _NAMED else key
    return f"for example {key} = {EXAMPLES[key]}" if key in EXAMPLES else f"it is a table: {_header(table)}"


def _header(table: str) -> str:
    if table in _NAMED:
        return f"[{table}.NAME]"
    return f"[[{table}]]" if table in _LISTS else f"[{table}]"


def _name(path: Path) -> str:
    """An entry of a list is its key's matter."""
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def _refused(file: str, text: str, refusal: _Refusal) -> Problem:
    key = _name(refusal.path)
    return bad_request(f"{file}:{_find_line(text, refusal.path)}: {key}: {refusal.reason}", hint=refusal.hint)


def _find_line(text: str, path: Path) -> int:
    """Where the key is, in its own table if that has a header, else wherever TOML may have it."""
    lines = text.splitlines()
    begin, end = 0, len(lines)
    if path and path[0] in _TABLES:
        name = (
            rf"{path[0]}[\"']?\s*\.\s*[\"']?{re.escape(str(path[1]))}"
            if path[0] in _NAMED and path[1:]
            else path[0]
        )
        header = re.compile(rf"\s*\[\[?\s*[\"']?{name}[\"']?\s*\]")
        headers = [number for number, line in enumerate(lines) if header.match(line)]
        wanted = next((step for step in path if isinstance(step, int)), 0)
        if wanted < len(headers):
            begin = headers[wanted]
            after = (n for n in range(begin + 1, len(lines)) if re.match(r"\s*\[", lines[n]))
            end = next(after, len(lines))
    found = _find_key(lines[begin:end], _name(path))
    return begin + 1 + (found or 0)


def _find_key(lines: list[str], key: str) -> int | None:
    """Before `=`, in a header, in an inline table, dotted; not in a comment."""
    pattern = re.compile(rf"(?:^|[\s\[{{,.\"']){re.escape(key)}[\"']?\s*[=\].]")
    comment = re.compile(r"(?:^|\s)#")
    return next((number for number, line in enumerate(lines) if pattern.search(comment.split(line)[0])), None)
