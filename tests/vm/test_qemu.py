"""Real Linux guests on QEMU: the devices, the clock and the network that the command line promises."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from banger.base.cpio import CpioEntry, render_archive
from banger.base.problem import Code, Outcome, Problem
from banger.guest.agent import Agent
from banger.guest.bootconfig import BootConfig, render_boot_archive
from banger.guest.link import Link
from banger.model.machine import Disk, DiskFormat, Machine, PortForward, UserNetwork
from banger.network.ports import find_port, hold_port
from banger.network.user import DNS, GATEWAY, GUEST_ADDRESS, LOOPBACK, PREFIX_LENGTH, plan_user_network
from banger.storage.qcow2 import create_overlay
from banger.vmm.contract import Handle, Place
from banger.vmm.logs import read_tail
from banger.vmm.qemu.backend import QemuVmm

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

GUEST_PORT = 7777
LATE_PORT = 7788
SERVE_ONCE = f"""
import socket
s = socket.create_server(("0.0.0.0", {GUEST_PORT})); print("up", flush=True)
while True:
    c, _ = s.accept(); c.sendall(b"from inside"); c.close()
"""
REACH = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); print(s.recv(20).decode())
except OSError as e:
    print("unreachable", type(e).__name__)
"""
ASK_DNS = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
s.sendto(bytes.fromhex("123401000001000000000000076578616d706c6503636f6d0000010001"), (sys.argv[1], 53))
try:
    print("answer", len(s.recv(512)))
except OSError as e:
    print("unreachable", type(e).__name__)
"""


CHANNEL = "banger.agent"
BOOT_DEADLINE_S = 120
KERNEL_ARGUMENTS = ("console=ttyS0", "quiet", "panic=-1", "cryptomgr.notests", "random.trust_cpu=on")


class RawGuest(NamedTuple):
    """A booted guest with its agent, and the parts it was made of."""

    vmm: QemuVmm
    handle: Handle
    place: Place
    agent: Agent
    overlay: Path


BootRaw = Callable[..., AbstractAsyncContextManager[RawGuest]]


@pytest.fixture(scope="session")
def boot_raw(material: Path, guest_program: Path) -> BootRaw:
    """`async with boot_raw(network=…, vcpus=…) as guest`: a guest of its own, resident, gone afterwards."""

    @asynccontextmanager
    async def boot(network: UserNetwork | None = None, vcpus: int = 1) -> AsyncIterator[RawGuest]:
        directory = Path(tempfile.mkdtemp(prefix="bt-", dir="/tmp"))
        place = Place(str(directory / "run"), str(directory / "state"))
        for part in place:
            Path(part).mkdir(mode=0o700)
        overlay, initramfs = directory / "state/root.qcow2", directory / "state/initramfs"
        create_overlay(overlay, material / "rootfs.ext4")
        _write_initramfs(initramfs, material, guest_program, network)
        machine = Machine(
            id="raw",
            name="raw",
            vcpus=vcpus,
            memory_mib=256,
            kernel=str(material / "vmlinux"),
            initramfs=str(initramfs),
            kernel_arguments=KERNEL_ARGUMENTS,
            disks=(Disk(serial="root", path=str(overlay), format=DiskFormat.QCOW2),),
            network=network,
            agent_channel=CHANNEL,
        )
        vmm = QemuVmm()
        handle = await vmm.start(machine, place)
        try:
            async with asyncio.timeout(BOOT_DEADLINE_S):
                link = await Link.open(*await vmm.connect_agent(handle))
            async with link:
                yield RawGuest(vmm, handle, place, Agent(link), overlay)
        finally:
            await vmm.kill(handle)
            await vmm.close()
            shutil.rmtree(directory)

    return boot


def _write_initramfs(path: Path, material: Path, program: Path, network: UserNetwork | None) -> None:
    config = BootConfig(
        hostname="raw",
        root="root",
        address=f"{GUEST_ADDRESS}/{PREFIX_LENGTH}" if network else None,
        gateway=GATEWAY if network else None,
        dns=(DNS,) if network else (),
        channel=(f"virtio-serial:{CHANNEL}",),
        init="none",
    )
    init = render_archive([CpioEntry("init", stat.S_IFREG | 0o755, content=program.read_bytes())])
    path.write_bytes((material / "base.cpio").read_bytes() + init + render_boot_archive(config))


def plan(*, nat: bool):
    port = find_port()
    forward = PortForward(host_address=LOOPBACK, host_port=port, guest_port=GUEST_PORT)
    return plan_user_network("vm", nat=nat, ssh_port=find_port(port + 1), published=(forward,)), port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(boot_raw) -> AsyncIterator[object]:
    """One restricted guest for the whole module."""
    network, port = plan(nat=False)
    async with boot_raw(network=network) as booted:
        yield booted, port


async def run(agent, *argv: str) -> str:
    async with asyncio.timeout(60):
        result = await agent.run(argv)
    assert result.exit.status == 0, result
    return result.stdout.decode().strip()


async def test_disks_are_found_by_their_serials(guest):
    booted, _ = guest
    found = await run(booted.agent, "sh", "-c", "cat /sys/block/vd*/serial")
    assert found.split() == ["root"]


async def test_the_overlay_takes_the_writes_and_stays_sound(guest, material):
    booted, _ = guest
    before = (material / "rootfs.ext4").stat()
    written = "head -c 8000000 /dev/urandom > /big && sync && rm /big && fstrim / 2>&1; true"
    await run(booted.agent, "sh", "-c", written)
    after = (material / "rootfs.ext4").stat()
    assert (before.st_mtime_ns, before.st_blocks) == (after.st_mtime_ns, after.st_blocks)
    subprocess.run(["qemu-img", "check", "-U", "-q", str(booted.overlay)], check=True)


async def test_the_guest_clock_runs_as_fast_as_ours(guest):
    booted, _ = guest

    async def look() -> tuple[float, float, float]:
        """The guest's clock, and ours before and after: its answer takes what it takes."""
        before = time.monotonic()
        inside_ns = await booted.agent.clock()
        return before, inside_ns / 1e9, time.monotonic()

    first, first_inside, first_end = await look()
    await asyncio.sleep(3)
    second, second_inside, second_end = await look()
    assert second - first_end - 0.1 < second_inside - first_inside < second_end - first + 0.1


