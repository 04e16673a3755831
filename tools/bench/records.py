"""VM records by the hundred, for measuring what the number of VMs costs."""

from banger.base.clock import utc_now
from banger.model.names import compose_name
from banger.model.vm import VmRecord, VmSpec, VmState

_SPEC = VmSpec(
    image="debian-bookworm",
    kernel="debian-cloud",
    vcpus=1,
    memory_mib=512,
    disk_size_bytes=8 * 1024**3,
    system_overlay_size_bytes=8 * 1024**3,
)


def make_records(count: int) -> list[VmRecord]:
    now = utc_now()
    return [
        VmRecord(
            id=f"{number:012x}",
            name=compose_name(number),
            spec=_SPEC,
            state=VmState.STOPPED,
            created_at=now,
            updated_at=now,
            last_touched_at=now,
        )
        for number in range(count)
    ]
