"""`vm cp`: files between this host and a VM, as `docker cp` does it."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager

from banger.cli.output import may_redraw, note
from banger.cli.render.tables import render_size
from banger.cli.values import refuse
from banger.client import copying
from banger.client.blocking import open_connection
from banger.client.copying import Copied, Options
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import NoReturn

    from banger.cli.parser import Arguments

_DRAWN_EVERY_S = 0.1
_REDRAW = "\r\x1b[K"
_BAR_CELLS = 24
_SHOWN_NAMES = 5


def copy(arguments: Arguments) -> int:
    """Each source alone, in order; the first failure ends it."""
    *sources, destination = arguments.references
    if not sources:
        raise refuse("a source and a destination are needed", hint="banger vm cp FILE VM:PATH")
    options = Options(
        follow=arguments.has("follow"),
        archive=arguments.has("archive"),
        parents=arguments.has("parents"),
        into=len(sources) > 1,
        user=arguments.get("user"),
    )
    _check_sides(sources, destination)
    with _ending_on_signals():
        for source in sources:
            _copy_one(source, destination, options, quiet=arguments.has("quiet"))
    return 0


def split_side(word: str) -> tuple[str, str] | None:
    """(VM, path) of `VM:PATH`; None for a path of this host: `-`, or one with a slash before its first colon."""
    vm, colon, path = word.partition(":")
    return (vm, path) if colon and vm and "/" not in vm and vm != "." else None


def _check_sides(sources: list[str], destination: str) -> None:
    guest_sources = [source for source in sources if split_side(source)]
    if split_side(destination):
        if guest_sources:
            hint = f"banger vm cp {guest_sources[0]} - | banger vm cp - {destination}"
            raise refuse("one side must be on this host", hint=hint)
    elif len(guest_sources) < len(sources):
        raise refuse(
            "none of the names is in a VM" if not guest_sources else "the sources are on both sides",
            hint=f"banger vm cp {sources[0]} VM:PATH",
        )
    if "-" in sources and len(sources) > 1:
        raise refuse("- is the only source, or none", hint=f"banger vm cp - {destination}")
    if destination == "-" and len(sources) > 1:
        raise refuse("only one source can go to -", hint=f"banger vm cp {sources[0]} -")


def _copy_one(source: str, destination: str, options: Options, *, quiet: bool) -> None:
    from_guest, to_guest = split_side(source), split_side(destination)
    shown = _Shown(source, quiet=quiet)
    try:
        with open_connection() as connection:
            if to_guest is not None and source == "-":
                copied = copying.put_stdin(connection, *to_guest, options, shown.tell)
            elif to_guest is not None:
                copied = copying.put(connection, *to_guest, source, options, shown.tell)
            elif from_guest is not None and destination == "-":
                copied = copying.get_stdout(connection, *from_guest, options, shown.tell)
            else:
                assert from_guest is not None
                copied = copying.get(connection, *from_guest, destination, options, shown.tell)
    finally:
        shown.clear()
    for text in copied.left_out:
        note(f"banger: warning: left out {text}")
    if not quiet and destination != "-":
        note(f"{source} → {destination}: {_describe(copied)}")
    if copied.changed:
        names = ", ".join(copied.changed[:_SHOWN_NAMES])
        raise Failure(
            "conflict",
            f"files changed while they were copied: {names}",
            hint="copy them again when nobody writes to them",
            outcome="failed",
        )


def _describe(copied: Copied) -> str:
    entries = "1 file" if copied.entries == 1 else f"{copied.entries} files"
    return f"{entries}, {render_size(copied.size_bytes)}"


class _Shown:
    """A bar on stderr if that is a terminal, else nothing before the end."""

    def __init__(self, source: str, *, quiet: bool) -> None:
        self._source = "".join(c if c.isprintable() else "?" for c in source)[-40:]
        self._live = not quiet and may_redraw(sys.stderr)
        self._began_s = time.monotonic()
        self._drawn_s = 0.0

    def tell(self, done_bytes: int, total_bytes: int | None) -> None:
        now = time.monotonic()
        if not self._live or now - self._drawn_s < _DRAWN_EVERY_S:
            return
        self._drawn_s = now
        rate = render_size(int(done_bytes / max(now - self._began_s, 0.001)))
        line = f"{self._source} {render_bar(done_bytes, total_bytes)} {rate}/s"
        sys.stderr.write(_REDRAW + line)
        sys.stderr.flush()

    def clear(self) -> None:
        if self._live and self._drawn_s:
            sys.stderr.write(_REDRAW)
            sys.stderr.flush()


def render_bar(done_bytes: int, total_bytes: int | None) -> str:
    """`[████    ] 50% 1 MiB / 2 MiB`, or what is done alone when nobody knows the whole."""
    if not total_bytes:
        return render_size(done_bytes)
    part = min(done_bytes / total_bytes, 1.0)
    bar = "█" * int(part * _BAR_CELLS)
    return f"[{bar:<{_BAR_CELLS}}] {part:4.0%} {render_size(done_bytes)} / {render_size(total_bytes)}"


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does: with our half-written file removed."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
