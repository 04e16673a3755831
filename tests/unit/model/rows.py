"""Rows of VMs for tests of rules."""

from typing import Any

import msgspec

from banger.base.units import GIB
from banger.model.vm import VmRecord, VmSpec, VmState

SPEC = VmSpec(
    image="debian-bookworm",
    kernel="debian-cloud",
    vcpus=2,
    memory_mib=1024,
    disk_size_bytes=8 * GIB,
    system_overlay_size_bytes=8 * GIB,
)


def make_spec(**changes: Any) -> VmSpec:
    return msgspec.structs.replace(SPEC, **changes)


def make_vm(name: str = "web", state: VmState = VmState.STOPPED, **changes: Any) -> VmRecord:
    """Its id derives from its name."""
    at = "2026-01-01T00:00:00.000Z"
    values: dict[str, Any] = {
        "id": name.encode().hex()[:12].ljust(12, "0"),
        "name": name,
        "spec": SPEC,
        "state": state,
        "created_at": at,
        "updated_at": at,
        "last_touched_at": at,
        "prepared": True,
        **changes,
    }
    return VmRecord(**values)