async def test_a_restricted_guest_is_reached_and_reaches_nothing(guest):
    booted, port = guest
    server = await asyncio.start_server(lambda _, writer: writer.close(), LOOPBACK, 0)
    host_port = server.sockets[0].getsockname()[1]
    served = asyncio.ensure_future(booted.agent.run(("python3", "-c", SERVE_ONCE)))
    try:
        assert await booted.agent.wait_port(GUEST_PORT, timeout_s=30)
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        assert await reader.read() == b"from inside"
        writer.close()
        answer = await run(booted.agent, "python3", "-c", REACH, GATEWAY, str(host_port))
        assert answer.startswith("unreachable")
        assert (await run(booted.agent, "python3", "-c", ASK_DNS, DNS)).startswith("unreachable")
    finally:
        served.cancel()
        server.close()


async def test_a_running_guest_gets_and_loses_a_forward(guest):
    booted, _ = guest
    forward = PortForward(host_address=LOOPBACK, host_port=find_port(), guest_port=LATE_PORT)
    vmm, handle = booted.vmm, booted.handle

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, forward.host_port)
        answer = await reader.read()
        writer.close()
        return answer

    serve = SERVE_ONCE.replace(str(GUEST_PORT), str(LATE_PORT))
    served = asyncio.ensure_future(booted.agent.run(("python3", "-c", serve)))
    try:
        assert await booted.agent.wait_port(LATE_PORT, timeout_s=30)
        with pytest.raises(ConnectionRefusedError):
            await ask()
        await vmm.add_forward(handle, forward)
        assert await ask() == b"from inside"
        with pytest.raises(Problem) as caught:
            await vmm.add_forward(handle, forward)
        assert (caught.value.code, caught.value.outcome) == (Code.CONFLICT, Outcome.NOT_STARTED)
        assert str(forward.host_port) in caught.value.brief
        assert await ask() == b"from inside"
        await vmm.remove_forward(handle, forward)
        with pytest.raises(ConnectionRefusedError):
            await ask()
        await vmm.remove_forward(handle, forward)
        await vmm.add_forward(handle, forward)
        assert await ask() == b"from inside"
        await vmm.remove_forward(handle, forward)
    finally:
        served.cancel()


