"""The stages of an operation, as they happen, on stderr.

On a terminal the current stage has a line that is redrawn; finished stages stay above it with their time.
Elsewhere, and on a dumb terminal, each finished stage is one plain line, and details appear at most every two seconds.
"""

from __future__ import annotations

import sys
import time

from banger.cli.output import defuse, may_colour, may_redraw
from banger.cli.render.tables import render_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_DETAIL_INTERVAL_S = 2.0
_DIM, _GREEN, _RED, _PLAIN = "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
_REDRAW, _BELOW = "\r\x1b[K", "\x1b[J"


class Silent:
    """Progress with --quiet."""

    def event(self, event: dict[str, Any]) -> None: ...

    def idle(self) -> None: ...

    def end(self, *, failed: bool) -> None: ...


class Plain:
    """One line a stage, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told_at = float("-inf")

    def event(self, event: dict[str, Any]) -> None:
        if event.get("type") == "stage" and event.get("state") == "end":
            self._write(f"• {event['name']} … {_duration(event)}")
        elif event.get("type") == "detail" and time.monotonic() - self._told_at >= _DETAIL_INTERVAL_S:
            self._told_at = time.monotonic()
            self._write(f"  {event.get('text', '')}")

    def idle(self) -> None: ...

    def end(self, *, failed: bool) -> None: ...

    def _write(self, line: str) -> None:
        self._stream.write(defuse(line) + "\n")
        self._stream.flush()


class Live:
    """The current stage redrawn in place, with a spinner and a clock."""

    def __init__(self, stream: TextIO, columns: int) -> None:
        self._stream = stream
        self._columns = columns
        self._colour = may_colour(stream)
        self._stage: str | None = None
        self._detail = ""
        self._since = 0.0
        self._turns = 0

    def event(self, event: dict[str, Any]) -> None:
        if event.get("type") == "detail":
            self._detail = str(event.get("text", ""))
        elif event.get("type") == "snapshot":  # we were too slow for single events
            self._begin(event["operation"].get("stage"))
        elif event.get("state") == "begin":
            self._begin(str(event["name"]))
        elif event.get("state") == "end":
            self._finish("✓", _GREEN, str(event["name"]), _duration(event))
        self._draw()

    def idle(self) -> None:
        self._turns += 1
        self._draw()

    def end(self, *, failed: bool) -> None:
        """Leaves the terminal as it should be; a stage that was under way is marked."""
        if self._stage is not None and failed:
            self._finish("✗", _RED, self._stage, render_duration(time.monotonic() - self._since))
        else:
            self._stream.write(_REDRAW)
        self._stream.flush()

    def _begin(self, name: str | None) -> None:
        self._stage, self._detail, self._since = name or None, "", time.monotonic()

    def _finish(self, mark: str, colour: str, name: str, duration: str) -> None:
        self._stage = None
        self._stream.write(f"{_REDRAW}{self._paint(mark, colour)} {name} {self._paint(duration, _DIM)}\n")

    def _draw(self) -> None:
        if self._stage is None:
            return
        mark = _SPINNER[self._turns % len(_SPINNER)]
        text = f"{self._stage} {render_duration(time.monotonic() - self._since)}"
        if self._detail:
            text += f"  {self._detail}"
        self._stream.write(f"{_REDRAW}{self._paint(mark, _DIM)} {_clip(text, self._columns - 3)}")
        self._stream.flush()

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text


def start_progress(*, quiet: bool) -> Silent | Plain | Live:
    """The kind that fits stderr."""
    if quiet:
        return Silent()
    if not may_redraw(sys.stderr):
        return Plain(sys.stderr)
    from banger.cli.terminal import find_size

    return Live(sys.stderr, find_size()[1])


def _duration(event: dict[str, Any]) -> str:
    return render_duration(float(event.get("duration_ms") or 0) / 1000)


def _clip(text: str, width: int) -> str:
    """One line of printable characters: a tool's output must not move the cursor."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"
