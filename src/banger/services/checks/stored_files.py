"""Are the images and kernels that are here whole: every file there, in the size that was recorded?"""

from pathlib import Path

from banger.api.system import Finding
from banger.base.files import allocated_bytes
from banger.base.units import render_size
from banger.services.checks.contract import CheckSurroundings, counted, failed, passed

_NAME = "stored files"


async def check(around: CheckSurroundings) -> Finding:
    """Files of the right size are looked into for a few bytes; nobody reads gigabytes here."""
    damaged = await around.list_damaged()
    if damaged:
        fixes = " && ".join(dict.fromkeys(problem.hint for problem in damaged if problem.hint))
        return failed(_NAME, "; ".join(problem.brief for problem in damaged), fixes or None)
    images, kernels = counted(_count(around.images), "image"), counted(_count(around.kernels), "kernel")
    used = sum(_measure(directory) for directory in (around.images, around.kernels))
    return passed(_NAME, f"{images} and {kernels}, {render_size(used)}, all whole")


def _count(directory: Path) -> int:
    return sum(1 for entry in directory.glob("*") if entry.is_symlink())


def _measure(directory: Path) -> int:
    return sum(allocated_bytes(file) for file in directory.glob("*@*/*") if file.is_file())
