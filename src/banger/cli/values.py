"""Words of the command line as values: sizes, durations, KEY=VALUE, names. Refused here with status 64.

The same rules as `banger.base.units`, without `re`, whose import alone takes as long as our whole start. A
test holds the two together.
"""

from __future__ import annotations

import os

from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from banger.cli.catalog import Parameter

_SCALE = {"k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def refuse(message: str, hint: str | None = None) -> Failure:
    """Input that is wrong, before anything has happened. To be raised."""
    return Failure("bad_request", message, hint=hint)


def parse_value(parameter: Parameter, word: str) -> Any:
    """The value of one word for one parameter; for `list` and `map` the value of one entry."""
    shown = f"--{parameter.flag}" if parameter.flag else parameter.metavar
    if parameter.choices and word not in parameter.choices:
        raise refuse(f"{shown} cannot be {word!r}", hint="it is one of " + ", ".join(parameter.choices))
    parse = _BY_KIND.get(parameter.unit or parameter.name) or _BY_KIND.get(parameter.type)
    return parse(word, shown) if parse else word


def parse_size(word: str, shown: str) -> int:
    """Bytes of `512`, `512M`, `2G`, `1.5GiB`: powers of 1024 always; a bare number is MiB."""
    text = word.strip().lower()
    number = text.rstrip("bikmgt ")
    suffix = text[len(number) :].strip()
    scale = suffix[:1] or "m"
    digits = number.replace(".", "", 1)
    well_formed = suffix in ("", scale, scale + "b", scale + "ib") and scale in _SCALE
    if not (well_formed and digits.isascii() and digits.isdigit() and number[0] != "." and number[-1] != "."):
        raise refuse(f"{shown} {word!r} is not a size", hint="write 512M, 2G or 1.5GiB; a bare number is MiB")
    return int(float(number) * _SCALE[scale]) if "." in number else int(number) * _SCALE[scale]


def parse_size_mib(word: str, shown: str) -> int:
    return parse_size(word, shown) // _SCALE["m"]


def parse_duration(word: str, shown: str) -> float:
    """Seconds of `30s`, `10m`, `2h`, `1h30m`, `250ms`."""
    seconds, rest = 0.0, word.strip()
    wrong = refuse(f"{shown} {word!r} is not a duration", hint="write 30s, 10m, 2h, 7d or 1h30m")
    if not rest or not rest.isascii():
        raise wrong
    while rest:
        tail = rest.lstrip("0123456789")
        number = rest[: len(rest) - len(tail)]
        unit = "ms" if tail[:2] == "ms" else tail[:1]
        if not number or unit not in _SECONDS:
            raise wrong
        seconds += int(number) * _SECONDS[unit]
        rest = tail[len(unit) :]
    return seconds


def parse_int(word: str, shown: str) -> int:
    digits = word[1:] if word[:1] == "-" else word
    if not (digits.isascii() and digits.isdigit()):
        raise refuse(f"{shown} {word!r} is not a number", hint=_show_number(shown))
    return int(word)


def _show_number(shown: str) -> str:
    return f"for example {shown} 2" if shown.startswith("-") else "a whole number, for example 24"


def parse_pair(word: str, shown: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise refuse(f"{shown} {word!r} is not KEY=VALUE", hint=f"for example {shown} team=web")
    return key, value


def parse_environment(word: str, shown: str) -> str:
    """KEY=VALUE; KEY alone takes the value from our own environment."""
    key, equals, _ = word.partition("=")
    if not key:
        raise refuse(f"{shown} {word!r} is not KEY=VALUE", hint=f"for example {shown} LANG=C.UTF-8")
    if equals:
        return word
    if key not in os.environ:
        raise refuse(
            f"{shown} {key}: there is no such variable here", hint=f"give it a value: {shown} {key}=VALUE"
        )
    return f"{key}={os.environ[key]}"


def validate_name(word: str, shown: str) -> str:
    """A DNS label, as the daemon checks it too."""
    fits = 0 < len(word) <= 63 and _LABEL.issuperset(word) and word[0] != "-" and word[-1] != "-"
    if not fits:
        raise refuse(
            f"{shown} {word!r} is not a VM name",
            hint="use up to 63 lower-case letters, digits and inner hyphens, for example web-1",
        )
    return word


# By unit, else by the parameter's name, else by its type.
_BY_KIND: dict[str, Callable[[str, str], Any]] = {
    "seconds": parse_duration,
    "bytes": parse_size,
    "mib": parse_size_mib,
    "env": parse_environment,
    "name": validate_name,
    "int": parse_int,
    "map": parse_pair,
}
