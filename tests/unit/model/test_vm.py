import msgspec

from banger.model.storage import StorageDriver
from banger.model.vm import VmRecord, VmSpec, VmState


def test_a_row_of_before_there_were_drivers_stands_on_qcow2():
    spec = VmSpec(
        image="i", kernel="k", vcpus=1, memory_mib=512, disk_size_bytes=1, system_overlay_size_bytes=1
    )
    at = "2026-01-01T00:00:00.000Z"
    vm = VmRecord(
        id="0123456789ab",
        name="web",
        spec=spec,
        state=VmState.STOPPED,
        created_at=at,
        updated_at=at,
        last_touched_at=at,
        root_driver=StorageDriver.COPY,
    )
    row = msgspec.json.decode(msgspec.json.encode(vm))
    assert row.pop("root_driver") == "copy"
    assert msgspec.convert(row, VmRecord).root_driver is StorageDriver.QCOW2
