"""Can kernels and images be made here? They need tools of the distribution and, without root, a user namespace."""

import os
from pathlib import Path

from banger.api.system import Finding
from banger.base.problem import Problem
from banger.base.process import find_tool, get_tool, run
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned

_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
_NAMESPACE_DEADLINE_S = 10.0


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
    return await _check_namespace()


async def _check_namespace() -> Finding:
    """An unprivileged build keeps owners by mapping a range of uids; that is tried."""
    if find_tool("newuidmap") is None:
        return warned(
            "image tools",
            "images cannot be built without root: uidmap is missing",
            "sudo apt-get install uidmap",
        )
    try:
        unshare = get_tool("unshare", package="util-linux")
    except Problem as problem:
        return warned("image tools", f"images cannot be built without root: {problem.brief}", problem.hint)
    try:
        # Where namespaces are forbidden altogether, --map-auto would hang (util-linux 2.38).
        await run((unshare, "--map-root-user", "true"), timeout_s=_NAMESPACE_DEADLINE_S, cwd=Path("/"))
    except Problem as problem:
        return warned(
            "image tools",
            f"images cannot be built without root: {(problem.detail or problem.brief).splitlines()[-1]}",
            "build as root and copy (docs/how-to/work-offline.md), or let users make user namespaces "
            "(Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
        )
    try:
        await run(
            (unshare, "--map-auto", "--map-root-user", "true"), timeout_s=_NAMESPACE_DEADLINE_S, cwd=Path("/")
        )
    except Problem as problem:
        return warned(
            "image tools",
            f"images cannot be built without root: {(problem.detail or problem.brief).splitlines()[-1]}",
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        )
    return passed("image tools", "kernels and images are built in a user namespace")
