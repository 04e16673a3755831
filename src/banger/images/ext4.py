"""ext4 images made with mke2fs, and what makes them good guests' disks.

The argv builders are pure. The features are named one by one, so that a newer mke2fs.conf cannot bring one
that the oldest guest kernel does not know; `resize_inode` and 64bit let a mounted file system grow. Inode
tables of a fresh sparse file are zeros already, hence `assume_storage_prezeroed`: the guest writes none.
"""

import hashlib
import os
from pathlib import Path

from banger.base.process import Argv, get_tool
from banger.images.tools import run_tool

_TIMEOUT_S = 600.0
_BLOCK_BYTES = 4096
_INODE_BYTES = 256
_MAGIC_OFFSET = 0x438
_MAGIC = b"\x53\xef"
_DIGEST_CHUNK = 64 * 1024
_GROWTH_LIMIT_BLOCKS = 2**40 // _BLOCK_BYTES

_FEATURES = (
    "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)


def plan_disk(
    mke2fs: str, target: Path, tree: Path | None, size_bytes: int, *, label: str, journal_mib: int
) -> Argv:
    """A read-write disk of nominal `size_bytes` that can grow to 1 TiB while mounted."""
    return (
        mke2fs,
        *("-q", "-F", "-t", "ext4", "-b", str(_BLOCK_BYTES), "-I", str(_INODE_BYTES)),
        *("-O", f"{_FEATURES},has_journal,resize_inode"),
        *("-J", f"size={journal_mib}"),
        *("-m", "0", "-L", label),
        *(
            "-E",
            f"resize={_GROWTH_LIMIT_BLOCKS},lazy_itable_init=1,assume_storage_prezeroed=1,root_owner=0:0",
        ),
        *(("-d", str(tree)) if tree is not None else ()),
        str(target),
        f"{size_bytes // 1024}k",
    )


def plan_read_only_disk(mke2fs: str, target: Path, tree: Path, *, label: str) -> Argv:
    """A disk just large enough for the tree, without a journal."""
    size_bytes, inodes = measure_tree(tree)
    return (
        mke2fs,
        *("-q", "-F", "-t", "ext4", "-b", str(_BLOCK_BYTES), "-I", str(_INODE_BYTES), "-N", str(inodes)),
        *("-O", _FEATURES, "-m", "0", "-L", label, "-E", "root_owner=0:0"),
        *("-d", str(tree)),
        str(target),
        f"{size_bytes // 1024}k",
    )


def measure_tree(tree: Path) -> tuple[int, int]:
    """Bytes and inodes that a file system for this tree needs, with some air."""
    blocks, inodes = 0, 16
    for directory, _, names in os.walk(tree):
        blocks += 2  # the directory and, at times, an index
        inodes += 1 + len(names)
        for name in names:
            size = (Path(directory) / name).lstat().st_size
            blocks += -(-size // _BLOCK_BYTES)
    blocks += inodes * _INODE_BYTES // _BLOCK_BYTES
    return int(blocks * 1.02 + 512) * _BLOCK_BYTES, inodes


def plan_home(debugfs: str, disk: Path) -> tuple[Argv, ...]:
    """What makes the root of a work disk somebody's home: 0700, and no lost+found to wonder at.

    mke2fs -d takes over the modes of all directories but the first, and makes lost+found whether asked or
    not; e2fsck makes it again should it ever need one. The mode is the inode's whole i_mode, type included.
    """
    return (
        (debugfs, "-w", "-R", "set_inode_field <2> mode 040700", str(disk)),
        (debugfs, "-w", "-R", "rmdir lost+found", str(disk)),
    )


async def make_disk(argv: Argv, *, prefix: Argv = ()) -> None:
    """Runs a plan, under the prefix that owns the tree (ownership.py)."""
    await run_tool((*prefix, *argv), timeout_s=_TIMEOUT_S)


def get_mke2fs() -> str:
    return get_tool("mke2fs", package="e2fsprogs")


def get_debugfs() -> str:
    return get_tool("debugfs", package="e2fsprogs")


def is_ext4(path: Path) -> bool:
    """Whether the superblock's magic is there; False for a short or missing file too."""
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_OFFSET)
            return file.read(2) == _MAGIC
    except OSError:
        return False


def digest_disk(path: Path) -> str:
    """SHA-256 over (offset, chunk) of every 64 KiB chunk that is not all zeros.

    Says the same of a sparse file and of its copies, and takes the time of what is allocated.
    """
    digest = hashlib.sha256()
    zeros = bytes(_DIGEST_CHUNK)
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            offset -= offset % _DIGEST_CHUNK
            chunk = os.pread(file.fileno(), _DIGEST_CHUNK, offset)
            if chunk != zeros[: len(chunk)]:
                digest.update(offset.to_bytes(8, "little"))
                digest.update(chunk)
            offset += _DIGEST_CHUNK
    return digest.hexdigest()
