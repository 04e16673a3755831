"""The fake's jails, by the requests that a daemon makes."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from banger.base.problem import Code, Problem
from banger.privileged.contract.machines import (
    FILE,
    SNAPSHOT,
    EnterJail,
    Jail,
    LaunchVmm,
    ListJails,
    RemoveJail,
    SettleVmm,
)
from banger.privileged.contract.network import CreateTaps, EnsureBridge
from banger.privileged.contract.processes import SignalVmm
from banger.privileged.fake import FakePrivileged
from banger.privileged.helper.jail_place import uid_of

VM = "0123456789ab"


@pytest.fixture
async def root() -> AsyncIterator[FakePrivileged]:
    fake = FakePrivileged()
    yield fake
    await fake.call(RemoveJail(vm=VM))
    await fake.close()


@contextmanager
def opened(tmp_path: Path, disks: int = 0) -> Iterator[list[int]]:
    files = []
    for name in ("kernel", "initramfs", "console", *(f"disk{index}" for index in range(disks))):
        (tmp_path / name).write_bytes(bytes(4096))
        files.append(os.open(tmp_path / name, os.O_RDWR))
    try:
        yield files
    finally:
        for file in files:
            os.close(file)


async def launch(root: FakePrivileged, tmp_path: Path, *disks: str):
    with opened(tmp_path, sum(disk != SNAPSHOT for disk in disks)) as files:
        reply = await root.call(LaunchVmm(vm=VM, memory_mib=64, disks=disks), files)
    return reply.result, reply.descriptors[0]


async def refused(call) -> Code:
    with pytest.raises(Problem) as caught:
        await call
    return caught.value.code


async def test_a_vmm_lives_in_its_jail_until_it_is_removed(root, tmp_path) -> None:
    launched, sockets = await launch(root, tmp_path, FILE)
    (root.jails.jails[VM].directory / "api.sock").touch()
    assert os.listdir(sockets) == ["api.sock"]
    reply = await root.call(EnterJail(vm=VM))
    expected = Jail(vm=VM, pid=launched.pid, start_time=launched.start_time, uid=uid_of(VM))
    assert (reply.result, os.listdir(reply.descriptors[0])) == (expected, ["api.sock"])
    assert (await root.call(ListJails())).result.jails == (expected,)
    await root.call(SettleVmm(vm=VM, tap=""))
    assert root.jails.jails[VM].settled
    await root.call(SignalVmm(pid=launched.pid, start_time=launched.start_time, signal=9))
    assert root.signals == [(launched.pid, 9)]
    ended = []
    root.jails.end = ended.append
    await root.call(RemoveJail(vm=VM))
    assert ended == [launched.pid]
    assert os.listdir(sockets) == []
    assert (await root.call(ListJails())).result.jails == ()
    os.close(sockets)
    os.close(reply.descriptors[0])


async def test_a_living_vmm_is_refused_another_and_a_dead_one_is_replaced(root, tmp_path) -> None:
    _, first = await launch(root, tmp_path)
    assert await refused(launch(root, tmp_path)) is Code.CONFLICT
    root.jails.die(VM)
    assert [jail.pid for jail in (await root.call(ListJails())).result.jails] == [0]
    assert await refused(root.call(SettleVmm(vm=VM, tap=""))) is Code.NOT_FOUND
    _, second = await launch(root, tmp_path)
    os.close(first)
    os.close(second)


async def test_what_the_helper_refuses_is_refused(root, tmp_path) -> None:
    for request in (EnterJail(vm=VM), SettleVmm(vm=VM, tap="")):
        assert await refused(root.call(request)) is Code.NOT_FOUND
    assert await refused(launch(root, tmp_path, SNAPSHOT)) is Code.NOT_FOUND
    with opened(tmp_path) as files:
        request = LaunchVmm(vm=VM, memory_mib=64, disks=(FILE,))
        assert await refused(root.call(request, files)) is Code.BAD_REQUEST
    assert root.jails.jails == {}


async def test_a_tap_that_was_lent_comes_back(root, tmp_path) -> None:
    await root.call(EnsureBridge(bridge="br-banger", address="10.209.0.1/24"))
    reply = await root.call(CreateTaps(bridge="br-banger", count=1))
    (tap,) = reply.result.taps
    _, sockets = await launch(root, tmp_path)
    settled = await root.call(SettleVmm(vm=VM, tap=tap.name))
    os.close(reply.descriptors[0])
    await root.call(ListJails())
    assert tap.name in root.taps
    os.close(settled.descriptors[0])
    assert await refused(root.call(SettleVmm(vm=VM, tap=tap.name))) is Code.NOT_FOUND
    os.close(sockets)
