"""Root as a whole file of the VM's own: blocks shared by the file system (reflink), or copied.

Owns how blocks are shared: ioctl_ficlone(2). Which ones are, `extents` tells.
"""

import asyncio
import errno
import fcntl
import os
import tempfile
from pathlib import Path

from banger.base.files import allocated_bytes, atomic_file, clone_sparse
from banger.base.problem import Problem, unavailable
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.storage.contract import Root
from banger.storage.extents import measure_own_bytes
from banger.storage.plain_file import PlainFile
from banger.storage.sizes import plan_size

FILE = "root.img"
_BLOCK = 4096
_FICLONE = 0x40049409


class CopyDriver(PlainFile):
    """For every VMM and every file system. Only data is copied: what is a hole in the image is one in the copy."""

    name = StorageDriver.COPY

    def __init__(self) -> None:
        super().__init__(FILE, DiskFormat.RAW, stands_on_image=False)

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
        super().__init__(FILE, DiskFormat.RAW, stands_on_image=False)
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
