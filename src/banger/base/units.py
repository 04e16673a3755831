"""Sizes as people write them. Pure."""

import re

from banger.base.problem import bad_request

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])?(i?b)?", re.IGNORECASE)
_SCALE = {"k": KIB, "m": MIB, "g": GIB, "t": TIB}


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
