"""What banger takes of the host's disk, and what of it could be had back."""

import msgspec

from banger.api.method import Request, declare


class StoredUse(msgspec.Struct, frozen=True, kw_only=True):
    """One build of an image or a kernel. While VMs use it, its bytes are shared by them. `is_current` is false for a
    build that has been replaced under its name and stays for the VMs that stand on it."""

    name: str
    id: str
    is_current: bool
    used_by: list[str]
    shared_bytes: int
    exclusive_bytes: int
    reclaimable_bytes: int


class VmUse(msgspec.Struct, frozen=True, kw_only=True):
    """One VM. Shared are the blocks that its disks have in common with other files (reflinks), all else is the VM's
    own: of the root disk what was changed, the work disk, logs, and what it boots with. `growth_bytes` is how much
    its disks may still grow."""

    id: str
    name: str
    state: str
    shared_bytes: int
    root_bytes: int
    work_bytes: int
    log_bytes: int
    other_bytes: int
    exclusive_bytes: int
    growth_bytes: int
    reclaimable_bytes: int


class DiskTotals(msgspec.Struct, frozen=True, kw_only=True):
    """`reclaimable` is what `vm prune`, `image delete` and `kernel delete` could give back. `unfinished` is of builds
    that are being made or were cut short; `other` is the daemon's own: records and log."""

    images_bytes: int
    kernels_bytes: int
    vms_bytes: int
    unfinished_bytes: int
    other_bytes: int
    total_bytes: int
    reclaimable_bytes: int
    growth_bytes: int
    free_bytes: int


class DiskUsage(msgspec.Struct, frozen=True, kw_only=True):
    images: list[StoredUse]
    kernels: list[StoredUse]
    vms: list[VmUse]
    totals: DiskTotals


@declare("disk.usage")
class DiskUsageShow(Request[DiskUsage]):
    """What images, kernels and VMs take of the disk: shared, of their own, and what could be had back."""
