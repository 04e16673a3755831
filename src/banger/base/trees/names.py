"""Names of files as raw bytes: which may be used below a directory, and how they are shown. Pure.

A name on Linux is any bytes but `/` and NUL. None is decoded here on its way from disk to stream or back.
"""

import os

MAX_NAME_BYTES = 4095  # Linux's PATH_MAX without its NUL
MAX_PART_BYTES = 255  # NAME_MAX
MAX_DEPTH = 256  # a descriptor is open for each level
_SHOWN = 200


class UnsafeName(ValueError):
    """A name that may not be used; the text says why, as in `NAME leaves the directory`."""


def split_name(untrusted_name: bytes) -> tuple[bytes, ...]:
    """The components below the directory, none for the directory itself. Raises UnsafeName."""
    if not untrusted_name:
        raise UnsafeName("has an empty name")
    if b"\0" in untrusted_name:
        raise UnsafeName("has a zero byte in its name")
    if untrusted_name.startswith(b"/"):
        raise UnsafeName("is absolute")
    if len(untrusted_name) > MAX_NAME_BYTES:
        raise UnsafeName("has too long a name")
    parts = tuple(part for part in untrusted_name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise UnsafeName("leaves the directory")
    if len(parts) > MAX_DEPTH:
        raise UnsafeName(f"lies more than {MAX_DEPTH} directories deep")
    if any(len(part) > MAX_PART_BYTES for part in parts):
        raise UnsafeName("has too long a name")
    return parts


def render_name(untrusted_name: bytes | str) -> str:
    """The name for a message: nothing in it drives a terminal, and it stays on one line.

    What is not printable becomes `\\xNN` of its bytes; a name with such bytes, with a backslash, or with a space at an
    end is put into quotes.
    """
    text = os.fsdecode(untrusted_name)
    shown = "".join(c if c.isprintable() and c != "\\" else _escape(c) for c in text[: _SHOWN + 1])
    if len(text) > _SHOWN:
        shown = shown[:_SHOWN] + "…"
    return f"'{shown}'" if shown != text or not text or text != text.strip() else shown


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def leaves_directory(place: tuple[bytes, ...], target: bytes) -> bool:
    """Whether a symbolic link in the directory of components `place` may lead out of the tree's root.

    `..` counts at the target's beginning only: behind a name that may itself be a link, nobody knows what it climbs
    from. `place` must hold no links.
    """
    if target.startswith(b"/"):
        return True
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    return climbs > len(place) or b".." in parts[climbs:]
