"""Which of a file's blocks are its own, where a file system lets files share blocks (reflink).

Owns the form of the kernel's answer: Documentation/filesystems/fiemap.rst.
"""

import fcntl
import struct
from pathlib import Path

from banger.base.files import allocated_bytes

_FIEMAP = 0xC020660B
_FIEMAP_HEAD = struct.Struct("=QQIIII")  # start, length, flags, mapped, count, reserved
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_EXTENTS_AT_ONCE = 512
_LAST, _SHARED = 0x1, 0x2000
_WHOLE = 2**64 - 1


def measure_own_bytes(path: Path) -> int:
    """Bytes on disk that no other file shares. Where the file system does not tell, all that are the file's."""
    try:
        with path.open("rb") as file:
            return _sum_extents(file.fileno(), shared=False)
    except FileNotFoundError:
        return 0
    except OSError:
        return allocated_bytes(path)


def measure_shared_bytes(path: Path) -> int:
    """Bytes on disk that other files have in common with this one; 0 where the file system does not tell."""
    try:
        with path.open("rb") as file:
            return _sum_extents(file.fileno(), shared=True)
    except OSError:
        return 0


def _sum_extents(descriptor: int, *, shared: bool) -> int:
    found = start = 0
    while True:
        buffer = bytearray(_FIEMAP_HEAD.size + _EXTENTS_AT_ONCE * _FIEMAP_EXTENT.size)
        _FIEMAP_HEAD.pack_into(buffer, 0, start, _WHOLE - start, 0, 0, _EXTENTS_AT_ONCE, 0)
        fcntl.ioctl(descriptor, _FIEMAP, buffer)
        extents, is_whole = parse_extents(bytes(buffer))
        found += sum(length for _, length, is_shared in extents if is_shared is shared)
        if is_whole:
            return found
        start = extents[-1][0] + extents[-1][1]


def parse_extents(answer: bytes) -> tuple[list[tuple[int, int, bool]], bool]:
    """(offset, length, shared) of each extent in the kernel's answer, and whether the last one is among them."""
    mapped = _FIEMAP_HEAD.unpack_from(answer)[3]
    found: list[tuple[int, int, bool]] = []
    is_whole = mapped == 0
    for index in range(mapped):
        place = _FIEMAP_HEAD.size + index * _FIEMAP_EXTENT.size
        logical, _, length, flags = _FIEMAP_EXTENT.unpack_from(answer, place)
        found.append((logical, length, bool(flags & _SHARED)))
        is_whole = bool(flags & _LAST)
    return found, is_whole
