"""Sizes and durations as people write them. Pure."""

import re

from banger.base.problem import bad_request

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])?(i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_SCALE = {"k": KIB, "m": MIB, "g": GIB, "t": TIB}
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
    parts = _DURATION.findall(text.strip())
    if not parts or "".join(n + u for n, u in parts) != text.strip():
        raise bad_request(f"{text!r} is not a duration", hint="write 30s, 10m, 2h or 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def render_duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
