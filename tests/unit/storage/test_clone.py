"""Root disks that are whole files: copies, and reflinks where the file system has them."""

import errno
import fcntl
import os
from contextlib import suppress

import pytest

from banger.base.problem import Code, Problem
from banger.base.units import MIB
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.storage import clone
from banger.storage.clone import CopyDriver, ReflinkDriver


def refuse_ioctl(monkeypatch, number):
    def ioctl(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(clone.fcntl, "ioctl", ioctl)


async def test_a_copy_is_as_large_as_asked_sparse_and_the_image_s_content(root):
    driver = CopyDriver()
    await driver.probe()
    driver.create(root)
    disk = await driver.attach(root)
    assert (disk.serial, disk.path, disk.format) == ("root", f"{root.state}/root.img", DiskFormat.RAW)
    with open(disk.path, "rb") as file:
        assert file.read(8 * MIB) == root.image.read_bytes()
        assert file.read() == bytes(root.size_bytes - 8 * MIB)
    assert driver.name is StorageDriver.COPY
    assert 0 < driver.estimate_bytes(root.image) < MIB
    assert 0 < driver.measure_bytes(root) < MIB
    driver.adopt(root.vm_id)
    await driver.release(root.vm_id)
    assert await driver.find_full() == frozenset()


def test_a_copy_is_never_smaller_than_its_image(root):
    CopyDriver().create(root._replace(size_bytes=4096))
    assert (root.state / "root.img").stat().st_size == 8 * MIB


@pytest.mark.parametrize("make", [CopyDriver, lambda: ReflinkDriver(None, None)])
def test_a_missing_image_leaves_nothing(root, make):
    root.image.unlink()
    with pytest.raises(Problem) as caught:
        make().create(root)
    assert caught.value.code is Code.NOT_FOUND
    assert os.listdir(root.state) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EOPNOTSUPP, "does not share blocks between files"),
        (errno.ENOTTY, "does not share blocks between files"),
        (errno.EXDEV, "are on two file systems"),
        (errno.EPERM, "Operation not permitted"),
    ],
)
async def test_without_reflinks_the_reason_and_a_way_out_are_told(root, monkeypatch, number, words):
    refuse_ioctl(monkeypatch, number)
    driver = ReflinkDriver(root.image.parent, root.state)
    with pytest.raises(Problem, match=words) as caught:
        await driver.probe()
    assert caught.value.code is Code.UNAVAILABLE
    assert "Btrfs or XFS" in caught.value.hint
    with pytest.raises(Problem, match=words):
        driver.create(root)
    assert os.listdir(root.state) == []


async def test_reflinks_are_tried_without_leaving_a_trace(root):
    driver = ReflinkDriver(root.image.parent, root.state)
    with suppress(Problem):  # whatever this machine's file system can
        await driver.probe()
        driver.create(root)
        assert driver.measure_bytes(root) < 4096
        (root.state / "root.img").unlink()
    assert os.listdir(root.state) == []
    assert sorted(os.listdir(root.image.parent)) == ["image.ext4", "vm"]


async def test_a_directory_that_is_not_there_is_told(root):
    with pytest.raises(Problem, match="No such file"):
        await ReflinkDriver(root.image.parent / "gone", root.state).probe()


def test_the_number_is_the_kernel_s():
    assert clone._FICLONE == fcntl.FICLONE if hasattr(fcntl, "FICLONE") else 0x40049409
