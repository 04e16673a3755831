"""Firecracker and jailer as root runs them: root's own, in directories that only root changes."""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed
from banger.services.checks.trust import judge_roots_file

_NAME = "root programs"
_PROGRAMS = ("firecracker", "jailer")


async def check(around: CheckSurroundings) -> Finding:
    """Every version that is there: which one runs is the helper's choice. What the owner has at home runs as
    the owner, and gives nobody anything that they have not."""
    directory = around.places.firecracker
    found = sorted(file for name in _PROGRAMS for file in directory.glob(f"*/{name}"))
    if not found:
        return passed(_NAME, f"none: there is no Firecracker of root's in {directory}")
    for file in found:
        if (wrong := judge_roots_file(file, owners=(0, around.root_uid))) is not None:
            return failed(_NAME, *wrong)
        if not file.is_file() or not file.stat().st_mode & 0o100:
            return failed(_NAME, f"{file} is no program", "sudo banger setup firecracker")
    versions = ", ".join(sorted({file.parent.name for file in found}))
    return passed(_NAME, f"Firecracker {versions} and its jailer belong to root, and so do their directories")
