"""Root disks by device-mapper, as far as they are the daemon's work: the layer's file, and what is asked of root when."""

import os
import struct
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Code, Problem, conflict, unavailable
from banger.base.units import GIB, MIB, TIB
from banger.model.machine import DiskFormat
from banger.privileged.contract.base import Done, Reply
from banger.privileged.contract.machines import FULL, MachineSupport, Snapshot, Snapshots
from banger.storage.snapshot import SnapshotDriver, plan_layer_bytes

CHUNK = 4096


@asynccontextmanager
async def attached(driver, root):
    """As a start and an end do it."""
    disk = await driver.attach(root)
    yield disk
    await driver.release(root.vm_id)


class Root:
    """Root as a list of what it was asked; `answers` are raised or given instead, by method."""

    kind = "scripted"

    def __init__(self):
        self.asked = []
        self.attached = {}
        self.answers = {}
        self.gate = None

    async def call(self, request, descriptors=()):
        self.asked.append(request.method)
        if self.gate is not None:
            await self.gate.wait()
        if answers := self.answers.get(request.method):
            answer = answers.pop(0)
            if isinstance(answer, Problem):
                raise answer
            return Reply(answer)
        match request.method:
            case "attach_snapshot":
                image, layer = descriptors
                self.attached[request.vm] = (
                    request.size_bytes,
                    os.pread(image, 5, 0),
                    os.fstat(layer).st_size,
                    os.write(layer, b"") == 0,
                )
            case "detach_snapshot":
                self.attached.pop(request.vm, None)
        return Reply(Done())

    async def close(self): ...


@pytest.fixture
def way():
    return Root()


@pytest.fixture
def driver(way):
    return SnapshotDriver(way, None)


def open_count():
    return len(os.listdir("/proc/self/fd"))


async def test_the_device_is_there_as_long_as_the_block_lasts(driver, way, root):
    driver.create(root)
    before = open_count()
    async with attached(driver, root) as disk:
        assert disk.format is DiskFormat.SNAPSHOT
        assert disk.path == "/dev/mapper/banger-0123456789ab"
        size, begin, layer, writable = way.attached[root.vm_id]
        assert (size, begin, writable) == (root.size_bytes, b"begin", True)
        assert layer == plan_layer_bytes(root.size_bytes, None)
    assert way.attached == {}
    assert way.asked == ["attach_snapshot", "detach_snapshot"]
    assert open_count() == before


def test_the_layer_takes_nothing_until_something_changes(driver, root):
    driver.create(root)
    assert driver.measure_bytes(root) == 0
    assert driver.estimate_bytes(root.image) == 0


async def test_one_that_runs_already_is_only_held(driver, way, root):
    driver.adopt(root.vm_id)
    assert way.asked == []
    await driver.release(root.vm_id)
    assert way.asked == ["detach_snapshot"]


async def test_a_refused_attachment_asks_for_nothing_more(driver, way, root):
    driver.create(root)
    way.answers["attach_snapshot"] = [unavailable("no device-mapper")]
    with pytest.raises(Problem, match="no device-mapper"):
        await driver.attach(root)
    assert way.asked == ["attach_snapshot"]


async def test_a_leftover_of_the_same_name_is_replaced(driver, way, root):
    driver.create(root)
    way.answers["attach_snapshot"] = [conflict("the name is taken")]
    async with attached(driver, root):
        assert way.asked == ["attach_snapshot", "detach_snapshot", "attach_snapshot"]


async def test_one_that_somebody_uses_is_told_and_left_alone(driver, way, root):
    driver.create(root)
    way.answers["attach_snapshot"] = [conflict("the name is taken"), conflict("the name is taken")]
    way.answers["detach_snapshot"] = [conflict("it is in use")]
    with pytest.raises(Problem, match="it is in use"):
        await driver.attach(root)
    assert way.asked == ["attach_snapshot", "detach_snapshot"]


async def test_one_that_cannot_be_detached_is_told_and_can_be_tried_again(driver, way, root):
    driver.create(root)
    await driver.attach(root)
    way.answers["detach_snapshot"] = [conflict("it is in use")]
    with pytest.raises(Problem, match="in use"):
        await driver.release(root.vm_id)
    await driver.release(root.vm_id)
    assert way.attached == {}


async def test_a_root_disk_that_is_gone_is_told_before_root_is_asked(driver, way, root):
    with pytest.raises(Problem, match="root disk of web is missing") as caught:
        await driver.attach(root)
    assert caught.value.hint == "banger vm delete web"
    assert way.asked == []


