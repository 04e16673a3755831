"""A small kernel of our own from the distribution's source package: everything built in, no modules.

Fills a directory that the caller owns and publishes. Runs at the lowest priority: it takes all processors
for minutes, and nobody waits for it.
"""

import asyncio
from pathlib import Path

from banger.base.files import remove_tree
from banger.base.problem import Code, Problem, unavailable
from banger.base.process import Argv, find_tool, get_tool
from banger.base.progress import Progress, stage
from banger.images import apt
from banger.images.initramfs import render_modules_archive
from banger.images.kernel_package import MODULES_ARCHIVE, VMLINUX, BuiltKernel
from banger.images.small_config import find_missing, render_fragment
from banger.images.tools import processors, run_told, run_tool

SPACE_BYTES = 4 * 1024**3  # 1.5 GiB of source, 1 GiB of objects, air

_UNPACK_TIMEOUT_S = 900.0
_CONFIGURE_TIMEOUT_S = 300.0
_BUILD_TIMEOUT_S = 4 * 3600.0
_NEEDED = (
    *(("make", "make"), ("gcc", "gcc"), ("ld", "binutils"), ("strip", "binutils"), ("flex", "flex")),
    *(("bison", "bison"), ("bc", "bc"), ("perl", "perl"), ("xz", "xz-utils"), ("tar", "tar")),
)
_NEEDED_HEADERS = (("/usr/include/libelf.h", "libelf-dev"),)


def plan_make(make: str, source: Path, fragment: Path, target: str, *, jobs: int) -> Argv:
    """One make at the lowest priority; times and names in the kernel are fixed, so that it builds the same."""
    return (
        *("/usr/bin/nice", "-n", "19", make, "--silent", f"--directory={source}", f"--jobs={jobs}"),
        *("ARCH=x86_64", f"KCONFIG_ALLCONFIG={fragment}", "KBUILD_BUILD_TIMESTAMP=@0"),
        *("KBUILD_BUILD_USER=banger", "KBUILD_BUILD_HOST=banger", target),
    )


async def build_from_source(package_name: str, directory: Path, progress: Progress) -> BuiltKernel:
    """vmlinux and an empty modules.cpio in `directory`."""
    require_tools()
    scratch = directory / "scratch"
    scratch.mkdir()
    with stage(progress, "download source"):
        package = await apt.get_package(package_name)
        progress.tell(f"{package.name} {package.version}, {package.size_bytes / 1e6:.0f} MB")
        file = await apt.download_package(package, scratch)
    with stage(progress, "unpack source"):
        await apt.unpack_package(file, scratch / "package")
        source = await _unpack_source(scratch, package_name)
    with stage(progress, "configure kernel"):
        await _configure(source, scratch / "fragment")
    with stage(progress, "compile kernel"):
        jobs = processors()
        progress.tell(f"with {jobs} processors; about 20 processor minutes")
        make = plan_make(get_tool("make", package="make"), source, scratch / "fragment", "vmlinux", jobs=jobs)
        await run_told(make, progress, timeout_s=_BUILD_TIMEOUT_S)
        release = (source / "include/config/kernel.release").read_text().strip()
        strip = (
            get_tool("strip", package="binutils"),
            "-o",
            str(directory / VMLINUX),
            str(source / "vmlinux"),
        )
        await run_tool(strip, timeout_s=_CONFIGURE_TIMEOUT_S)
        (directory / MODULES_ARCHIVE).write_bytes(render_modules_archive([]))
        await asyncio.to_thread(remove_tree, scratch)
    return BuiltKernel(release, f"{package.name} {package.version}", (), None)


def require_tools() -> None:
    """Raises `unavailable` naming every package that is missing, not only the first."""
    missing = {package for tool, package in _NEEDED if find_tool(tool) is None}
    missing |= {package for header, package in _NEEDED_HEADERS if not Path(header).exists()}
    if missing:
        names = " ".join(sorted(missing))
        raise unavailable(f"building a kernel needs {names}", hint=f"sudo apt-get install {names}")


async def _unpack_source(scratch: Path, package_name: str) -> Path:
    archive = scratch / "package/usr/src" / f"{package_name}.tar.xz"
    argv = (get_tool("tar", package="tar"), "--extract", f"--file={archive}", f"--directory={scratch}")
    await run_tool(argv, timeout_s=_UNPACK_TIMEOUT_S)
    source = scratch / package_name
    if not (source / "Kconfig").is_file():
        raise Problem(Code.OPERATION_FAILED, f"{package_name} holds no kernel source in the place known here")
    return source


async def _configure(source: Path, fragment: Path) -> None:
    text = render_fragment()
    fragment.write_text(text)
    make = plan_make(get_tool("make", package="make"), source, fragment, "allnoconfig", jobs=1)
    await run_tool(make, timeout_s=_CONFIGURE_TIMEOUT_S)
    if missing := find_missing(text, (source / ".config").read_text()):
        raise Problem(Code.OPERATION_FAILED, f"this kernel source does not know {', '.join(missing)}")
