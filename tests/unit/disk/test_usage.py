"""`df` on a directory as a daemon leaves it: builds, VMs, logs."""

import os
from pathlib import Path

import pytest
from tests.unit.model.rows import make_vm

from banger.api.disk import DiskUsageShow
from banger.base.units import GIB, KIB, MIB
from banger.model.admission import DiskClaim
from banger.model.storage import StorageDriver
from banger.model.vm import VmRecord, VmState
from banger.services.disk.measure import find_builds, measure_tree
from banger.services.disk.service import DiskService, Places
from banger.services.vms.layout import Layouts
from banger.storage.choose import Storage
from banger.storage.clone import CopyDriver
from banger.storage.qcow2 import Qcow2Driver


def write(path: Path, size: int) -> None:
    """Data, not a hole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)  # blocks are counted when they are given out
    os.close(descriptor)


def publish(shelf: Path, name: str, build: str, size: int) -> Path:
    directory = shelf / f"{name}@{build}"
    write(directory / "data", size)
    (shelf / name).unlink(missing_ok=True)
    (shelf / name).symlink_to(directory.name)
    return directory


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "state/vms").mkdir(parents=True)
    return Places(tmp_path / "images", tmp_path / "kernels", tmp_path / "state")


def measure_with(places: Places, rows: list[VmRecord]) -> DiskService:
    layouts = Layouts(places.state / "vms", places.state / "run")
    storage = Storage("auto", [Qcow2Driver(), CopyDriver()])
    return DiskService(places, layouts, storage, lambda: rows, lambda vm: DiskClaim(8 * GIB, GIB))


async def show(places: Places, *rows: VmRecord):
    return await measure_with(places, list(rows)).show_usage(DiskUsageShow())


async def test_nothing_takes_nothing(places):
    usage = await show(places)
    assert (usage.images, usage.kernels, usage.vms) == ([], [], [])
    assert usage.totals.total_bytes == 0
    assert usage.totals.free_bytes > 0


async def test_an_image_is_shared_while_a_vm_stands_on_it_and_can_be_had_back_afterwards(places):
    directory = publish(places.images, "debian", "a1", MIB)
    on_it = make_vm(image_directory=str(directory))
    (used,) = (await show(places, on_it)).images
    assert (used.used_by, used.exclusive_bytes, used.reclaimable_bytes) == (["web"], 0, 0)
    assert MIB <= used.shared_bytes < MIB + 64 * KIB
    (unused,) = (await show(places)).images
    assert (unused.shared_bytes, unused.exclusive_bytes) == (0, used.shared_bytes)
    assert unused.reclaimable_bytes == used.shared_bytes


async def test_a_build_that_was_replaced_is_told_apart(places):
    old = publish(places.images, "debian", "a1", MIB)
    publish(places.images, "debian", "b2", 2 * MIB)
    images = (await show(places, make_vm(image_directory=str(old)))).images
    assert [(image.id, image.is_current, image.used_by) for image in images] == [
        ("b2", True, []),
        ("a1", False, ["web"]),
    ]


async def test_a_kernel_is_used_by_its_name(places):
    publish(places.kernels, "debian-cloud", "a1", MIB)
    publish(places.kernels, "small", "b2", MIB)
    kernels = (await show(places, make_vm())).kernels
    assert {kernel.name: kernel.used_by for kernel in kernels} == {"debian-cloud": ["web"], "small": []}


async def test_what_a_vm_has_is_told_by_kind(places):
    vm = make_vm(has_work_disk=True)
    home = places.state / "vms" / vm.id
    for name, size in (
        ("root.qcow2", 2 * MIB),
        ("work.img", 3 * MIB),
        ("serial.log", MIB),
        ("initramfs.cpio", MIB),
    ):
        write(home / name, size)
    (use,) = (await show(places, vm)).vms
    assert (use.name, use.state, use.growth_bytes) == ("web", "stopped", 7 * GIB)
    assert use.log_bytes == pytest.approx(MIB, abs=64 * KIB)
    assert use.work_bytes == pytest.approx(3 * MIB, abs=64 * KIB)
    assert use.exclusive_bytes == pytest.approx(7 * MIB, abs=256 * KIB)
    assert use.root_bytes + use.work_bytes + use.log_bytes + use.other_bytes == pytest.approx(
        use.exclusive_bytes, abs=64 * KIB
    )
    assert use.reclaimable_bytes == use.exclusive_bytes


async def test_holes_take_nothing(places):
    vm = make_vm(root_driver=StorageDriver.COPY)
    work = places.state / "vms" / vm.id / "work.img"
    write(work, MIB)
    os.truncate(work, 8 * GIB)
    (use,) = (await show(places, vm)).vms
    assert use.exclusive_bytes < 2 * MIB


async def test_a_vm_that_runs_gives_nothing_back_and_one_without_files_has_none(places):
    running = make_vm("up", VmState.RUNNING)
    write(places.state / "vms" / running.id / "serial.log", MIB)
    up, gone = (await show(places, running, make_vm("gone"))).vms
    assert up.exclusive_bytes >= MIB
    assert up.reclaimable_bytes == 0
    assert (gone.exclusive_bytes, gone.reclaimable_bytes) == (0, 0)


async def test_totals_are_the_sums(places):
    publish(places.images, "debian", "a1", MIB)
    write(places.images / ".building@debian@0000" / "rootfs.ext4", MIB)
    write(places.state / "banger.db", MIB)
    vm = make_vm()
    write(places.state / "vms" / vm.id / "work.img", MIB)
    totals = (await show(places, vm)).totals
    parts = (
        totals.images_bytes,
        totals.kernels_bytes,
        totals.vms_bytes,
        totals.unfinished_bytes,
        totals.other_bytes,
    )
    assert totals.total_bytes == sum(parts)
    assert [round(part / MIB) for part in parts] == [1, 0, 1, 1, 1]
    assert totals.reclaimable_bytes == totals.images_bytes + totals.vms_bytes
    assert totals.growth_bytes == 7 * GIB


def test_no_link_is_followed(tmp_path):
    write(tmp_path / "elsewhere/big", 4 * MIB)
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm/file").symlink_to(tmp_path / "elsewhere/big")
    (tmp_path / "vm/directory").symlink_to(tmp_path / "elsewhere")
    assert measure_tree(tmp_path / "vm").total_bytes < MIB


def test_a_damaged_shelf_is_measured_as_well(tmp_path):
    write(tmp_path / "debian@a1/rootfs.ext4", MIB)
    (tmp_path / "debian").write_text("no link")
    (tmp_path / "stray@file").write_text("no directory")
    builds, unfinished = find_builds(tmp_path)
    assert [(build.name, build.id, build.is_current) for build in builds] == [("debian", "a1", False)]
    assert unfinished == 0
