"""Builds the mini guest for Firecracker with whatever C compiler there is: the system's, or the one in ziglang."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = (
    *("-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-builtin", "-fno-stack-protector"),
    *("-fno-pic", "-fno-pie", "-mno-red-zone", "-mgeneral-regs-only", "-fno-asynchronous-unwind-tables"),
    *("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,norelro"),
    f"-Wl,-T,{HERE}/mini.ld",
)


def build_mini_guest(directory: Path) -> Path:
    """The kernel's path in `directory`. Raises FileNotFoundError when there is no compiler."""
    kernel = directory / "mini.elf"
    sources = (str(HERE / "start.S"), str(HERE / "mini.c"))
    subprocess.run((*_compiler(), *FLAGS, "-o", str(kernel), *sources), check=True, stdin=subprocess.DEVNULL)
    return kernel


def _compiler() -> tuple[str, ...]:
    if found := shutil.which("gcc"):
        return (found, "-m64", "-fcf-protection=none", "-Wl,--no-warn-rwx-segments")
    try:
        import ziglang  # noqa: F401
    except ImportError as error:
        raise FileNotFoundError("neither gcc nor ziglang is installed") from error
    return (sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-freestanding-none")
