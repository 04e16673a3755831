"""JSON on stdout and notes on stderr, and whether a stream may have colours."""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


def print_json(value: Any) -> None:
    """Two spaces of indent, UTF-8 as it is, keys in the order of the reference. On a terminal what could drive it is
    escaped: the same JSON in other letters."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if sys.stdout.isatty():
        text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write(text + "\n")


def defuse(text: str) -> str:
    """A guest's text without what could drive the reader's terminal: tabs and line ends stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def note(text: str) -> None:
    """A remark for people, on stderr, after what is on stdout so far. It may hold names that others have chosen."""
    sys.stdout.flush()
    sys.stderr.write(defuse(text) + "\n")
    sys.stderr.flush()


def warn(result: dict[str, Any]) -> None:
    """What the start of a VM had to leave out."""
    vm = result.get("vm")
    for warning in vm.get("warnings") or () if isinstance(vm, dict) else ():
        note(f"banger: warning: {warning}")


def may_colour(stream: TextIO) -> bool:
    """On a terminal that can, and never with NO_COLOR (https://no-color.org)."""
    return may_redraw(stream) and not os.environ.get("NO_COLOR")


def may_redraw(stream: TextIO) -> bool:
    """On a terminal that understands escape sequences."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"
