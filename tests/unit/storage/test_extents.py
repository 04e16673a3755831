"""Which blocks of a file are its own."""

import errno
import os
import struct

from banger.storage import extents
from banger.storage.extents import measure_own_bytes, parse_extents


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

    monkeypatch.setattr(extents.fcntl, "ioctl", ioctl)
    (tmp_path / "disk").touch()
    assert measure_own_bytes(tmp_path / "disk") == 8192
    assert starts == [0, 8192]


def test_where_the_file_system_does_not_tell_all_of_a_file_is_its_own(tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 10_000)
    with disk.open("rb") as file:
        os.fsync(file)
    assert measure_own_bytes(disk) >= 8192

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(extents.fcntl, "ioctl", refuse)
    assert measure_own_bytes(disk) == disk.stat().st_blocks * 512
    assert measure_own_bytes(tmp_path / "gone") == 0


def test_the_numbers_are_the_kernel_s():
    assert extents._FIEMAP_EXTENT.size == 56
    assert extents._FIEMAP_HEAD.size == 32