async def test_a_running_guest_gets_and_loses_a_udp_port(guest):
    booted, _ = guest
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    forward = PortForward(host_address=LOOPBACK, host_port=port, guest_port=LATE_PORT, protocol="udp")
    await booted.vmm.add_forward(booted.handle, forward)
    with pytest.raises(Problem, match="is taken"):
        hold_port(forward)
    await booted.vmm.remove_forward(booted.handle, forward)
    hold_port(forward).close()


async def test_the_memory_is_a_file_without_a_name_that_a_snapshot_can_name(guest, tmp_path):
    booted, _ = guest
    descriptors = Path(f"/proc/{booted.handle.pid}/fd")
    memory = [d for d in descriptors.iterdir() if os.readlink(d).startswith(booted.handle.memory + "/#")]
    assert memory
    name = Path(booted.handle.memory) / f"banger-test-{os.getpid()}"
    directory = os.open(descriptors, os.O_RDONLY)  # only with one does Python follow the link (linkat(2))
    os.link(memory[0].name, name, src_dir_fd=directory, follow_symlinks=True)
    os.close(directory)
    assert name.stat().st_size == 256 * 1024 * 1024
    name.unlink()


async def test_two_cpus_and_nat_let_the_guest_out(boot_raw):
    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"from outside")
        writer.close()

    server = await asyncio.start_server(greet, LOOPBACK, 0)
    network, _ = plan(nat=True)
    async with boot_raw(network=network, vcpus=2) as booted:
        assert await run(booted.agent, "nproc") == "2"
        port = str(server.sockets[0].getsockname()[1])
        assert await run(booted.agent, "python3", "-c", REACH, GATEWAY, port) == "from outside"
        await booted.agent.power_off()
        ended = await booted.vmm.stop(booted.handle, deadline_s=30)
        assert (ended.clean, ended.reason) == (True, "power-off")
        subprocess.run(["qemu-img", "check", "-q", str(booted.overlay)], check=True)
    server.close()


async def test_a_taken_port_is_a_conflict_that_may_be_tried_again(material, tmp_path):
    server = await asyncio.start_server(lambda _, writer: writer.close(), LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    machine = Machine(
        id="taken",
        name="taken",
        vcpus=1,
        memory_mib=128,
        kernel=str(material / "vmlinux"),
        initramfs=str(material / "base.cpio"),
        kernel_arguments=(),
        disks=(),
        network=plan_user_network("taken", nat=False, ssh_port=port),
        agent_channel="banger.agent",
    )
    vmm = QemuVmm()
    with pytest.raises(Problem) as caught:
        await vmm.start(machine, Place(str(tmp_path), str(tmp_path)))
    server.close()
    assert (caught.value.code, caught.value.outcome) == (Code.CONFLICT, Outcome.NOT_STARTED)
    assert str(port) in caught.value.brief
    assert not list(tmp_path.glob("*.sock"))


async def test_a_disk_that_qemu_refuses_is_told_in_its_words(material, tmp_path):
    disk = tmp_path / "a,b.qcow2"
    disk.write_bytes(b"not a qcow2" * 100)
    machine = Machine(
        id="bad",
        name="bad",
        vcpus=1,
        memory_mib=128,
        kernel=str(material / "vmlinux"),
        initramfs=str(material / "base.cpio"),
        kernel_arguments=(),
        disks=(Disk(serial="root", path=str(disk), format=DiskFormat.QCOW2),),
        network=None,
        agent_channel="banger.agent",
    )
    with pytest.raises(Problem) as caught:
        await QemuVmm().start(machine, Place(str(tmp_path), str(tmp_path)))
    assert caught.value.code is Code.OPERATION_FAILED
    assert "not in qcow2 format" in (caught.value.detail or "")
    assert read_tail(tmp_path / "vmm.log")
