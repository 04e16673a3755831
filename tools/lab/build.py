"""Makes the lab's root file system, kernel and initramfs from Debian's packages, once for each recipe.

Owns BUILD/root-DIGEST/. Packages come from the machine's own apt configuration; no mirror is named. Written aside and
renamed, so what is there is whole; those of former recipes are removed.
"""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tools.lab import recipe

from banger.base.cpio import CpioEntry, render_archive
from banger.base.process import Argv, get_tool, run
from banger.base.progress import Silent, stage
from banger.images import apt, ext4
from banger.images.kernel_package import find_modules
from banger.images.modules import (
    BootModules,
    module_name,
    parse_builtin,
    parse_dependencies,
    plan_load_order,
    read_module,
)
from banger.images.ownership import Ownership
from banger.images.rootfs import unpack_archive

BUILD = Path(os.environ.get("BANGER_LAB_BUILD") or Path(__file__).parents[2] / "build" / "lab")
_TIMEOUT_S = 1800.0


class Base(NamedTuple):
    """What every lab starts from; none of it is ever written to."""

    digest: str
    disk: Path
    kernel: Path
    initramfs: Path


class Told:
    """Progress on stderr: a line for each stage, with the time that it took."""

    def __init__(self) -> None:
        self._began = 0.0
        self._stage = ""

    def enter(self, stage: str) -> None:
        self._began, self._stage = time.monotonic(), stage

    def leave(self) -> None:
        print(f"• lab: {self._stage}: {time.monotonic() - self._began:.1f} s", file=sys.stderr, flush=True)

    def tell(self, detail: str) -> None: ...


@contextmanager
def told(what: str) -> Iterator[None]:
    """One stage, told on stderr."""
    with stage(Told(), what):
        yield


def ensure_base() -> Base:
    """Builds it when it is not there: a minute."""
    digest = recipe.digest_recipe()
    place = BUILD / f"root-{digest}"
    if not place.exists():
        aside = BUILD / f".{place.name}.{os.getpid()}"
        aside.mkdir(parents=True)
        try:
            asyncio.run(_build(aside))
            aside.rename(place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for former in BUILD.glob("root-*"):
            if former != place:
                shutil.rmtree(former)
    return Base(digest, place / "root.qcow2", place / "vmlinuz", place / "initramfs.cpio")


def plan_bootstrap(mmdebstrap: str, archive: Path) -> tuple[str, ...]:
    """mmdebstrap writing a tar archive of the packages and users."""
    excludes = tuple(f"--dpkgopt=path-exclude={path}" for path in recipe.EXCLUDED_PATHS)
    return (
        mmdebstrap,
        f"--mode={'root' if os.getuid() == 0 else 'unshare'}",
        "--variant=apt",
        "--format=tar",
        "--quiet",
        *excludes,
        '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(recipe.PACKAGES)}",
        f"--customize-hook={recipe.plan_users('$1')}",
        recipe.SUITE,
        str(archive),
    )


async def _build(place: Path) -> None:
    ownership = Ownership()
    archive, tree, package = place / "root.tar", place / "tree", place / "kernel"
    with told("packages"):
        bootstrap = plan_bootstrap(get_tool("mmdebstrap", package="mmdebstrap"), archive)
        await run(bootstrap, timeout_s=_TIMEOUT_S)
    with told("kernel"):
        modules = await _unpack_kernel(place, package)
    tree.mkdir()
    try:
        with told("root file system"):
            async with ownership.open_root() as prefix:
                await _make_root(place, archive, tree, modules, prefix)
    finally:
        await ownership.remove_tree(tree)
    (package / "boot" / f"vmlinuz-{modules.name}").rename(place / "vmlinuz")
    shutil.rmtree(package)
    archive.unlink()


async def _make_root(place: Path, archive: Path, tree: Path, modules: Path, prefix: Argv) -> None:
    limit = recipe.ROOT_BYTES
    edit = recipe.render_edit()
    await unpack_archive(archive, tree, edit, Silent(), prefix=prefix, limit_bytes=limit)
    copy = (*prefix, "/bin/cp", "--recursive", "--", str(modules.parent), str(tree / "usr/lib/"))
    await run(copy, timeout_s=_TIMEOUT_S)
    await asyncio.to_thread(_write_initramfs, tree, modules, place / "initramfs.cpio")
    mke2fs = ext4.get_mke2fs()
    disk = ext4.plan_disk(mke2fs, place / "root.ext4", tree, limit, label="lab", journal_mib=16)
    await ext4.make_disk(disk, prefix=prefix)
    await pack_disk(place / "root.ext4", place / "root.qcow2")


async def pack_disk(raw: Path, packed: Path) -> None:
    """The disk compressed, a third of the size; the raw one is removed. QEMU unpacks what it reads."""
    argv = (
        *(get_tool("qemu-img", package="qemu-utils"), "convert", "-c", "-m", "2", "-f", "raw", "-O", "qcow2"),
        *("-o", "compression_type=zstd", str(raw), str(packed)),
    )
    await run(argv, timeout_s=_TIMEOUT_S)
    raw.unlink()


async def _unpack_kernel(place: Path, package: Path) -> Path:
    """Its modules' directory, trimmed and indexed."""
    found = await apt.resolve_meta_package(recipe.KERNEL_PACKAGE, prefix="linux-image-")
    file = await apt.download_package(found, place)
    await apt.unpack_package(file, package)
    file.unlink()
    modules = find_modules(package)
    for dropped in recipe.DROPPED_MODULES:
        shutil.rmtree(modules / "kernel" / dropped, ignore_errors=True)
    depmod = (get_tool("depmod", package="kmod"), "-b", str(package), modules.name)
    await run(depmod, timeout_s=120)
    return modules


def _write_initramfs(tree: Path, modules: Path, target: Path) -> None:
    dependencies = parse_dependencies((modules / "modules.dep").read_text())
    builtin = parse_builtin((modules / "modules.builtin").read_text())
    order = plan_load_order(dependencies, builtin, BootModules(recipe.BOOT_MODULES, ()))
    directory, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    entries = [CpioEntry(name, directory) for name in ("bin", "dev", "modules", "proc", "root", "sys")]
    entries += [
        CpioEntry("dev/console", stat.S_IFCHR | 0o600, device_major=5, device_minor=1),
        CpioEntry("init", program, content=(recipe.INSIDE / "initramfs-init").read_bytes()),
        CpioEntry("bin/busybox", program, content=(tree / "usr/bin/busybox").read_bytes()),
        CpioEntry("bin/sh", stat.S_IFLNK | 0o777, content=b"busybox"),
        CpioEntry("order", program, content="".join(f"{module_name(path)}\n" for path in order).encode()),
        *(
            CpioEntry(f"modules/{module_name(path)}.ko", program, content=read_module(modules / path))
            for path in order
        ),
    ]
    target.write_bytes(render_archive(entries))


def read_qemu_version() -> str:
    argv = (get_tool("qemu-system-x86_64", package="qemu-system-x86"), "--version")
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]
