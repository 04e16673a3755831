"""What this host's owner lets VMs have: limits for each one and for all together, from `[limits]`. Pure.

A refusal says the number that was asked for, the limit, what is in use, and the key that says so. Whether the host
has the room at all is `admission`'s to say.
"""

from collections.abc import Iterable
from typing import NamedTuple

from banger.base.problem import Problem, bad_request, conflict
from banger.base.units import GIB, MIB, render_size
from banger.model.vm import LIVE, VmRecord, VmSpec


class Limits(NamedTuple):
    """None is no limit. `disk` counts root and work disk at the size their guest sees. Totals of CPUs and memory are
    those of running VMs, totals of disks those of all."""

    vms: int | None = None
    running_vms: int | None = None
    vcpus_per_vm: int | None = None
    memory_per_vm_bytes: int | None = None
    disk_per_vm_bytes: int | None = None
    vcpus_total: int | None = None
    memory_total_bytes: int | None = None
    disk_total_bytes: int | None = None
    memory_overcommit: float = 2.0
    disk_overcommit: float = 10.0
    disk_reserve_bytes: int = 1024 * MIB


class Totals(NamedTuple):
    """What VMs have already, the one in question left out."""

    vms: int = 0
    running: int = 0
    vcpus: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


def sum_others(vms: Iterable[VmRecord], but: str = "") -> Totals:
    """Of all VMs but the one with this id."""
    others = [vm for vm in vms if vm.id != but]
    live = [vm.spec for vm in others if vm.state in LIVE]
    return Totals(
        vms=len(others),
        running=len(live),
        vcpus=sum(spec.vcpus for spec in live),
        memory_bytes=sum(spec.memory_mib * MIB for spec in live),
        disk_bytes=sum(disk_bytes(vm.spec) for vm in others),
    )


def disk_bytes(spec: VmSpec) -> int:
    return spec.disk_size_bytes + spec.system_overlay_size_bytes


def check_vm(spec: VmSpec, limits: Limits, *, name: str = "") -> None:
    """One VM's size, whatever others have. Of a VM that is there already, `name`, the way out is to change it. Raises
    `bad_request`."""
    use = f"banger vm set {name}" if name else "use"
    most = limits.vcpus_per_vm
    if most is not None and spec.vcpus > most:
        raise _too_big(f"{spec.vcpus} vCPUs", str(most), "vcpus_per_vm", f"{use} --vcpu {most}")
    most = limits.memory_per_vm_bytes
    if most is not None and spec.memory_mib * MIB > most:
        asked = f"{render_size(spec.memory_mib * MIB)} of memory"
        raise _too_big(asked, render_size(most), "memory_per_vm", f"{use} --memory {_render_flag(most)}")
    most = limits.disk_per_vm_bytes
    if most is not None and disk_bytes(spec) > most:
        asked = (
            f"a root disk of {render_size(spec.system_overlay_size_bytes)} "
            f"and a work disk of {render_size(spec.disk_size_bytes)}"
        )
        flags = "use a smaller --disk-size or --system-overlay-size"
        raise _too_big(asked, f"{render_size(most)} together", "disk_per_vm", flags)


def check_growth(before: VmSpec, after: VmSpec, limits: Limits) -> None:
    """A VM that changes. One that is too big since a limit was lowered may stay so, and may shrink in part."""
    check_vm(
        after,
        limits._replace(
            vcpus_per_vm=limits.vcpus_per_vm if after.vcpus > before.vcpus else None,
            memory_per_vm_bytes=limits.memory_per_vm_bytes if after.memory_mib > before.memory_mib else None,
            disk_per_vm_bytes=limits.disk_per_vm_bytes if disk_bytes(after) > disk_bytes(before) else None,
        ),
    )


def check_new(spec: VmSpec, others: Totals, limits: Limits) -> None:
    """Whether there may be one more VM, with these disks. Raises `conflict`."""
    if limits.vms is not None and others.vms >= limits.vms:
        raise _too_many(
            f"there are {others.vms} VMs already, and limits.vms is {limits.vms}",
            "delete one (banger vm prune --dry-run shows which are not running)",
            "vms",
        )
    check_disks(disk_bytes(spec), others, limits)


def check_disks(wanted_bytes: int, others: Totals, limits: Limits) -> None:
    """Whether the disks of all VMs keep within their total. Raises `conflict`."""
    most = limits.disk_total_bytes
    if most is not None and others.disk_bytes + wanted_bytes > most:
        raise _too_many(
            f"disks of {render_size(wanted_bytes)} beside the {render_size(others.disk_bytes)} of other VMs "
            f"exceed limits.disk_total, {render_size(most)}",
            "choose a smaller --disk-size, or delete a VM (banger vm prune --dry-run)",
            "disk_total",
        )


def check_running(spec: VmSpec, others: Totals, limits: Limits) -> None:
    """Whether one more VM may run. Raises `conflict`."""
    stop = "stop one (banger vm list)"
    if limits.running_vms is not None and others.running >= limits.running_vms:
        raise _too_many(
            f"{others.running} VMs run already, and limits.running_vms is {limits.running_vms}",
            stop,
            "running_vms",
        )
    most = limits.vcpus_total
    if most is not None and others.vcpus + spec.vcpus > most:
        raise _too_many(
            f"{spec.vcpus} vCPUs beside the {others.vcpus} of running VMs exceed limits.vcpus_total, {most}",
            f"choose a smaller --vcpu, or {stop}",
            "vcpus_total",
        )
    most = limits.memory_total_bytes
    if most is not None and others.memory_bytes + spec.memory_mib * MIB > most:
        raise _too_many(
            f"{render_size(spec.memory_mib * MIB)} of memory beside the {render_size(others.memory_bytes)} of "
            f"running VMs exceed limits.memory_total, {render_size(most)}",
            f"choose a smaller --memory, or {stop}",
            "memory_total",
        )


def _render_flag(size_bytes: int) -> str:
    return f"{size_bytes // MIB}M" if size_bytes % GIB else f"{size_bytes // GIB}G"


def _too_big(asked: str, most: str, key: str, way_out: str) -> Problem:
    return bad_request(
        f"{asked} are more than a VM may have here: limits.{key} is {most}",
        hint=f"{way_out}, or raise {key} below [limits] in config.toml",
    )


def _too_many(brief: str, way_out: str, key: str) -> Problem:
    return conflict(brief, hint=f"{way_out}, or raise {key} below [limits] in config.toml")
