"""The newc writer against bytes that the kernel's format description dictates."""

import stat

import pytest

from banger.base.cpio import CpioEntry, render_archive


def test_an_archive_has_the_golden_bytes():
    archive = render_archive([CpioEntry("init", stat.S_IFREG | 0o755, uid=1, gid=2, content=b"hello")])
    header = b"070701" + b"00000001" + b"000081ed" + b"00000001" + b"00000002" + b"00000001" + b"00000000"
    header += b"00000005" + b"00000000" * 4 + b"00000005" + b"00000000"
    trailer = b"070701" + b"00000000" * 4 + b"00000001" + b"00000000" * 6 + b"0000000b" + b"00000000"
    expected = header + b"init\0\0" + b"hello\0\0\0" + trailer + b"TRAILER!!!\0"
    assert archive == expected.ljust(512, b"\0")


def test_an_empty_archive_is_its_trailer():
    assert render_archive([]).rstrip(b"\0").endswith(b"TRAILER!!!")


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 300, 512, 5000])
def test_every_archive_ends_on_512_bytes_so_that_another_may_follow(length: int):
    archive = render_archive([CpioEntry("x" * (1 + length % 7), stat.S_IFREG, content=bytes(length))])
    assert len(archive) % 512 == 0


def test_devices_carry_their_numbers():
    archive = render_archive([CpioEntry("c", stat.S_IFCHR | 0o600, device_major=5, device_minor=1)])
    assert archive[78:94] == b"0000000500000001"


def test_names_are_relative():
    with pytest.raises(AssertionError):
        render_archive([CpioEntry("/etc", stat.S_IFDIR)])
