import errno
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.tiers import skip_or_fail

from banger.privileged.contract.values import Refusal
from banger.privileged.helper import loop as module
from banger.privileged.helper.loop import LoopDevice, attach_loop, encode_config, verify_file, verify_loops
from banger.privileged.helper.managed import Root

ME = os.getuid()
SIZE = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "disk").write_bytes(b"disk".ljust(SIZE, b"\0"))
    descriptor = os.open(tmp_path / "disk", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_the_configuration_is_what_the_kernel_reads() -> None:
    config = encode_config(7, read_only=True)
    assert len(config) == 304
    assert struct.unpack_from("<I", config) == (7,)
    assert struct.unpack_from("<I", config, 60) == (0b101,)
    assert config.count(0) == len(config) - 2
    assert struct.unpack_from("<I", encode_config(7, read_only=False), 60) == (0b100,)


class TestFiles:
    def refuse(self, descriptor: int, *, read_only: bool = False, owner: int = ME) -> Refusal:
        with pytest.raises(Refusal) as refusal:
            verify_file(descriptor, read_only=read_only, owner=owner)
        return refusal.value

    def test_the_owners_own(self, file: int) -> None:
        assert verify_file(file, read_only=False, owner=ME) == SIZE
        assert verify_file(file, read_only=True, owner=ME) == SIZE

    def test_somebody_elses(self, file: int) -> None:
        os.fchown(file, 1234, -1) if ME == 0 else None
        refusal = self.refuse(file, owner=ME + 1)
        assert refusal.code == "unauthorized"
        assert f"uid {ME + 1}" in refusal.message

    @pytest.mark.parametrize(
        ("flags", "read_only"),
        [
            (os.O_RDONLY, False),
            (os.O_WRONLY, False),
            (os.O_WRONLY, True),
            (os.O_PATH, True),
            (os.O_PATH, False),
        ],
    )
    def test_not_open_as_needed(self, tmp_path: Path, flags: int, read_only: bool) -> None:
        (tmp_path / "disk").write_bytes(bytes(SIZE))
        descriptor = os.open(tmp_path / "disk", flags)
        assert "open for reading" in self.refuse(descriptor, read_only=read_only).message
        os.close(descriptor)

    def test_open_for_appending_only(self, tmp_path: Path) -> None:
        """The kernel's loop devices would write anywhere."""
        descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
        os.truncate(descriptor, SIZE)
        assert "appending" in self.refuse(descriptor).message
        assert verify_file(descriptor, read_only=True, owner=ME) == SIZE
        os.close(descriptor)

    def test_no_regular_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            assert "regular file" in self.refuse(descriptor, read_only=True).message
            os.close(descriptor)

    def test_an_empty_one(self, file: int) -> None:
        os.ftruncate(file, 511)
        assert "511 bytes" in self.refuse(file).message


class Kernel:
    """Free numbers in turn; `errors` by the number of the try that they hit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, errors: dict[int, int]) -> None:
        self.tries = 0
        self.open: set[int] = set()
        self.errors = errors
        monkeypatch.setattr(module, "open_below", self._open)
        monkeypatch.setattr(module.fcntl, "ioctl", self._call)
        monkeypatch.setattr(module, "_LOOP_MAJOR", 1)  # /dev/null, opened for real, stands for every node
        monkeypatch.setattr(module.stat, "S_ISBLK", lambda _: True)

    def _open(self, root: Root, parts: tuple[str], flags: int) -> int:
        assert root is Root.DEVICES
        self.name, self.flags = parts[0], flags
        descriptor = os.open("/dev/null", flags | os.O_CLOEXEC)
        self.open.add(descriptor)
        return descriptor

    def _call(self, _: int, number: int, config: Any = None) -> int:
        if number == module._LOOP_CTL_GET_FREE:
            self.tries += 1
            return self.tries
        if error := self.errors.get(self.tries):
            raise OSError(error, os.strerror(error))
        return 0

    def count_open(self) -> int:
        return sum(os.path.exists(f"/proc/self/fd/{descriptor}") for descriptor in self.open)


class TestNumbers:
    def test_one_that_another_process_took_is_let_go(
        self, monkeypatch: pytest.MonkeyPatch, file: int
    ) -> None:
        kernel = Kernel(monkeypatch, {1: errno.EBUSY, 2: errno.ENXIO})
        device = attach_loop(file, read_only=False, owner=ME)
        assert (kernel.tries, kernel.name) == (3, "loop3")
        assert kernel.count_open() == 1
        assert device.number == "1:3"  # /dev/null's
        os.close(device.descriptor)

    def test_all_of_them_taken(self, monkeypatch: pytest.MonkeyPatch, file: int) -> None:
        kernel = Kernel(monkeypatch, dict.fromkeys(range(1000), errno.EBUSY))
        with pytest.raises(Refusal, match="took every free loop device"):
            attach_loop(file, read_only=True, owner=ME)
        assert kernel.count_open() == 0

    def test_another_error_is_the_kernels(self, monkeypatch: pytest.MonkeyPatch, file: int) -> None:
        kernel = Kernel(monkeypatch, {1: errno.EIO})
        with pytest.raises(OSError):
            attach_loop(file, read_only=True, owner=ME)
        assert (kernel.tries, kernel.count_open()) == (1, 0)

    def test_an_old_kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = Kernel(monkeypatch, {1: errno.EINVAL})
        with pytest.raises(Refusal, match=r"older than 5\.8"):
            verify_loops()
        assert kernel.count_open() == 0

    def test_a_kernel_that_knows_the_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = Kernel(monkeypatch, {1: errno.EBADF})
        verify_loops()
        assert kernel.count_open() == 0

    def test_no_loop_devices(self, monkeypatch: pytest.MonkeyPatch, file: int) -> None:
        monkeypatch.setattr(module, "open_below", self.fail)
        with pytest.raises(Refusal, match="/dev/loop-control") as refusal:
            attach_loop(file, read_only=True, owner=ME)
        assert refusal.value.hint == "sudo modprobe loop"

    def fail(self, *_: object) -> int:
        raise FileNotFoundError(errno.ENOENT, "no such file")


@pytest.mark.host
class TestDevices:
    @pytest.fixture(autouse=True)
    def loops(self) -> None:
        if ME != 0 or not Path("/dev/loop-control").exists():
            skip_or_fail("there are no loop devices to try", tier="host")

    def test_it_lives_as_long_as_its_descriptor(self, file: int) -> None:
        device = attach_loop(file, read_only=False, owner=ME)
        assert self.is_on(device, file)
        os.pwrite(device.descriptor, b"new!", 0)
        os.fsync(device.descriptor)
        assert os.pread(file, 4, 0) == b"new!"
        os.close(device.descriptor)
        until = time.monotonic() + 10  # udev may have a look at it, too
        while self.is_on(device, file) and time.monotonic() < until:
            time.sleep(0.01)
        assert not self.is_on(device, file)

    def test_read_only_is_the_kernels_word(self, file: int) -> None:
        device = attach_loop(file, read_only=True, owner=ME)
        assert os.pread(device.descriptor, 4, 0) == b"disk"
        assert Path(f"/sys/dev/block/{device.number}/ro").read_text() == "1\n"
        os.close(device.descriptor)

    def test_trying_leaves_nothing_open(self) -> None:
        before = os.listdir("/proc/self/fd")
        verify_loops()
        assert os.listdir("/proc/self/fd") == before

    def is_on(self, device: LoopDevice, file: int) -> bool:
        try:
            backing = Path(f"/sys/dev/block/{device.number}/loop/backing_file").read_text().strip()
        except OSError:  # it is being detached, or is
            return False
        return backing == os.readlink(f"/proc/self/fd/{file}")
