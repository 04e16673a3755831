"""Why a request's parameters do not fit, naming the field and the value. Pure."""

import re
from typing import Any

import msgspec

from banger.base.problem import Problem, bad_request

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_NAMED = re.compile(r"^Object (contains unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)
_MAX_SHOWN = 60
_SECRET = re.compile(r"^env")  # what is refused is logged


def explain_mismatch(what: str, untrusted_content: msgspec.Raw, error: Exception) -> Problem:
    """A `bad_request` from msgspec's complaint: `vm.create: vcpus is "four": expected int, got str`."""
    try:
        content = msgspec.json.decode(untrusted_content)
    except (ValueError, RecursionError):
        return bad_request(f"{what}: the parameters are not JSON")
    match = _PLACE.match(str(error))
    assert match is not None
    complaint, path = match["what"], match["path"] or "$"
    field = path.removeprefix("$").removeprefix(".")
    if named := _NAMED.match(complaint):
        inner = f"{field}.{named['field']}" if field else named["field"]
        if named[1] == "missing required":
            return bad_request(f"{what}: {_shorten(inner)} is missing")
        value = _find_value(content, path)
        shown = _show(inner, value.get(named["field"])) if isinstance(value, dict) else "?"
        return bad_request(f"{what}: unknown field {_shorten(inner)} (its value is {shown})")
    reason = complaint[:1].lower() + complaint[1:].replace("`", "")
    shown = _show(field, _find_value(content, path))
    return bad_request(f"{what}: {_shorten(field) or 'params'} is {shown}: {reason}")


def _find_value(content: Any, path: str) -> Any:
    """The value at a path such as `$.argv[2]`; as deep as it can be followed."""
    for key, index in _STEP.findall(path.removeprefix("$")):
        if key and isinstance(content, dict) and key in content:
            content = content[key]
        elif index and isinstance(content, list) and int(index) < len(content):
            content = content[int(index)]
        else:
            break
    return content


def _show(field: str, value: Any) -> str:
    if _SECRET.match(field):
        return "not shown"
    return _shorten(msgspec.json.encode(value).decode("utf-8", "replace"))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
