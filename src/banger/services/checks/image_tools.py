"""Can kernels and images be made here? They need tools of the distribution and, without root, a user namespace."""

import os

from banger.api.system import Finding
from banger.base.problem import Problem
from banger.base.process import find_tool
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned

_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}


async def check(around: CheckSurroundings) -> Finding:
    missing = sorted({package for tool, package in _TOOLS.items() if find_tool(tool) is None})
    if missing:
        return failed(
            "image tools",
            f"images cannot be built: {', '.join(missing)} missing",
            f"sudo apt-get install {' '.join(missing)}",
        )
    if os.getuid() == 0:
        return passed("image tools", "kernels and images are built as root")
    try:
        async with around.ownership.open_root():  # as a build does it
            return passed("image tools", "kernels and images are built in a user namespace")
    except Problem as problem:
        return warned("image tools", f"images cannot be built without root: {problem.brief}", problem.hint)
