"""The back end with real jails: it reaches its VMMs by descriptors only, and nothing that fails leaves one."""

import asyncio
import os
import stat
import struct
from pathlib import Path

import pytest
from tests.native.jailed import IDS, JailedBench
from tests.support.jails import JailingRoot
from tests.support.tiers import skip_or_fail

from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.model.machine import Disk, DiskFormat
from banger.privileged.helper.jail_place import uid_of
from banger.vmm.contract import Capability, Liveness
from banger.vmm.firecracker import agent_stream, configure, consoles, guest, jailed
from banger.vmm.identity import find_start_time

VM = IDS["a"]


@pytest.fixture
async def bench(firecracker, mini_kernel, short_directory, monkeypatch):
    if os.getuid() != 0:
        skip_or_fail("jails need root", tier="native")
    made = JailedBench(short_directory, mini_kernel, JailingRoot(short_directory, monkeypatch))
    await made.vmm.capabilities()
    before = len(os.listdir("/proc/self/fd"))
    yield made
    running, jails = [handle for handle in made.started if is_alive(handle)], made.way.left
    await made.vmm.close()
    after = len(os.listdir("/proc/self/fd"))
    await made.end()
    assert (running, jails) == ([], [])
    assert after <= before + 1  # the lock


def is_alive(handle) -> bool:
    return find_start_time(handle.pid) == handle.start_time


def uids(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return set(next(line for line in lines if line.startswith("Uid:")).split()[1:])


async def test_a_jailed_guest_answers_by_names_that_only_a_descriptor_leads_to(bench, monkeypatch):
    monkeypatch.setattr(agent_stream, "ATTEMPT_S", 60.0)
    assert {Capability.JAIL, Capability.SNAPSHOT_DISKS} <= await bench.vmm.capabilities()
    handle = await bench.start()
    assert (handle.jail, handle.agent_socket, handle.control_socket) == (VM, "agent.sock", "api.sock")
    assert uids(handle.pid) == {str(uid_of(VM))}
    async with asyncio.timeout(20):  # it had knocked
        assert await bench.say(handle, b"hello\n") == b"hello\n"
    assert os.listdir(bench.place().runtime) == []
    assert bench.way.calls == ["inspect_machines", "launch_vmm", "settle_vmm"]
    assert (await bench.vmm.metrics(handle))["vsock"]["rx_packets_count"] > 0
    await bench.vmm.kill(handle)
    assert bench.way.left == []
    log = bench.state() / "vmm.log"
    assert "Running Firecracker" in log.read_text()
    assert {stat.S_IMODE(path.stat().st_mode) for path in bench.state().iterdir()} == {0o600}


async def test_disks_are_what_was_asked_for_and_settling_takes_their_names_away(bench):
    paths = []
    for name in ("first", "second"):
        paths.append(bench.root / f"{name}.img")
        paths[-1].write_bytes(f"{name}\n".encode().ljust(1 << 20, b"\0"))
    disks = (Disk(serial="root", path=str(paths[0])), Disk(serial="w-1", path=str(paths[1]), read_only=True))
    handle = await bench.start(disks=disks)
    assert not {"disk0", "disk1"} & set(os.listdir(f"/proc/{handle.pid}/root"))
    assert await bench.say(handle, b"READ 0\n") == b"first\n"
    assert await bench.say(handle, b"WRITE 0 changed\n") == b"WRITE 0 changed\n"
    assert await bench.say(handle, b"READ 1\n") == b"second\n"
    assert await bench.say(handle, b"WRITE 1 changed\n") == b"failed\n"
    await bench.vmm.kill(handle)
    assert paths[0].read_bytes().startswith(b"changed\n")


@pytest.mark.parametrize(
    ("word", "clean", "reason"),
    [
        (b"OFF\n", True, "power-off"),
        (b"HALT\n", True, "power-off"),
        (b"REBOOT\n", True, "reboot"),
        (b"PANIC\n", False, "kernel panic: mini guest was told to"),
        (b"FAULT\n", False, "the guest crashed"),
    ],
)
@pytest.mark.parametrize("adopted", [False, True])
async def test_how_a_jailed_guest_ended_is_known(bench, word, clean, reason, adopted):
    handle = await bench.start()
    vmm = bench.vmm
    if adopted:
        await bench.vmm.close()
        bench.way.forget()
        vmm = bench.new_daemon()
        assert await vmm.adopt(handle) is Liveness.RUNNING
    _, writer = await vmm.connect_agent(handle)
    writer.write(word)
    ended = await vmm.wait_exit(handle)
    writer.close()
    assert (ended.clean, ended.reason.startswith(reason)) == (clean, True), ended
    assert bench.way.left == []
    await vmm.close()


async def test_what_died_while_no_daemon_was_there_is_gone_with_its_jail_and_its_words_are_kept(bench):
    handle = await bench.start()
    await bench.vmm.close()
    os.kill(handle.pid, 9)
    bench.vmm = bench.new_daemon()
    while is_alive(handle):
        await asyncio.sleep(0.01)
    assert await bench.vmm.adopt(handle) is Liveness.GONE
    assert bench.way.left == []
    assert "Running Firecracker" in (bench.state() / "vmm.log").read_text()
    assert not (await bench.vmm.kill(handle)).clean


async def test_another_that_lives_in_the_jail_by_now_is_not_taken_for_the_one_of_an_old_handle(bench):
    old = await bench.start()
    await bench.vmm.kill(old)
    handle = await bench.start()
    daemon = bench.new_daemon()
    assert await daemon.adopt(old) is Liveness.GONE
    await daemon.kill(old)
    assert await bench.say(handle, b"hello\n") == b"hello\n"
    await bench.vmm.kill(handle)


async def test_a_vm_that_runs_is_not_started_again_and_stays_as_it_is(bench):
    handle = await bench.start()
    with pytest.raises(Problem, match="runs already") as caught:
        await bench.start()
    assert caught.value.code is Code.CONFLICT
    assert await bench.say(handle, b"hello\n") == b"hello\n"
    await bench.vmm.kill(handle)


STEPS = {
    "root says no": (None, "launch_vmm"),
    "root is gone in the middle": (None, "launch_vmm?"),
    "no knock": (jailed, "Knock"),
    "no socket": (None, "_wait_socket"),
    "no configuration": (configure, "_attach"),
    "root does not settle": (None, "settle_vmm"),
    "no inotify": (consoles, "open_inotify"),
    "a kernel that cannot be loaded": (None, "kernel"),
    "it dies": (guest, "die"),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_start_that_fails_leaves_nothing(bench, monkeypatch, step):
    def fail(*_args, **_more):
        raise unavailable("as told")

    module, name = STEPS[step]
    if step.startswith("root"):
        outcome = Outcome.UNKNOWN if name.endswith("?") else Outcome.NOT_STARTED
        bench.way.failures[name.rstrip("?")] = Problem(Code.UNAVAILABLE, "as told", outcome=outcome)
    elif name == "kernel":
        whole = bytearray(bench.kernel.read_bytes())
        struct.pack_into("<Q", whole, 64 + 24, 1 << 40)
        bench.kernel.write_bytes(whole)
    elif name == "die":
        monkeypatch.setattr("banger.vmm.firecracker.launch.configure", die)
    elif name == "_wait_socket":
        monkeypatch.setattr("banger.vmm.firecracker.launch._wait_socket", fail)
    elif name == "_attach":
        monkeypatch.setattr("banger.vmm.firecracker.launch.configure", fail)
    else:
        monkeypatch.setattr(module, name, fail)
    with pytest.raises(Problem) as caught:
        await bench.start()
    assert caught.value.brief in {
        "as told",
        "Firecracker ended before the guest began",
    } or caught.value.brief.startswith("Firecracker refuses PUT /actions")
    assert bench.way.left == []
    assert "inspect_machines" in bench.way.calls


async def die(watched, *_):
    os.kill(watched.handle.pid, 9)
    await asyncio.wait((watched.gone,))
    await watched.api.get("/")


async def test_a_jailer_that_ends_at_once_is_quoted(bench):
    """As where the cgroup cannot be made: its words are on the console."""
    jailer = Path(bench.way.support.firecracker).with_name("jailer")
    jailer.unlink()
    jailer.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo v1.12.1 && exit\necho "no luck today" >&2; exit 3\n'
    )
    jailer.chmod(0o755)
    with pytest.raises(Problem) as caught:
        await bench.start()
    assert caught.value.brief == "Firecracker ended before the guest began"
    assert "no luck today" in (caught.value.detail or "")
    assert bench.way.left == []


async def test_a_start_cancelled_while_root_works_leaves_nothing(bench):
    for steps in (1, 2, 3, 5, 8, 13):
        starting = asyncio.ensure_future(bench.start())
        while "launch_vmm" not in bench.way.calls:
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0.001)
        starting.cancel()
        await asyncio.wait((starting,))
        assert starting.cancelled()
        assert bench.way.left == []
        bench.way.calls.clear()


