"""Is there memory for one VM of the size that is the default here?"""

from pathlib import Path

from banger.api.system import Finding
from banger.base.units import GIB, KIB, render_size
from banger.services.checks.contract import CheckSurroundings, passed, warned


async def check(around: CheckSurroundings) -> Finding:
    available = 0
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * KIB
    text = f"{render_size(available)} of {render_size(around.host.memory_bytes)} available"
    return passed("memory", text) if available >= GIB else warned("memory", text, "banger ps")
