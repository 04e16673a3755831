"""Is there memory for one VM of the usual size, and for what the VMs that run may still take?"""

import os
from pathlib import Path

from banger.api.system import Finding
from banger.base.units import GIB, KIB, MIB, render_size
from banger.model.vm import LIVE, VmRecord
from banger.services.checks.contract import CheckSurroundings, counted, passed, warned

_NAME = "memory"


async def check(around: CheckSurroundings) -> Finding:
    """A guest's memory is taken as the guest touches it, so VMs that run may want more than they have."""
    available = _read_available(around.places.memory)
    text = f"{render_size(available)} of {render_size(around.host.memory_bytes)} available"
    running = [vm for vm in around.list_rows() if vm.state in LIVE]
    growth = sum(_measure_growth(vm, around.places.processes) for vm in running)
    if running:
        text += f"; {counted(len(running), 'running VM')} may still take {render_size(growth)}"
    if available < max(GIB, growth):
        return warned(_NAME, text, "banger vm list")
    return passed(_NAME, text)


def _read_available(file: Path) -> int:
    for line in file.read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    return 0


def _measure_growth(vm: VmRecord, processes: Path) -> int:
    """What it was promised and its VMM has not taken yet."""
    taken = 0
    if vm.runtime is not None:
        try:
            pages = (processes / str(vm.runtime.pid) / "statm").read_text("ascii").split()[1]
        except OSError:
            return 0  # it has ended meanwhile
        taken = int(pages) * os.sysconf("SC_PAGE_SIZE")
    return max(0, vm.spec.memory_mib * MIB - taken)
