"""Is there room for an image and a few VMs, and for what the VMs that are there may still write?"""

from pathlib import Path

from banger.api.system import Finding
from banger.base.files import allocated_bytes, free_bytes
from banger.base.units import GIB, render_size
from banger.model.vm import VmRecord
from banger.services.checks.contract import CheckSurroundings, counted, failed, passed, warned

_NAME = "disk space"
_FIX = "banger vm prune --dry-run"
_ENOUGH = 20 * GIB
_LEAST = 3 * GIB


async def check(around: CheckSurroundings) -> Finding:
    """Disks are sparse, and so may be promised more than there is: that is said, and judged by what is free now."""
    state = Path(around.paths.state)
    free = min(free_bytes(_existing(path)) for path in (state, Path(around.paths.data)))
    text = f"{render_size(free)} free for images and VMs"
    if vms := around.list_rows():
        growth = sum(_measure_growth(vm, state / "vms" / vm.id) for vm in vms)
        text += f"; the disks of {counted(len(vms), 'VM')} may still grow by {render_size(growth)}"
    if free < _LEAST:
        return failed(_NAME, text, _FIX)
    return passed(_NAME, text) if free >= _ENOUGH else warned(_NAME, text, _FIX)


def _measure_growth(vm: VmRecord, directory: Path) -> int:
    promised = vm.spec.system_overlay_size_bytes + (vm.spec.disk_size_bytes if vm.has_work_disk else 0)
    taken = sum(allocated_bytes(file) for file in directory.glob("*") if file.is_file())
    return max(0, promised - taken)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
