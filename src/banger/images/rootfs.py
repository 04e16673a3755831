"""From a userland's archive to an image's two disks: root and work seed.

Fills a directory that the caller owns and publishes. The tree exists only between tar and mke2fs, under the
prefix that may own it (ownership.py).
"""

import asyncio
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from banger.base.problem import bad_request
from banger.base.process import Argv, get_tool, start_process
from banger.base.progress import Progress, stage
from banger.images import ext4
from banger.images.archive import Copied, TreeEdit, copy_archive
from banger.images.ownership import Ownership
from banger.images.tools import render_problem, run_tool

ROOTFS = "rootfs.ext4"
WORK_SEED = "work-seed.ext4"
# A work disk of this size or below needs no growing in the guest; sparse, it takes a megabyte on the host.
WORK_SEED_BYTES = 8 * 1024**3
_ROOT_JOURNAL_MIB = 16
_WORK_JOURNAL_MIB = 32
_UNPACK_TIMEOUT_S = 1800.0
_LOOK_TIMEOUT_S = 30.0


class BuiltImage(NamedTuple):
    """What a builder leaves in its directory beside the two disks."""

    source: str
    os_release: dict[str, str]


async def build_disks(
    archive: Path,
    edit: TreeEdit,
    directory: Path,
    size_bytes: int,
    progress: Progress,
    ownership: Ownership,
) -> Copied:
    """rootfs.ext4 and work-seed.ext4 in `directory`, of the archive after the edit."""
    tree = directory / "tree"
    tree.mkdir(mode=0o755)
    try:
        async with ownership.open_root() as prefix:
            return await _build_disks(archive, edit, tree, size_bytes, progress, prefix)
    finally:
        await asyncio.shield(ownership.remove_tree(tree))


async def _build_disks(
    archive: Path, edit: TreeEdit, tree: Path, size_bytes: int, progress: Progress, prefix: Argv
) -> Copied:
    mke2fs = ext4.get_mke2fs()
    directory = tree.parent
    with stage(progress, "unpack"):
        copied = await unpack_archive(
            archive, tree, edit, progress, prefix=prefix, limit_bytes=size_bytes * 9 // 10
        )
        await check_directory(tree / "root", prefix=prefix)
        progress.tell(f"{copied.entries} entries")
    with stage(progress, "make file systems"):
        root = ext4.plan_disk(
            mke2fs, directory / ROOTFS, tree, size_bytes, label="root", journal_mib=_ROOT_JOURNAL_MIB
        )
        await ext4.make_disk(root, prefix=prefix)
        work = ext4.plan_disk(
            mke2fs,
            directory / WORK_SEED,
            tree / "root",
            WORK_SEED_BYTES,
            label="work",
            journal_mib=_WORK_JOURNAL_MIB,
        )
        await ext4.make_disk(work, prefix=prefix)
        for argv in ext4.plan_home(ext4.get_debugfs(), directory / WORK_SEED):
            await ext4.make_disk(argv)
    return copied


async def check_directory(path: Path, *, prefix: Argv) -> None:
    """Refuses a tree in which this is no directory of its own: mke2fs follows a link that is named to it.

    Only who owns the tree can surely look into it, hence a tool under the prefix.
    """
    argv = (*prefix, get_tool("stat", package="coreutils"), "--format=%f", "--", str(path))
    mode = await run_tool(argv, timeout_s=_LOOK_TIMEOUT_S, check=False)
    if not mode or not stat.S_ISDIR(int(mode, 16)):
        raise bad_request(
            f"/{path.name} of the archive is no directory", hint="make the archive with: tar -C ROOT -c ."
        )


def plan_unpack(tar: str, tree: Path) -> Argv:
    """GNU tar reading stdin; owners, modes and file capabilities kept."""
    return (
        tar,
        *("--extract", "--file=-", f"--directory={tree}", "--numeric-owner", "--same-owner"),
        *("--preserve-permissions", "--delay-directory-restore", "--xattrs", "--xattrs-include=*"),
        *("--warning=no-timestamp", "--warning=no-unknown-keyword"),
    )


async def unpack_archive(
    archive: Path, tree: Path, edit: TreeEdit, progress: Progress, *, prefix: Argv, limit_bytes: int
) -> Copied:
    """The checked and edited archive below `tree`; a thread feeds the tar that unpacks."""
    argv = (*prefix, *plan_unpack(get_tool("tar", package="tar"), tree))
    reading, writing = os.pipe2(os.O_CLOEXEC)
    target = os.fdopen(writing, "wb")
    with os.fdopen(reading, "rb") as source, tempfile.TemporaryFile() as errors:
        async with start_process(
            argv, stdin=source.fileno(), stdout=asyncio.subprocess.DEVNULL, stderr=errors.fileno()
        ) as process:
            source.close()  # so that the feeder learns when tar is gone
            async with asyncio.timeout(_UNPACK_TIMEOUT_S):
                # A cancelled caller leaves the block, which ends tar, whose broken pipe ends the thread.
                copied = await asyncio.to_thread(_feed, archive, target, edit, progress, limit_bytes)
                status = await process.wait()
        if status != 0 or copied is None:
            errors.seek(0)
            raise render_problem(argv, status, errors.read())
    return copied


def _feed(
    archive: Path, target: BinaryIO, edit: TreeEdit, progress: Progress, limit_bytes: int
) -> Copied | None:
    """None when the reader went away; its status says why."""
    try:
        with target:
            return copy_archive(archive, target, edit, progress, limit_bytes=limit_bytes)
    except BrokenPipeError:
        return None
