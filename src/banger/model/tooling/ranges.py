"""Ranges of versions as npm, Python, Ruby, PHP and Cargo write them, and the version that one comes to. Pure.

A range with an upper bound in the tool's own line (`>=18 <21` of node, `>=3.8,<3.12` of Python) comes to the newest
line below that bound: `20`, `3.11`. One without, or with a wider one (`>=3.11`, `^3.11` of Python), comes to the line
of its lower bound: what the authors say works, and the same tomorrow. Of alternatives (`^18 || ^20`) the highest wins.
mise resolves such a line to its newest release.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

Version = tuple[int, ...]

_LINES = {"python": 2, "go": 2, "ruby": 2, "php": 2, "rust": 2, "terraform": 2, "opentofu": 2}
_ANY = frozenset({"", "*", "x", "X", "latest"})
_PART = re.compile(
    r"(\^|~>|~=|~|===?|!=|>=|=>|<=|=<|>|<)?\s*v?(\d{1,9}(?:\.(?:\d{1,9}|[xX*])){0,3})([-+][\w.+-]*)?"
)
_HYPHEN = re.compile(r"v?(\d[\d.]*)\s+-\s+v?(\d[\d.]*)")
_PLAIN = re.compile(r"(?:[a-z]+-)?v?(\d{1,9}(?:\.\d{1,9}){0,3})")
_TEXT_MAX = 200


class Interval(NamedTuple):
    """From `low` on, up to but without `high`, if there is one. Tuples compare as versions do: (3, 11) < (3, 11, 2)."""

    low: Version
    high: Version | None

    def meet(self, other: "Interval") -> "Interval | None":
        low = max(self.low, other.low)
        highs = [high for high in (self.high, other.high) if high is not None]
        high = min(highs) if highs else None
        return Interval(low, high) if high is None or low < high else None


_EVERYTHING = Interval((0,), None)
_NOTHING = Interval((1,), (0,))


class Range(NamedTuple):
    """Alternatives, any of which will do. None of them: every version will."""

    alternatives: tuple[Interval, ...]

    @classmethod
    def parse(cls, text: str) -> "Range | None":
        """None for what is no range of versions."""
        text = text.strip()
        if len(text) > _TEXT_MAX:
            return None
        if text in _ANY:
            return cls(())
        found = []
        for alternative in re.split(r"\|\|?", text):
            if alternative.strip() in _ANY:
                return cls(())
            interval = _parse_alternative(alternative)
            if interval is None:
                return None
            found += interval
        return cls(tuple(found) or (_NOTHING,))

    @classmethod
    def of_version(cls, version: str) -> "Range | None":
        """What a version that mise takes stands for: `20` is any 20. None for one in words."""
        match = _PLAIN.fullmatch(version)
        return cls((_from(_numbers(match[1])),)) if match else None

    def choose(self, tool: str) -> str | None:
        """What to ask mise for; None when nothing is in the range."""
        if any(_is_everything(interval) for interval in self.alternatives or (_EVERYTHING,)):
            return "lts" if tool == "node" else "stable" if tool == "rust" else "latest"
        width = _LINES.get(tool, 1)
        chosen = [each for each in (_choose(interval, width) for interval in self.alternatives) if each]
        return ".".join(map(str, max(chosen))) if chosen else None

    def agrees(self, other: "Range") -> bool:
        """Whether some version is in both."""
        if not self.alternatives or not other.alternatives:
            return True
        return any(mine.meet(theirs) for mine in self.alternatives for theirs in other.alternatives)


def _parse_alternative(text: str) -> list[Interval] | None:
    """Its interval; an empty list when its parts exclude each other; None when it is none."""
    if hyphen := _HYPHEN.fullmatch(text.strip()):
        low, high = _numbers(hyphen[1]), _numbers(hyphen[2])
        return [Interval(low, _next(high))] if low < _next(high) else []
    interval: Interval | None = _EVERYTHING
    rest = text.replace(",", " ").strip()
    if not rest:
        return None
    while rest:
        match = _PART.match(rest)
        if match is None or (rest[match.end() : match.end() + 1] or " ") not in " <>=~^!":
            return None
        for part in _intervals(match[1] or "", match[2]):
            interval = interval.meet(part) if interval else None
        rest = rest[match.end() :].strip()
    return [interval] if interval else []


def _intervals(operator: str, written: str) -> Iterator[Interval]:
    """Of one comparison. What is not equal to one version is no bound."""
    version = _numbers(written)
    match operator:
        case "!=":
            return
        case ">=" | "=>":
            yield Interval(version, None)
        case ">":
            yield Interval(_next(version), None)
        case "<":
            yield Interval((0,), version)
        case "<=" | "=<":
            yield Interval((0,), _next(version))
        case "^":
            yield Interval(version, _next_breaking(version))
        case "~>" | "~=":
            yield Interval(version, _next(version[:-1] if len(version) > 1 else version))
        case "~":
            yield Interval(version, _next(version[:2]))
        case _:
            yield _from(version)


def _from(version: Version) -> Interval:
    return Interval(version, _next(version))


def _numbers(written: str) -> Version:
    """Up to the first placeholder."""
    numbers = []
    for part in written.strip(".").split("."):
        if not part.isdecimal() or len(part) > 9:
            break
        numbers.append(int(part))
    return tuple(numbers) or (0,)


def _next(version: Version) -> Version:
    return (*version[:-1], version[-1] + 1)


def _next_breaking(version: Version) -> Version:
    """The first release that may break what this one does: of 0.x each may (semver.org, 4)."""
    leading = next((index for index, number in enumerate(version) if number), len(version) - 1)
    return _next(version[: leading + 1])


def _choose(interval: Interval, width: int) -> Version | None:
    low, high = interval
    if high is None:
        return low[:width]
    bound = _strip(high)
    if low >= high or not bound:
        return None
    if len(bound) < width and _strip(low):
        return low[:width]
    below = (*bound[:-1], bound[-1] - 1)
    return below if below >= low[: len(below)] else None


def _is_everything(interval: Interval) -> bool:
    return interval.high is None and not _strip(interval.low)


def _strip(version: Version) -> Version:
    """Without the zeros at its end: below 21.0.0 is below 21."""
    end = len(version)
    while end and version[end - 1] == 0:
        end -= 1
    return version[:end]
