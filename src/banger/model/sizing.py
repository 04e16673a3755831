"""How big a VM is when nobody said: flag, else config, else derived from the host, else a floor. Pure."""

from typing import NamedTuple

from banger.base.units import GIB, MIB
from banger.model.vm import Origin

FLOOR_VCPUS = 1
FLOOR_MEMORY_MIB = 512
DEFAULT_DISK_BYTES = 8 * GIB
DEFAULT_SYSTEM_OVERLAY_BYTES = 8 * GIB


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


def derive_sizes(flags: Asked, config: Asked, host: HostSize) -> Sizes:
    """cpus/4, at most 4; memory/8, at most 8 GiB; the floors where the host is smaller than that."""
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
    return Sizes(origins=origins, **values)
