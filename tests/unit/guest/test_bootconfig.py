"""The second archive of the initramfs, read back by a small parser of the format."""

import stat

import pytest

from banger.base.problem import Code, Problem
from banger.guest.bootconfig import BootConfig, GuestFile, render_boot_archive, render_boot_config

FULL = BootConfig(
    hostname="dev-1",
    root="root",
    work="work",
    modules="modules",
    address="10.44.0.2/24",
    gateway="10.44.0.1",
    dns=("10.44.0.1", "1.1.1.1"),
    channel=("virtio-serial:banger.agent", "vsock:52"),
    files=(
        GuestFile(path="/root/.ssh/authorized_keys", content=b"key\n", mode=0o600),
        GuestFile(path="/root/.ssh/config", content=b"", uid=1, gid=2),
        GuestFile(path="/etc/motd", content=b"hello"),
    ),
)


def unpack(archive: bytes) -> list[tuple[str, int, int, int, bytes]]:
    entries, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        _, mode, uid, gid, _, _, size, *_ = numbers
        name = archive[at + 110 : at + 110 + numbers[11] - 1].decode()
        at = (at + 110 + numbers[11] + 3) & ~3
        content = archive[at : at + size]
        at = (at + size + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        entries.append((name, mode, uid, gid, content))


def test_the_configuration_is_lines_of_key_and_value() -> None:
    assert render_boot_config(FULL).splitlines() == [
        "hostname=dev-1",
        "root=root",
        "work=work",
        "modules=modules",
        "address=10.44.0.2/24",
        "gateway=10.44.0.1",
        "dns=10.44.0.1",
        "dns=1.1.1.1",
        "channel=virtio-serial:banger.agent",
        "channel=vsock:52",
        "init=auto",
        "grow=yes",
    ]
    assert render_boot_config(BootConfig(hostname="a", root="r", grow=False)).splitlines() == [
        "hostname=a",
        "root=r",
        "channel=virtio-serial:banger.agent",
        "init=auto",
    ]


def test_the_archive_holds_parents_before_children_with_owners_and_modes() -> None:
    archive = render_boot_archive(FULL)
    assert len(archive) % 512 == 0
    entries = {name: rest for name, *rest in unpack(archive)}
    assert list(entries) == [
        "banger",
        "banger/config",
        "banger/files",
        "banger/files/root",
        "banger/files/root/.ssh",
        "banger/files/root/.ssh/authorized_keys",
        "banger/files/root/.ssh/config",
        "banger/files/etc",
        "banger/files/etc/motd",
    ]
    assert entries["banger/files/root/.ssh/authorized_keys"] == [stat.S_IFREG | 0o600, 0, 0, b"key\n"]
    assert entries["banger/files/root/.ssh/config"] == [stat.S_IFREG | 0o644, 1, 2, b""]
    assert entries["banger/files/root"][0] == stat.S_IFDIR | 0o755
    assert entries["banger/config"][3].decode() == render_boot_config(FULL)


def test_equal_configurations_give_equal_bytes() -> None:
    assert render_boot_archive(FULL) == render_boot_archive(FULL)


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "a\nroot=evil"},
        {"hostname": "-a"},
        {"hostname": "a" * 64},
        {"hostname": "ä"},
        {"root": "r\n"},
        {"root": "r" * 21},
        {"work": ""},
        {"address": "10.0.0.1"},
        {"address": "10.0.0.1/33"},
        {"address": "10.0.0.1/24\n"},
        {"gateway": "10.0.0.1/24"},
        {"gateway": "fe80::1"},
        {"dns": ("one",)},
        {"channel": ("serial:x",)},
        {"channel": ("vsock:5\n",)},
        {"init": "sbin/init"},
        {"init": "/sbin/../init"},
        {"files": (GuestFile(path="etc/x", content=b""),)},
        {"files": (GuestFile(path="/etc/../x", content=b""),)},
        {"files": (GuestFile(path="/etc//x", content=b""),)},
        {"files": (GuestFile(path="/", content=b""),)},
        {"files": (GuestFile(path="/a\nb", content=b""),)},
        {"files": (GuestFile(path="/a", content=b"", mode=0o100644),)},
        {"files": (GuestFile(path="/a", content=b""),) * 2},
        {"files": (GuestFile(path="/a", content=b""), GuestFile(path="/a/b", content=b""))},
    ],
)
def test_values_that_the_format_cannot_carry_are_refused(change) -> None:
    with pytest.raises(Problem) as caught:
        render_boot_archive(BootConfig(**({"hostname": "a", "root": "r"} | change)))
    assert caught.value.code is Code.BAD_REQUEST
    assert "\n" not in caught.value.brief
