"""Logs of a VMM: one file per boot, the one before kept, and what their last lines say.

Owns the names' meaning, not the files: a QEMU that runs writes on while its log is truncated (O_APPEND).
"""

import os
import re
from contextlib import suppress
from pathlib import Path

PREVIOUS = ".1"
_TAIL_BYTES = 16 * 1024
_LAST_LINES_BYTES = 512
_HALT = re.compile(
    rb"^(\[[^\]\n]*\] ?)*reboot: (System halted|Power down)\r*\n", re.MULTILINE
)  # kernel/reboot.c


def rotate_log(path: Path) -> None:
    """Makes room for a new boot: the present log becomes `NAME.1`, replacing the one before."""
    with suppress(FileNotFoundError):
        path.rename(path.with_name(path.name + PREVIOUS))


def open_log(path: Path) -> int:
    """A descriptor that appends to it. Private: a guest's console may show anything."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def bound_log(path: Path, *, limit_bytes: int) -> bool:
    """Empties a log that has outgrown its limit, keeping its end in `NAME.1`. True when it did.

    A guest can write to its console without end. Emptied first: on a full disk that is what makes room for the end.
    """
    try:
        if path.stat().st_size <= limit_bytes:
            return False
        tail = read_tail(path, limit_bytes // 4)
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    path.with_name(path.name + PREVIOUS).write_bytes(tail)
    return True


def read_tail(path: Path, size_bytes: int = _TAIL_BYTES) -> bytes:
    """The file's last bytes; nothing when there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size_bytes))
            return file.read(size_bytes)
    except FileNotFoundError:
        return b""


def render_tail(path: Path, lines: int) -> str:
    """The last non-empty lines for a person: printable characters only, named by the file."""
    text = read_tail(path).decode("utf-8", "replace")
    kept = ["".join(c for c in line if c.isprintable()).rstrip() for line in text.splitlines()]
    return "\n".join(f"{path.name}: {line}" for line in [line for line in kept if line][-lines:])


def find_panic(path: Path) -> str | None:
    """The guest kernel's last words, if it panicked: a panic ends QEMU as quietly as a reboot does."""
    text = read_tail(path).decode("utf-8", "replace")
    for line in reversed(text.splitlines()):
        _, found, reason = line.partition("Kernel panic - not syncing: ")
        if found:
            return "".join(c for c in reason if c.isprintable()).strip()
    return None


def has_halted(path: Path) -> bool:
    """Whether the last lines are those of a guest kernel that has powered off, and has no way to."""
    return _HALT.search(read_tail(path, _LAST_LINES_BYTES)) is not None
