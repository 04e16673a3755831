"""A kernel from the distribution's package: vmlinux, the boot modules, and a disk with all modules.

Fills a directory that the caller owns and publishes; leaves nothing outside it.
"""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from banger.base.files import remove_tree
from banger.base.problem import Code, Problem
from banger.base.process import get_tool
from banger.base.progress import Progress, stage
from banger.images import apt, ext4
from banger.images.initramfs import render_modules_archive
from banger.images.modules import (
    BOOT_MODULES,
    BootModules,
    module_name,
    parse_builtin,
    parse_dependencies,
    plan_load_order,
    read_module,
)
from banger.images.ownership import find_sole_root_prefix
from banger.images.tools import run_tool
from banger.images.vmlinux import extract_vmlinux

VMLINUX = "vmlinux"
MODULES_ARCHIVE = "modules.cpio"
MODULES_IMAGE = "modules.ext4"
SPACE_BYTES = 450 * 1024**2  # package, its tree, and what is made of them; measured 330 MiB

_DEPMOD_TIMEOUT_S = 120.0
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_~-]{0,126}")


class BuiltKernel(NamedTuple):
    """What a builder leaves in its directory. `modules_image` is absent when everything is built in."""

    release: str
    source: str
    boot_modules: tuple[str, ...]
    modules_image: str | None


async def build_from_package(meta_package: str, directory: Path, progress: Progress) -> BuiltKernel:
    """vmlinux, modules.cpio and modules.ext4 in `directory`."""
    scratch = directory / "scratch"
    scratch.mkdir()
    with stage(progress, "download package"):
        package = await apt.resolve_meta_package(meta_package, prefix="linux-image-")
        progress.tell(f"{package.name} {package.version}, {package.size_bytes / 1e6:.0f} MB")
        file = await apt.download_package(package, scratch)
    tree = scratch / "tree"
    with stage(progress, "extract kernel"):
        await apt.unpack_package(file, tree)
        file.unlink()
        modules = find_modules(tree)
        release = modules.name
        await asyncio.to_thread(_extract, tree / "boot" / f"vmlinuz-{release}", directory / VMLINUX)
    with stage(progress, "pack modules"):
        await _run_depmod(tree, release)
        order = await asyncio.to_thread(_pack_boot_modules, modules, directory / MODULES_ARCHIVE)
        argv = await asyncio.to_thread(
            ext4.plan_read_only_disk, ext4.get_mke2fs(), directory / MODULES_IMAGE, modules, label="modules"
        )
        await ext4.make_disk(argv, prefix=await find_sole_root_prefix())
        await asyncio.to_thread(remove_tree, scratch)
    return BuiltKernel(release, f"{package.name} {package.version}", order, MODULES_IMAGE)


def find_modules(tree: Path) -> Path:
    """The one /lib/modules/RELEASE of an unpacked package; before or after the merge of /usr."""
    found = [path for place in ("lib", "usr/lib") for path in (tree / place / "modules").glob("*")]
    if len(found) != 1 or not _RELEASE.fullmatch(found[0].name):
        raise Problem(
            Code.OPERATION_FAILED, f"the kernel package holds modules of {len(found)} releases, not one"
        )
    if found[0].parent.parent != tree / "lib":
        (tree / "lib").symlink_to("usr/lib")  # where depmod -b looks
    return tree / "lib" / "modules" / found[0].name


def _extract(vmlinuz: Path, target: Path) -> None:
    try:
        image = vmlinuz.read_bytes()
    except FileNotFoundError as error:
        raise Problem(Code.OPERATION_FAILED, f"the kernel package has no {vmlinuz.name}") from error
    target.write_bytes(extract_vmlinux(image))


async def _run_depmod(tree: Path, release: str) -> None:
    """Writes modules.dep and its kin, which the package's own installation script would have made."""
    argv = (get_tool("depmod", package="kmod"), "-b", str(tree), release)
    await run_tool(argv, timeout_s=_DEPMOD_TIMEOUT_S)


def _pack_boot_modules(modules: Path, target: Path) -> tuple[str, ...]:
    """Writes the modules' archive and returns their names in load order."""
    dependencies = parse_dependencies((modules / "modules.dep").read_text())
    builtin = parse_builtin((modules / "modules.builtin").read_text())
    order = plan_load_order(dependencies, builtin, BOOT_MODULES)
    early = plan_load_order(dependencies, builtin, BootModules(BOOT_MODULES.required, ()))
    late = [path for path in order if path not in early]
    target.write_bytes(render_modules_archive(_read_modules(modules, early), _read_modules(modules, late)))
    return tuple(module_name(path) for path in order)


def _read_modules(modules: Path, order: Sequence[str]) -> list[tuple[str, bytes]]:
    return [(module_name(path), read_module(modules / path)) for path in order]
