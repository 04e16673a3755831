"""Root as a whole file of the VM's own: blocks shared by the file system (reflink), or copied.

Owns how blocks are shared and how it is found out which ones are: ioctl_ficlone(2) and the kernel's
Documentation/filesystems/fiemap.rst.
"""

import asyncio
import errno
import fcntl
import os
import struct
import tempfile
from pathlib import Path

from banger.base.files import allocated_bytes, atomic_file, clone_sparse
from banger.base.problem import Problem, unavailable
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.storage.contract import Root
from banger.storage.plain_file import PlainFile
from banger.storage.sizes import plan_size

FILE = "root.img"
_BLOCK = 4096
_FICLONE = 0x40049409
_FIEMAP = 0xC020660B
_FIEMAP_HEAD = struct.Struct("=QQIIII")  # start, length, flags, mapped, count, reserved
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_EXTENTS_AT_ONCE = 512
_LAST, _SHARED = 0x1, 0x2000
_WHOLE = 2**64 - 1


class CopyDriver(PlainFile):
    """For every VMM and every file system. Only data is copied: what is a hole in the image is one in the copy."""

    name = StorageDriver.COPY

    def __init__(self) -> None:
        super().__init__(FILE, DiskFormat.RAW)

    def create(self, root: Root) -> None:
        size = plan_size(root.image, root.size_bytes)
        clone_sparse(root.image, self._place(root))
        os.truncate(self._place(root), size)

    def estimate_bytes(self, image: Path) -> int:
        return allocated_bytes(image)

    def measure_bytes(self, root: Root) -> int:
        return measure_own_bytes(self._place(root))


class ReflinkDriver(PlainFile):
    """For every VMM, where images and VMs are on one file system that shares blocks: Btrfs, XFS."""

    name = StorageDriver.REFLINK

    def __init__(self, images: Path, state: Path) -> None:
        """Directories below which the images and the VMs' own directories are."""
        super().__init__(FILE, DiskFormat.RAW)
        self._images = images
        self._state = state

    async def probe(self) -> None:
        await asyncio.to_thread(self._try)

    def _try(self) -> None:
        """A block of the one directory becomes one of the other; neither file ever has a name."""
        try:
            with (
                tempfile.TemporaryFile(dir=self._images) as source,
                tempfile.TemporaryFile(dir=self._state) as target,
            ):
                source.write(bytes(_BLOCK))
                source.flush()
                fcntl.ioctl(target, _FICLONE, source.fileno())
        except OSError as error:
            raise self._refuse(error) from error

    def create(self, root: Root) -> None:
        size = plan_size(root.image, root.size_bytes)
        with root.image.open("rb") as image, atomic_file(self._place(root)) as disk:
            try:
                fcntl.ioctl(disk, _FICLONE, image.fileno())
            except OSError as error:
                raise self._refuse(error) from error
            os.ftruncate(disk, size)

    def measure_bytes(self, root: Root) -> int:
        return measure_own_bytes(self._place(root))

    def _refuse(self, error: OSError) -> Problem:
        if error.errno == errno.EXDEV:
            reason = f"{self._images} and {self._state} are on two file systems"
        elif error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
            reason = f"the file system of {self._state} does not share blocks between files"
        else:
            reason = f"{self._state}: {error.strerror}"
        return unavailable(
            f"root disks cannot be reflinks: {reason}",
            hint=f"keep {self._images} and {self._state} on one Btrfs or XFS",
        )


def measure_own_bytes(path: Path) -> int:
    """Bytes on disk that no other file shares. Where the file system does not tell, all that are the file's."""
    try:
        with path.open("rb") as file:
            return _sum_own_extents(file.fileno())
    except FileNotFoundError:
        return 0
    except OSError:
        return allocated_bytes(path)


def _sum_own_extents(descriptor: int) -> int:
    own = start = 0
    while True:
        buffer = bytearray(_FIEMAP_HEAD.size + _EXTENTS_AT_ONCE * _FIEMAP_EXTENT.size)
        _FIEMAP_HEAD.pack_into(buffer, 0, start, _WHOLE - start, 0, 0, _EXTENTS_AT_ONCE, 0)
        fcntl.ioctl(descriptor, _FIEMAP, buffer)
        extents, is_whole = parse_extents(bytes(buffer))
        own += sum(length for _, length, is_shared in extents if not is_shared)
        if is_whole:
            return own
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
