"""Root disks that are whole files: copies, and reflinks where the file system has them."""

import errno
import fcntl
import os
import struct
from contextlib import suppress

import pytest

from banger.base.problem import Code, Problem
from banger.base.units import MIB
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.storage import clone
from banger.storage.clone import CopyDriver, ReflinkDriver, measure_own_bytes, parse_extents


def refuse_ioctl(monkeypatch, number):
    def ioctl(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(clone.fcntl, "ioctl", ioctl)


async def test_a_copy_is_as_large_as_asked_sparse_and_the_image_s_content(root):
    driver = CopyDriver()
    await driver.probe()
    driver.create(root)
    async with driver.attach(root) as disk:
        assert (disk.serial, disk.path, disk.format) == ("root", f"{root.state}/root.img", DiskFormat.RAW)
    with open(disk.path, "rb") as file:
        assert file.read(8 * MIB) == root.image.read_bytes()
        assert file.read() == bytes(root.size_bytes - 8 * MIB)
    assert driver.name is StorageDriver.COPY
    assert 0 < driver.estimate_bytes(root.image) < MIB
    assert 0 < driver.measure_bytes(root) < MIB
    async with driver.adopt(root):
        pass
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


def pack(*extents, mapped=None):
    head = struct.pack("=QQIIII", 0, 0, 0, len(extents) if mapped is None else mapped, 512, 0)
    return head + b"".join(struct.pack("=QQQ16xI12x", at, at, length, flags) for at, length, flags in extents)


def test_extents_are_read_as_the_kernel_writes_them():
    answer = pack((0, 4096, 0x2000), (8192, 4096, 0), (16384, 100, 0x2001))
    assert parse_extents(answer) == ([(0, 4096, True), (8192, 4096, False), (16384, 100, True)], True)
    assert parse_extents(pack((0, 4096, 0))) == ([(0, 4096, False)], False)
    assert parse_extents(pack(mapped=0)) == ([], True)


def test_only_what_is_not_shared_is_the_vm_s_own(tmp_path, monkeypatch):
    """In two answers, as of a file in many pieces."""
    answers = [pack((0, 4096, 0), (4096, 4096, 0x2000)), pack((8192, 4096, 0x1))]
    starts = []

    def ioctl(descriptor, request, buffer):
        starts.append(struct.unpack_from("=Q", buffer)[0])
        answer = answers.pop(0)
        buffer[: len(answer)] = answer

    monkeypatch.setattr(clone.fcntl, "ioctl", ioctl)
    (tmp_path / "disk").touch()
    assert measure_own_bytes(tmp_path / "disk") == 8192
    assert starts == [0, 8192]


def test_where_the_file_system_does_not_tell_all_of_a_file_is_its_own(tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 10_000)
    with disk.open("rb") as file:
        os.fsync(file)
    assert measure_own_bytes(disk) >= 8192
    refuse_ioctl(monkeypatch, errno.EOPNOTSUPP)
    assert measure_own_bytes(disk) == disk.stat().st_blocks * 512
    assert measure_own_bytes(tmp_path / "gone") == 0


def test_the_numbers_are_the_kernel_s():
    assert clone._FICLONE == fcntl.FICLONE if hasattr(fcntl, "FICLONE") else 0x40049409
    assert clone._FIEMAP_EXTENT.size == 56
    assert clone._FIEMAP_HEAD.size == 32
