"""Plain tables, sizes, durations and ages as text. Pure, but for `now`, which callers may pass."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = "  "


def render_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart, no trailing blanks; ends with a newline."""
    lines = [headers, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[-1] = 0
    return "".join(
        _GAP.join([cell.ljust(width) for cell, width in zip(line, widths, strict=True)]).rstrip() + "\n"
        for line in lines
    )


def render_fields(fields: Iterable[tuple[str, str]]) -> str:
    """`name:   value` lines; fields without a value are left out, later lines of a value are aligned."""
    shown = [(name, text) for name, text in fields if text]
    width = max((len(name) for name, _ in shown), default=0) + 3
    return "".join(
        f"{name + ':':<{width}}{text.replace(chr(10), chr(10) + ' ' * width)}\n" for name, text in shown
    )


def render_size(size_bytes: int) -> str:
    """`1.5 GiB`: one digit after the point below ten, none above."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value, unit = float(size_bytes), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 (read after the loop)
        value /= 1024
        if value < 1024:
            break
    return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"


def render_duration(seconds: float) -> str:
    """`4 ms`, `1.2 s`, `3m07s`, `5h02m`, `2d03h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, below, smaller, small in ((60, 3600, "m", 1), (3600, 86400, "h", 60)):
        if whole < below:
            return f"{whole // unit}{smaller}{whole % unit // small:02d}{'s' if small == 1 else 'm'}"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def render_age(timestamp: str, now: float | None = None) -> str:
    """How long ago a moment was, roughly: `12s`, `5m`, `3h`, `9d`; the text itself if it is no moment."""
    moment = parse_timestamp(timestamp)
    if moment is None:
        return timestamp
    seconds = max(0, int((time.time() if now is None else now) - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def parse_timestamp(text: str) -> float | None:
    """Seconds since the epoch of `2025-11-21T06:09:12Z`, with or without a fraction. UTC only.

    By hand, because `datetime` and `time.strptime` cost more at import than the whole table.
    Days of the civil calendar: http://howardhinnant.github.io/date_algorithms.html
    """
    try:
        year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
        hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    except ValueError:
        return None
    year -= month <= 2
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    century, year_of_century = year // 400, year % 400
    day_of_century = year_of_century * 365 + year_of_century // 4 - year_of_century // 100 + day_of_year
    days = century * 146097 + day_of_century - 719468
    return float(days * 86400 + hour * 3600 + minute * 60 + second)
