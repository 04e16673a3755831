"""How much memory the host can still give (proc(5), /proc/meminfo)."""

from pathlib import Path

from banger.base.units import KIB


def available_bytes() -> int:
    """What new work could have without swapping: the kernel's own estimate, caches counted as free."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    raise AssertionError("the kernel has had MemAvailable since 3.14")
