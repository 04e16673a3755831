"""How big a VM is when nobody said: flag, else config, else derived from the host, else a floor. Pure.

What is derived keeps within the owner's limits for one VM; what a person asked for is refused elsewhere if it does not.
"""

from typing import NamedTuple

from banger.base.units import GIB, MIB
from banger.model.machine import DISK_BYTES_MIN, MEMORY_MIB_MIN
from banger.model.policy import Limits
from banger.model.vm import Origin

FLOOR_VCPUS = 1
FLOOR_MEMORY_MIB = 512
DEFAULT_DISK_BYTES = 8 * GIB
DEFAULT_SYSTEM_OVERLAY_BYTES = 8 * GIB
_DISKS = ("disk_size_bytes", "system_overlay_size_bytes")
_DERIVED = (Origin.HOST, Origin.FLOOR)
NO_LIMITS = Limits()


class HostSize(NamedTuple):
    cpus: int
    memory_bytes: int


class Asked(NamedTuple):
    """Sizes that a person named, by flag or in the configuration; None where nothing was said."""

    vcpus: int | None = None
    memory_mib: int | None = None
    disk_size_bytes: int | None = None
    system_overlay_size_bytes: int | None = None


class Sizes(NamedTuple):
    vcpus: int
    memory_mib: int
    disk_size_bytes: int
    system_overlay_size_bytes: int
    origins: dict[str, Origin]


def derive_sizes(flags: Asked, config: Asked, host: HostSize, limits: Limits = NO_LIMITS) -> Sizes:
    """cpus/4, at most 4; memory/8, at most 8 GiB; the floors where the host is smaller than that. A limit that cuts
    one of these is the configuration's word."""
    derived = {
        "vcpus": (min(host.cpus // 4, 4), FLOOR_VCPUS),
        "memory_mib": (min(host.memory_bytes // 8, 8 * GIB) // MIB, FLOOR_MEMORY_MIB),
        "disk_size_bytes": (0, DEFAULT_DISK_BYTES),
        "system_overlay_size_bytes": (0, DEFAULT_SYSTEM_OVERLAY_BYTES),
    }
    values: dict[str, int] = {}
    origins: dict[str, Origin] = {}
    for name, (from_host, floor) in derived.items():
        for origin, value in ((Origin.FLAG, getattr(flags, name)), (Origin.CONFIG, getattr(config, name))):
            if value is not None:
                values[name], origins[name] = value, origin
                break
        else:
            values[name] = max(from_host, floor)
            origins[name] = Origin.HOST if from_host >= floor else Origin.FLOOR
    for name, most in _plan_cuts(values, origins, limits).items():
        if values[name] > most:
            values[name], origins[name] = most, Origin.CONFIG
    return Sizes(origins=origins, **values)


def _plan_cuts(values: dict[str, int], origins: dict[str, Origin], limits: Limits) -> dict[str, int]:
    """The most that each derived size may be. Two derived disks share what they may have."""
    cuts: dict[str, int] = {}
    if limits.vcpus_per_vm is not None:
        cuts["vcpus"] = limits.vcpus_per_vm
    if limits.memory_per_vm_bytes is not None:
        cuts["memory_mib"] = max(limits.memory_per_vm_bytes // MIB, MEMORY_MIB_MIN)
    if limits.disk_per_vm_bytes is not None:
        derived = [name for name in _DISKS if origins[name] in _DERIVED]
        asked = sum(values[name] for name in _DISKS if name not in derived)
        left = limits.disk_per_vm_bytes - asked
        cuts |= dict.fromkeys(derived, max(left // max(len(derived), 1), DISK_BYTES_MIN))
    return {name: most for name, most in cuts.items() if origins[name] in _DERIVED}
