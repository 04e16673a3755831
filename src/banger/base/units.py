"""Sizes and durations as people write them. Pure."""

import re

from banger.base.problem import bad_request

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt])?(i?b)?", re.IGNORECASE)
_SCALE = {"k": KIB, "m": MIB, "g": GIB, "t": TIB}
_DURATION = re.compile(r"(?:\d{1,9}(?:ms|[smhd]))+")
_PART = re.compile(r"(\d+)(ms|[smhd])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Bytes of `512`, `512M`, `2G`, `1.5GiB`: powers of 1024 always; a bare number is MiB."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise bad_request(f"{text!r} is not a size", hint="write 512M, 2G or 1.5GiB; a bare number is MiB")
    number, scale, _ = match.groups()
    return int(float(number) * (_SCALE[scale.lower()] if scale else MIB))


def render_size(size_bytes: int) -> str:
    """`1.5 GiB`: one digit after the point below ten, none above."""
    if size_bytes < KIB:
        return f"{size_bytes} B"
    scale = min((size_bytes.bit_length() - 1) // 10, 4)
    value = size_bytes / 1024**scale
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[scale]
    return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `10m`, `2h`, `1h30m`, `250ms`."""
    if not text.isascii() or not _DURATION.fullmatch(text):
        raise bad_request(f"{text!r} is not a duration", hint="write 30s, 10m, 2h, 7d or 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def render_duration(seconds: float) -> str:
    """`45s`, `10m`, `1h30m`, `2d`: the two largest units, and no unit of which there are none."""
    left = round(seconds)
    if left <= 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        parts.append((count, unit))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count)
