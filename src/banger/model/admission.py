"""Whether this host has room for one more VM, in memory and on disk. Pure: the numbers are measured elsewhere.

Memory and disk are handed out before they are used, so more may be promised than there is, within the owner's
factors. What is refused is what would fail: a VM that could fill the disk on its own, or take memory that is not
there now.
"""

from collections.abc import Iterable
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem
from banger.base.units import render_size
from banger.model.policy import Limits

_AT_ONCE = 4  # a guest that boots touches a quarter of its memory before anybody could react


class MemoryRoom(NamedTuple):
    """Of the host. `available_bytes` is MemAvailable of /proc/meminfo (proc(5))."""

    total_bytes: int
    available_bytes: int


class DiskRoom(NamedTuple):
    """Of the file system that holds the VMs' disks; `place` is for people."""

    place: str
    free_bytes: int


class DiskClaim(NamedTuple):
    """How large a VM's disks may get, and what of that they have on the host's disk already."""

    nominal_bytes: int
    used_bytes: int

    @property
    def growth_bytes(self) -> int:
        return max(0, self.nominal_bytes - self.used_bytes)


def check_memory(wanted_bytes: int, running_bytes: int, room: MemoryRoom, limits: Limits) -> None:
    """Raises `no_space`. `running_bytes` is what running VMs have been promised."""
    if wanted_bytes > room.total_bytes:
        raise _refuse(
            f"{render_size(wanted_bytes)} of memory are more than this host has "
            f"({render_size(room.total_bytes)})",
            "choose a smaller --memory",
        )
    most = int(room.total_bytes * limits.memory_overcommit)
    if running_bytes + wanted_bytes > most:
        raise _refuse(
            f"{render_size(wanted_bytes)} of memory do not fit: running VMs have {render_size(running_bytes)}, and all "
            f"may have {render_size(most)} ({limits.memory_overcommit:g} times the host's "
            f"{render_size(room.total_bytes)})",
            "choose a smaller --memory, stop a VM (banger vm list), or raise memory_overcommit below [limits]",
        )
    if room.available_bytes < wanted_bytes // _AT_ONCE:
        raise _refuse(
            f"{render_size(wanted_bytes)} of memory do not fit: this host has {render_size(room.available_bytes)} "
            "available",
            "choose a smaller --memory, or stop a VM (banger vm list)",
        )


def check_disk(wanted: DiskClaim, others: Iterable[DiskClaim], room: DiskRoom, limits: Limits) -> None:
    """Raises `no_space` when this VM alone could fill the disk, or all together could by far."""
    free = max(0, room.free_bytes - limits.disk_reserve_bytes)
    kept = f"{room.place} has {render_size(room.free_bytes)} free"
    if limits.disk_reserve_bytes:
        kept += f", of which {render_size(limits.disk_reserve_bytes)} are kept in reserve"
    smaller = "choose a smaller --disk-size or --system-overlay-size, or make room: banger vm prune --dry-run"
    if wanted.growth_bytes > free:
        raise _refuse(
            f"disks that may grow by {render_size(wanted.growth_bytes)} do not fit: {kept}", smaller
        )
    promised = sum(claim.growth_bytes for claim in others)
    most = int(free * limits.disk_overcommit)
    if promised + wanted.growth_bytes > most:
        raise _refuse(
            f"disks that may grow by {render_size(wanted.growth_bytes)} do not fit: those of other VMs may grow by "
            f"{render_size(promised)}, and all by {render_size(most)} ({limits.disk_overcommit:g} times what is free: "
            f"{kept})",
            f"{smaller}; or raise disk_overcommit below [limits]",
        )


def _refuse(brief: str, hint: str) -> Problem:
    return Problem(Code.NO_SPACE, brief, hint=hint, outcome=Outcome.NOT_STARTED)
