"""Archives in the kernel's initramfs format ("newc"), written without a tool. Pure.

Owns the byte layout only. The kernel unpacks archives that follow one another, each padded with zeros to
512 bytes, in order; a later entry of the same name replaces an earlier one
(Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
"""

from collections.abc import Iterable
from typing import NamedTuple

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ARCHIVE_ALIGNMENT = 512
_MAX_FIELD = 0xFFFFFFFF


class CpioEntry(NamedTuple):
    """One file. `mode` includes the type bits (`stat.S_IFREG | 0o644`); the name is relative to the root.

    `content` is a file's bytes or a symbolic link's target, and empty for all other types.
    """

    name: str
    mode: int
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    device_major: int = 0
    device_minor: int = 0


def render_archive(entries: Iterable[CpioEntry]) -> bytes:
    """The archive with its trailer, ready to be followed by another.

    Times are zero and inode numbers count up, so that equal entries give equal bytes. Parents must come
    before what they hold: the kernel makes no directories of its own accord.
    """
    archive = bytearray()
    for inode, entry in enumerate(entries, start=1):
        _append(archive, entry, inode)
    _append(archive, CpioEntry(_TRAILER, 0), 0)
    archive.extend(bytes(-len(archive) % _ARCHIVE_ALIGNMENT))
    return bytes(archive)


def _append(archive: bytearray, entry: CpioEntry, inode: int) -> None:
    name = entry.name.encode() + b"\0"
    assert not entry.name.startswith("/"), entry.name
    assert "\0" not in entry.name
    assert len(entry.content) <= _MAX_FIELD, f"{entry.name} is too large for newc"
    fields = (
        inode,
        entry.mode,
        entry.uid,
        entry.gid,
        1,  # links: each entry is a file of its own
        0,  # modification time
        len(entry.content),
        0,
        0,  # device the archive was made on
        entry.device_major,
        entry.device_minor,
        len(name),
        0,  # checksum, only in the "crc" format
    )
    archive += _MAGIC + b"".join(b"%08x" % field for field in fields) + name
    archive.extend(bytes(-len(archive) % 4))
    archive += entry.content
    archive.extend(bytes(-len(archive) % 4))