async def test_a_daemon_without_a_way_to_root_says_why_it_cannot_adopt(bench, firecracker):
    handle = await bench.start()
    daemon = bench_without_jail(bench, firecracker)
    with pytest.raises(Problem, match="no way to root") as caught:
        await daemon.adopt(handle)
    assert caught.value.code is Code.UNAVAILABLE
    await daemon.close()
    await bench.vmm.kill(handle)


def bench_without_jail(bench, program):
    from banger.vmm.firecracker.backend import FirecrackerVmm

    return FirecrackerVmm(program=str(program), any_kvm=True)


async def test_an_unjailed_guest_from_before_is_adopted_and_ended(bench, firecracker):
    before = bench_without_jail(bench, firecracker)
    handle = await before.start(bench.machine(), bench.place())
    await before.close()
    assert await bench.vmm.adopt(handle) is Liveness.RUNNING
    assert (await bench.vmm.kill(handle)).reason == "killed"
    assert os.listdir(bench.place().runtime) == []


async def test_a_snapshot_that_is_not_attached_is_roots_to_refuse(bench):
    disk = Disk(serial="root", path="banger-a", format=DiskFormat.SNAPSHOT)
    with pytest.raises(Problem) as caught:
        await bench.start(disks=(disk,))
    assert caught.value.outcome is Outcome.NOT_STARTED
    assert bench.way.left == []


async def test_links_that_a_vmm_leaves_in_place_of_its_sockets_are_not_followed(bench):
    """What a Firecracker could do that its guest has broken into."""
    handle = await bench.start()
    await bench.say(handle, b"hello\n")
    secret = bench.root / "secret"
    secret.write_text("of the owner's")
    sockets = Path(f"/proc/{handle.pid}/root/s")
    for name in ("agent.sock", "vmm.log"):
        (sockets / name).unlink()
        (sockets / name).symlink_to(secret)
    connecting = asyncio.ensure_future(bench.vmm.connect_agent(handle))
    with pytest.raises(Problem):
        await asyncio.wait_for(connecting, 5)
    await bench.vmm.kill(handle)
    assert not (bench.state() / "vmm.log").exists()
    assert secret.read_text() == "of the owner's"
