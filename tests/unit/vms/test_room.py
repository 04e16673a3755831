"""What a VM may have, by the numbers of a host that the test chooses."""

import msgspec
import pytest
from tests.unit.model.rows import SPEC, make_spec, make_vm

from banger.base.problem import Code, Problem
from banger.base.units import GIB, MIB
from banger.model.config import parse_config
from banger.model.sizing import HostSize
from banger.model.storage import StorageDriver
from banger.model.vm import VmState
from banger.services.vms import room as room_module
from banger.services.vms.room import Room

HOST = HostSize(cpus=4, memory_bytes=8 * GIB)


@pytest.fixture
def free(monkeypatch):
    """How much room the disk has; the tests change it."""
    numbers = {"bytes": 100 * GIB}
    monkeypatch.setattr(room_module, "free_bytes", lambda path: numbers["bytes"])
    return numbers


@pytest.fixture
def make_room(world, free):
    def make(text: str = "", *, available: int = 8 * GIB) -> Room:
        config = parse_config(text, file="c.toml")
        return Room(world.around._replace(config=config, host=HOST), lambda: available)

    return make


def refuse(code: Code, admit, *args, **keywords) -> str:
    with pytest.raises(Problem) as caught:
        admit(*args, **keywords)
    assert caught.value.code is code
    return caught.value.brief


def test_the_first_vm_of_an_empty_host_has_room(make_room):
    make_room().admit_new(SPEC, StorageDriver.QCOW2, start=True)


def test_a_vm_that_the_disk_could_not_hold_is_refused(make_room, free):
    free["bytes"] = 16 * GIB
    assert "16 GiB do not fit" in refuse(Code.NO_SPACE, make_room().admit_new, SPEC, None, start=False)
    free["bytes"] = 17 * GIB
    make_room().admit_new(SPEC, None, start=False)


def test_a_cap_on_snapshots_leaves_room_for_more(make_room, free):
    free["bytes"] = 11 * GIB
    room = make_room('snapshot_limit = "2G"')
    room.admit_new(SPEC, StorageDriver.SNAPSHOT, start=False)
    refuse(Code.NO_SPACE, room.admit_new, SPEC, StorageDriver.QCOW2, start=False)


def test_what_other_disks_may_grow_by_is_counted(make_room, free, world):
    free["bytes"] = 17 * GIB  # 16 GiB and the reserve
    for name in ("a", "b", "c"):
        world.store.vms.insert(make_vm(name, has_work_disk=True))
    room = make_room("[limits]\ndisk_overcommit = 4")
    room.admit_new(SPEC, StorageDriver.QCOW2, start=False)
    world.store.vms.insert(make_vm("d", has_work_disk=True))
    brief = refuse(Code.NO_SPACE, room.admit_new, SPEC, StorageDriver.QCOW2, start=False)
    assert "those of other VMs may grow by 64 GiB" in brief


def test_memory_counts_when_a_vm_is_to_run(make_room, world):
    world.store.vms.insert(make_vm("up", VmState.RUNNING, spec=make_spec(memory_mib=8192)))
    world.store.vms.insert(make_vm("coming", VmState.STARTING, spec=make_spec(memory_mib=7680)))
    room = make_room("[limits]\nmemory_overcommit = 2")
    room.admit_new(SPEC, None, start=False)
    assert "running VMs have 16 GiB" in refuse(Code.NO_SPACE, room.admit_new, SPEC, None, start=True)
    refuse(Code.NO_SPACE, room.admit_start, make_vm("down"))
    room.admit_start(make_vm("small", spec=make_spec(memory_mib=512)))


def test_a_vm_does_not_stand_in_its_own_way(make_room, world):
    vm = make_vm("one", VmState.STARTING, spec=make_spec(memory_mib=8192))
    world.store.vms.insert(vm)
    make_room("[limits]\nrunning_vms = 1\nmemory_overcommit = 1\n").admit_start(vm)


def test_memory_that_is_not_there_now_is_refused(make_room):
    room = make_room(available=200 * MIB)
    assert "200 MiB available" in refuse(Code.NO_SPACE, room.admit_start, make_vm())


def test_limits_hold_for_new_vms(make_room, world):
    world.store.vms.insert(make_vm("a", VmState.RUNNING))
    refuse(Code.BAD_REQUEST, make_room("[limits]\nvcpus_per_vm = 1").admit_new, SPEC, None, start=False)
    refuse(Code.CONFLICT, make_room("[limits]\nvms = 1").admit_new, SPEC, None, start=False)
    one_runs = make_room("[limits]\nrunning_vms = 1")
    one_runs.admit_new(SPEC, None, start=False)
    refuse(Code.CONFLICT, one_runs.admit_new, SPEC, None, start=True)


def test_a_limit_that_was_lowered_holds_at_the_next_start_but_for_disks(make_room):
    refuse(Code.BAD_REQUEST, make_room("[limits]\nvcpus_per_vm = 1").admit_start, make_vm())
    make_room('[limits]\ndisk_per_vm = "1G"').admit_start(make_vm())


def test_what_does_not_grow_needs_no_room(make_room, free, world):
    free["bytes"] = 0
    vm = make_vm()
    world.store.vms.insert(vm)
    room = make_room("[limits]\nmemory_per_vm = '512M'\ndisk_per_vm = '1G'\nvcpus_per_vm = 1", available=0)
    room.admit_change(vm, SPEC)
    room.admit_change(vm, make_spec(vcpus=1, memory_mib=512))


def test_what_grows_must_fit(make_room, free, world):
    vm = make_vm(has_work_disk=True)
    world.store.vms.insert(vm)
    grown = msgspec.structs.replace(SPEC, disk_size_bytes=16 * GIB)
    make_room().admit_change(vm, grown)
    refuse(Code.CONFLICT, make_room('[limits]\ndisk_total = "20G"').admit_change, vm, grown)
    refuse(Code.BAD_REQUEST, make_room('[limits]\ndisk_per_vm = "20G"').admit_change, vm, grown)
    refuse(Code.NO_SPACE, make_room().admit_change, vm, make_spec(memory_mib=9 * 1024))
    free["bytes"] = 24 * GIB
    refuse(Code.NO_SPACE, make_room().admit_change, vm, grown)
