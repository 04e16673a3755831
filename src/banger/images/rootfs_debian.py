"""A Debian userland by mmdebstrap, with the mirrors that it or the host is configured with.

As root it works in a mount namespace of its own, so that nothing it mounts outlives it; otherwise in a user namespace
of ours (ownership.py), in which it makes the other ones itself. Leaves nothing outside the directory that the caller
owns (an unprivileged run uses TMPDIR, too).
"""

import os
from pathlib import Path

from banger.base.problem import Code, Problem
from banger.base.process import Argv, get_tool
from banger.base.progress import Progress, stage
from banger.images.debian_trim import DEBIAN_EDIT
from banger.images.ownership import Ownership
from banger.images.rootfs import BuiltImage, build_disks
from banger.images.tools import run_told, run_tool
from banger.model.image import ImageRecipe

SPACE_BYTES = 1536 * 1024**2  # packages, chroot, archive and tree at once; measured 1.1 GiB

_TIMEOUT_S = 3600.0
_PROBE_TIMEOUT_S = 10.0
BASE_PACKAGES = (
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "iproute2",
    "iputils-ping",
    "ca-certificates",
    "curl",
    "e2fsprogs",
    "git",
    "kmod",
    "less",
    "make",
    "netbase",
    "nftables",
    "procps",
    "python3-minimal",
    "sudo",
    "vim-tiny",
    "xz-utils",
)


def plan_bootstrap(mmdebstrap: str, recipe: ImageRecipe, archive: Path, *, mode: str) -> Argv:
    """mmdebstrap writing a tar archive, numeric owners and file capabilities included."""
    packages = dict.fromkeys((*BASE_PACKAGES, *recipe.packages))
    return (
        mmdebstrap,
        f"--mode={mode}",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(packages)}",
        recipe.suite,
        str(archive),
    )


async def build_debian(
    recipe: ImageRecipe, directory: Path, progress: Progress, ownership: Ownership
) -> BuiltImage:
    """rootfs.ext4 and work-seed.ext4 in `directory`."""
    mmdebstrap = get_tool("mmdebstrap", package="mmdebstrap")
    archive = directory / "bootstrap.tar"
    with stage(progress, "bootstrap"):
        async with ownership.open_root() as prefix:
            await _bootstrap(mmdebstrap, recipe, archive, progress, prefix)
    copied = await build_disks(archive, DEBIAN_EDIT, directory, recipe.size_bytes, progress, ownership)
    archive.unlink()
    return BuiltImage(f"mmdebstrap {recipe.suite}", copied.os_release)


async def _find_mount_namespace() -> Argv:
    """What keeps mmdebstrap's mounts from staying behind when it is killed. Nothing where it cannot be had:
    in a chroot whose root is no mount point, propagation cannot be changed."""
    prefix = (get_tool("unshare", package="util-linux"), "--mount", "--propagation=private", "--")
    answer = await run_tool((*prefix, "/bin/sh", "-c", "echo yes"), timeout_s=_PROBE_TIMEOUT_S, check=False)
    return prefix if answer == b"yes\n" else ()


async def _bootstrap(
    mmdebstrap: str, recipe: ImageRecipe, archive: Path, progress: Progress, prefix: Argv
) -> None:
    tmpdir: Path | None = None
    mode = "unshare"
    if os.getuid() == 0:
        mode = "root"
        prefix = await _find_mount_namespace()
        # Unprivileged, the chroot belongs to subordinate ids, which cannot enter our private directories.
        tmpdir = archive.parent / "tmp"
        tmpdir.mkdir(mode=0o755)
    argv = (*prefix, *plan_bootstrap(mmdebstrap, recipe, archive, mode=mode))
    try:
        await run_told(argv, progress, timeout_s=_TIMEOUT_S, tmpdir=tmpdir)
    except Problem as problem:
        if problem.code is Code.OPERATION_FAILED:
            problem.brief = f"mmdebstrap cannot make the image {recipe.name}"
            problem.hint = "check the network and /etc/apt, then: banger image build " + recipe.name
        raise
    if tmpdir is not None:
        tmpdir.rmdir()
