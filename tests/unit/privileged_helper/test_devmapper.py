import errno
import struct
from typing import Any

import pytest

from banger.privileged.contract.values import Refusal
from banger.privileged.helper import devmapper as module
from banger.privileged.helper.devmapper import (
    BUFFER_FULL,
    Device,
    DeviceMapper,
    Target,
    decode_header,
    decode_names,
    decode_targets,
    encode_message,
    encode_targets,
    open_mapper,
)

# What Linux 6.1 has answered, from the data's begin.
NAMES = (
    "01fd0000000000002800000062616e6765722d30313233343536373839616200000000000000000000fd00000000000000000000"
    "62616e6765722d3031323334353637383961622d626173650000000000000000"
)
SNAPSHOT = "0000000000000000000001000000000000000000380000007" + (
    "36e617073686f74000000000000000031362f3430393630203136000000000000"
)
BASE = (
    "0000000000000000008000000000000000000000300000006c696e65617200000000000000000000000000000000000000800000"
    "00000000008000000000000000000000600000007a65726f000000000000000000000000000000000000000000000000"
)
HEADER = "040000002f000000000000009101000038010000020000000100000021000000000000000000000000fd000000000000"


def test_a_message_is_what_the_kernel_reads() -> None:
    message = encode_message(400, name="banger-x", uuid="BANGER-x", flags=1, count=2, data=b"data")
    assert len(message) == 400
    assert struct.unpack_from("<10I", message) == (4, 0, 0, 400, 312, 2, 0, 1, 0, 0)
    assert message[48:176] == b"banger-x".ljust(128, b"\0")
    assert message[176:305] == b"BANGER-x".ljust(129, b"\0")
    assert message[312:] == b"data".ljust(88, b"\0")


def test_calls_have_the_numbers_of_the_kernels_header() -> None:
    calls = [module._VERSION, module._LIST, module._LOAD, module._TABLE_STATUS, module._TARGET_VERSION]
    assert [hex(module._CALL | call) for call in calls] == [
        "0xc138fd00",
        "0xc138fd02",
        "0xc138fd09",
        "0xc138fd0c",
        "0xc138fd11",
    ]


def test_an_answers_header_comes_back() -> None:
    header = decode_header(bytes.fromhex(HEADER).ljust(312, b"\0"))
    assert header == ((4, 47, 0), 312, 2, 1, module.READ_ONLY | module.ACTIVE_TABLE, 0xFD00)


def test_a_table_is_chained_and_aligned() -> None:
    encoded = encode_targets((Target(0, 8, "linear", "7:0 0"), Target(8, 16, "zero", "")))
    first = struct.pack("<QQiI16s", 0, 8, 0, 48, b"linear") + b"7:0 0\0\0\0"
    assert encoded == first + struct.pack("<QQiI16s", 8, 16, 0, 48, b"zero") + bytes(8)


def test_the_status_of_a_table_comes_back() -> None:
    assert decode_targets(bytes.fromhex(SNAPSHOT), 1) == (Target(0, 65536, "snapshot", "16/40960 16"),)
    assert decode_targets(bytes.fromhex(BASE), 2) == (
        Target(0, 32768, "linear", ""),
        Target(32768, 32768, "zero", ""),
    )


def test_names_come_back() -> None:
    assert decode_names(bytes.fromhex(NAMES)) == ("banger-0123456789ab", "banger-0123456789ab-base")
    assert decode_names(bytes(16)) == ()


class Kernel:
    """Answers the calls of one control node. `answers` are taken in turn: an errno, or header fields and data."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.answers = list(answers)
        self.sizes: list[int] = []
        self.numbers: list[int] = []
        monkeypatch.setattr(module.fcntl, "ioctl", self._call)

    def _call(self, _: int, number: int, message: bytearray) -> int:
        self.numbers.append(number & 0xFF)
        self.sizes.append(len(message))
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, "as the kernel says")
        flags, count, data = answer
        struct.pack_into("<I", message, 20, count)
        struct.pack_into("<I", message, 28, flags)
        struct.pack_into("<Q", message, 40, 0xFD01)
        message[312 : 312 + len(data)] = data
        return 0


def test_a_device_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, (module.ACTIVE_TABLE, 1, bytes.fromhex(SNAPSHOT)), errno.ENXIO)
    mapper = DeviceMapper(-1)
    target = Target(0, 65536, "snapshot", "16/40960 16")
    assert mapper.find("BANGER-x") == Device(253, 1, 0, module.ACTIVE_TABLE, (target,))
    assert mapper.find("BANGER-x") is None


def test_udev_is_told_to_leave_what_is_on_a_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest has written it. The lower half would be a semaphore that udev counts down."""
    events = []

    def call(_: int, __: int, message: bytearray) -> int:
        events.append(*struct.unpack_from("<I", message, 32))
        return 0

    monkeypatch.setattr(module.fcntl, "ioctl", call)
    DeviceMapper(-1).resume("BANGER-x")
    assert events == [0x004E0000]


def test_a_long_list_is_asked_for_again_with_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, (BUFFER_FULL, 0, b""), (0, 0, bytes.fromhex(NAMES)))
    assert len(DeviceMapper(-1).list_names()) == 2
    assert kernel.sizes == [16384, 65536]


def test_a_list_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, *[(BUFFER_FULL, 0, b"")] * 9)
    with pytest.raises(Refusal, match="too many"):
        DeviceMapper(-1).list_names()


def test_removal_is_idempotent_and_tells_that_a_device_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, (0, 0, b""), errno.ENXIO, errno.EBUSY)
    mapper = DeviceMapper(-1)
    assert mapper.remove("BANGER-x")
    assert not mapper.remove("BANGER-x")
    with pytest.raises(OSError, match="as the kernel says") as caught:
        mapper.remove("BANGER-x")
    assert caught.value.errno == errno.EBUSY


def test_a_target_is_there_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, (0, 0, b""), errno.EINVAL, errno.EACCES)
    mapper = DeviceMapper(-1)
    assert mapper.has_target("snapshot")
    assert not mapper.has_target("snapshot")
    with pytest.raises(OSError):
        mapper.has_target("snapshot")


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOENT, "sudo modprobe dm_mod"), (errno.EPERM, "sudo banger system install")]
)
def test_a_host_without_device_mapper_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(module, "open_below", fail)
    with pytest.raises(Refusal, match="/dev/mapper/control") as refusal, open_mapper():
        pass
    assert (refusal.value.code, refusal.value.hint) == ("unavailable", hint)