async def test_without_a_way_to_root_there_are_none(root):
    driver = SnapshotDriver(None, None)
    for act in (driver.probe, lambda: driver.attach(root)):
        with pytest.raises(Problem, match="no root helper") as caught:
            await act()
        assert caught.value.hint == "sudo banger system install"
    await driver.release(root.vm_id)


async def test_root_s_reason_becomes_the_reason(driver, way):
    support = {"jail_reason": "", "jail_hint": "", "firecracker": "", "firecracker_version": ""}
    way.answers["inspect_machines"] = [
        MachineSupport(
            snapshot_reason="no dm_snapshot", snapshot_hint="sudo modprobe dm_snapshot", **support
        ),
        MachineSupport(snapshot_reason="", snapshot_hint="", **support),
    ]
    with pytest.raises(Problem, match="no dm_snapshot") as caught:
        await driver.probe()
    assert caught.value.hint == "sudo modprobe dm_snapshot"
    await driver.probe()


# The layer's size


@given(st.integers(1, 4 * TIB))
def test_a_layer_without_a_limit_holds_every_chunk_of_the_disk(size):
    """As the kernel places them: a header, then a chunk of 256 exceptions before their 256 chunks, and the next such
    chunk wiped as soon as one is full. It refuses a chunk that would be the layer's last."""
    room = plan_layer_bytes(size, None) // CHUNK
    chunks = -(-size // CHUNK)
    next_free = 2  # after the header and the first chunk of exceptions
    next_free += chunks + (chunks - 1) // 256
    last_wiped = 1 + (chunks // 256) * 257
    assert room >= next_free + 1
    assert room > last_wiped
    assert plan_layer_bytes(size, None) < size * 1.005 + 4 * CHUNK


def test_a_limit_caps_the_layer_and_only_when_it_is_less():
    assert plan_layer_bytes(8 * GIB, 4 * GIB) == 4 * GIB
    assert plan_layer_bytes(64 * MIB, 4 * GIB) == plan_layer_bytes(64 * MIB, None)
    assert plan_layer_bytes(8 * GIB, 100 * MIB + 1) == 100 * MIB


async def test_a_raised_limit_holds_from_the_next_start(way, root):
    SnapshotDriver(way, 16 * MIB).create(root)
    async with attached(SnapshotDriver(way, 32 * MIB), root):
        assert way.attached[root.vm_id][2] == 32 * MIB
    async with attached(SnapshotDriver(way, 16 * MIB), root):
        assert way.attached[root.vm_id][2] == 32 * MIB  # never cut off


# Full


def spoil(root, *, used=0):
    """As the kernel does: its header says that the layer is no longer valid."""
    with (root.state / "root.cow").open("r+b") as layer:
        layer.write(struct.pack("<4sIII", b"SnAp", 0, 1, 8))
        layer.write(b"x" * used)


async def test_a_layer_that_was_full_is_refused_before_root_is_asked(way, root):
    driver = SnapshotDriver(way, 16 * MIB)
    driver.create(root)
    spoil(root, used=16 * MIB)
    with pytest.raises(Problem) as caught:
        await driver.attach(root)
    assert caught.value.code is Code.NO_SPACE
    assert "16 MiB" in caught.value.brief
    assert "snapshot_limit" in caught.value.hint
    assert "intact" not in caught.value.hint  # it has no work disk
    assert way.asked == []


def test_a_full_file_system_is_not_blamed_on_the_limit(driver, root):
    driver.create(root)
    spoil(root)
    problem = driver.explain_full(root)
    assert f"{root.state} had no room" in problem.brief
    assert "make room" in problem.hint


async def test_one_look_finds_all_that_are_full_and_none_is_made_for_nothing(driver, way, root):
    driver.create(root)
    assert await driver.find_full() == frozenset()
    assert way.asked == []

    def snapshot(vm, state):
        return Snapshot(vm=vm, state=state, used_bytes=0, size_bytes=0, in_use=True)

    async with attached(driver, root):
        way.answers["list_snapshots"] = [
            Snapshots(snapshots=(snapshot(root.vm_id, FULL), snapshot("ba9876543210", FULL))),
            Snapshots(snapshots=(snapshot(root.vm_id, "active"),)),
        ]
        assert await driver.find_full() == {root.vm_id}
        assert await driver.find_full() == frozenset()
    way.asked.clear()
    assert await driver.find_full() == frozenset()
    assert way.asked == []
