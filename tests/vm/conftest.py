"""Raw boots for the vm tier: the material that guests are made of, and a guest on QEMU without a daemon."""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from banger.base.cpio import CpioEntry, render_archive
from banger.base.process import find_tool
from banger.guest.agent import Agent
from banger.guest.bootconfig import BootConfig, render_boot_archive
from banger.guest.link import Link
from banger.model.machine import Disk, DiskFormat, Machine, UserNetwork
from banger.network.user import DNS, GATEWAY, GUEST_ADDRESS, PREFIX_LENGTH
from banger.vmm.contract import Handle, Place
from banger.vmm.overlay import create_overlay
from banger.vmm.qemu.backend import QemuVmm

REPOSITORY = Path(__file__).parents[2]
CHANNEL = "banger.agent"
BOOT_DEADLINE_S = 120
KERNEL_ARGUMENTS = ("console=ttyS0", "quiet", "panic=-1", "cryptomgr.notests", "random.trust_cpu=on")


def skip_or_fail(reason: str) -> None:
    """A missing need skips, and fails where CI names the tier as required."""
    if "vm" in os.environ.get("BANGER_REQUIRED_TIERS", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def material() -> Path:
    """The directory with vmlinux, base.cpio and rootfs.ext4: BANGER_TEST_MATERIAL, else build/material."""
    directory = Path(os.environ.get("BANGER_TEST_MATERIAL", REPOSITORY / "build" / "material"))
    for name in ("vmlinux", "base.cpio", "rootfs.ext4"):
        if not (directory / name).exists():
            skip_or_fail(f"{directory / name} is missing: run make material")
    if find_tool("qemu-system-x86_64") is None:
        skip_or_fail("qemu-system-x86_64 is not installed")
    return directory


@pytest.fixture(scope="session")
def guest_program() -> Path:
    program = Path(os.environ.get("BANGER_TEST_INIT", REPOSITORY / "build/guest/banger-init-x86_64"))
    if not program.exists():
        skip_or_fail(f"{program} is missing: run make guest-program")
    return program


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
