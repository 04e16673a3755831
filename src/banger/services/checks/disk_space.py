"""Is there room for an image and a few VMs?"""

from pathlib import Path

from banger.api.system import Finding
from banger.base.files import free_bytes
from banger.base.units import GIB, render_size
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned

_ENOUGH = 20 * GIB
_LEAST = 3 * GIB


async def check(around: CheckSurroundings) -> Finding:
    free = min(free_bytes(_existing(Path(path))) for path in (around.paths.state, around.paths.data))
    text = f"{render_size(free)} free for images and VMs"
    if free < _LEAST:
        return failed("disk space", text, "banger vm prune")
    return passed("disk space", text) if free >= _ENOUGH else warned("disk space", text, "banger vm prune")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
