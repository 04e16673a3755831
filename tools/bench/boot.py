"""P2: cold boot to agent-ready, against the same kernel with a one-line init on the same machine.

Both are started by the same back end with the same devices. The reference's init writes one word to the
console; the bench waits for it as an event, because whoever looks again and again takes the guest's time.
"""

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from tools.bench.measure import Result, compare, interleave

from banger.base.cpio import CpioEntry, render_archive
from banger.base.files import clone_sparse
from banger.guest.agent import Agent
from banger.guest.bootconfig import render_boot_archive
from banger.guest.link import Link
from banger.guest.sshkeys import make_key_pair
from banger.images.shelf import Stored
from banger.model.image import ImageManifest
from banger.model.kernel import KernelManifest
from banger.model.machine import Disk, Machine
from banger.model.vm import NetworkMode, VmRecord, VmSpec, VmState
from banger.services.hostnet.contract import Wish
from banger.services.hostnet.user import lease_user
from banger.services.vms.capabilities.agent import AgentChannel
from banger.services.vms.capabilities.dns import Dns
from banger.services.vms.capabilities.ssh import Ssh
from banger.services.vms.capabilities.work_disk import WorkDisk
from banger.services.vms.holds import Start
from banger.services.vms.layout import Layout, Layouts
from banger.services.vms.plan import compose_boot_config, compose_machine
from banger.storage.contract import Root, RootDriver
from banger.storage.qcow2 import Qcow2Driver
from banger.vmm.contract import Capability, Vmm
from banger.vmm.firecracker.inotify import MODIFIED, add_watch, open_inotify, read_events

ROUNDS = 21
MEMORY_MIB = 256
DEADLINE_S = 120
_WORD = b"READY"
_INIT = 'int write(int,const void*,unsigned long);int pause(void);int main(void){write(1,"READY\\n",6);for(;;)pause();}'


class Material(NamedTuple):
    """What boots. `one_line_init` is an initramfs of `build_one_line_init`."""

    kernel: tuple[KernelManifest, Path]
    image: tuple[ImageManifest, Path]
    one_line_init: Path


class _Boot(NamedTuple):
    machine: Machine
    layout: Layout


class BootBench:
    def __init__(self, vmm: Vmm, driver: RootDriver, material: Material, work: Path) -> None:
        self._vmm = vmm
        self._driver = driver
        self._kernel, self._kernel_directory = material.kernel
        self._image, self._image_directory = material.image
        self._one_line_init = material.one_line_init
        self._work = work
        self._number = 0
        self.first_commands: list[float] = []

    async def candidate(self) -> float:
        """Seconds to WELCOME. The end of a first command, which waits for files and network, is kept aside."""
        async with self._prepare() as (machine, layout):
            began = time.perf_counter()
            handle = await self._vmm.start(machine, layout.place)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    async with await Link.open(*await self._vmm.connect_agent(handle)) as link:
                        ready = time.perf_counter() - began
                        assert (await Agent(link).run(["/bin/true"])).status == 0
                        self.first_commands.append(time.perf_counter() - began)
                return ready
            finally:
                await self._vmm.kill(handle)

    async def reference(self) -> float:
        async with self._prepare() as (machine, layout):
            machine = msgspec.structs.replace(machine, initramfs=str(self._one_line_init))
            began = time.perf_counter()
            handle = await self._vmm.start(machine, layout.place)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await _wait_word(layout.log("serial"))
                return time.perf_counter() - began
            finally:
                await self._vmm.kill(handle)

    @asynccontextmanager
    async def _prepare(self) -> AsyncIterator[_Boot]:
        """Fresh disks for every boot, of a VM of its own; making them is not measured."""
        self._number += 1
        vm = _record(f"be0c{self._number:08x}", has_work_disk=self._image.work_seed is not None)
        layout = Layout(self._work / "state" / vm.id, self._work / "run" / vm.id)
        layout.state.mkdir(parents=True)
        layout.ensure_runtime()
        image = self._image_directory / self._image.rootfs
        root = Root(vm.id, vm.name, image, layout.state, image.stat().st_size)
        self._driver.create(root)
        if self._image.work_seed is not None:
            clone_sparse(self._image_directory / self._image.work_seed, layout.work_disk)
        disk = await self._driver.attach(root)
        try:
            yield _Boot(await self._compose(vm, layout, disk), layout)
        finally:
            await self._driver.release(vm.id)
        layout.remove()

    async def _compose(self, vm: VmRecord, layout: Layout, root: Disk) -> Machine:
        """Where the VMM does not speak for its guest, the guest has no network."""
        key = make_key_pair("bench")
        capabilities = (
            AgentChannel(),
            WorkDisk(Layouts(layout.state, layout.runtime)),
            Dns(),
            Ssh(lambda: key),
        )
        capabilities[-1].prepare(vm, layout, self._image)
        start = Start(vm, self._vmm, Stored(self._kernel, self._kernel_directory), NetworkMode.USER)
        start.root = root
        start.lease = lease_user(Wish(vm_id=vm.id, name=vm.name, nat=False, publish=()))
        start.machine = machine = compose_machine(start, layout, capabilities)
        guest = compose_boot_config(start, layout, capabilities)
        if Capability.USER_NETWORK not in await self._vmm.capabilities():
            machine = msgspec.structs.replace(machine, network=None)
            guest = msgspec.structs.replace(guest, address=None, gateway=None, dns=())
        base = (self._kernel_directory / self._kernel.base_initramfs).read_bytes()
        layout.initramfs.write_bytes(base + render_boot_archive(guest))
        return machine


async def _wait_word(log: Path) -> None:
    loop, news, descriptor = asyncio.get_running_loop(), asyncio.Event(), open_inotify()
    try:
        add_watch(descriptor, log, MODIFIED)
        loop.add_reader(descriptor, news.set)
        while _WORD not in log.read_bytes():
            await news.wait()
            news.clear()
            read_events(descriptor)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _record(vm_id: str, *, has_work_disk: bool) -> VmRecord:
    spec = VmSpec(
        image="", kernel="", vcpus=1, memory_mib=MEMORY_MIB, disk_size_bytes=0, system_overlay_size_bytes=0
    )
    return VmRecord(
        id=vm_id,
        name="bench",
        spec=spec,
        state=VmState.CREATED,
        created_at="",
        updated_at="",
        last_touched_at="",
        has_work_disk=has_work_disk,
    )


def build_one_line_init(work: Path) -> Path:
    """An initramfs in `work`."""
    source, program, archive = work / "init.c", work / "init", work / "one-line.cpio"
    source.write_text(_INIT)
    target = f"{os.uname().machine}-linux-musl"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            target,
            "-static",
            "-Os",
            "-s",
            "-o",
            program,
            source,
        ],
        check=True,
    )
    archive.write_bytes(
        render_archive(
            [
                CpioEntry("dev", stat.S_IFDIR | 0o755),
                CpioEntry("dev/console", stat.S_IFCHR | 0o600, device_major=5, device_minor=1),
                CpioEntry("init", stat.S_IFREG | 0o755, content=program.read_bytes()),
            ]
        )
    )
    return archive


async def run(
    vmm: Vmm, kernel: tuple[KernelManifest, Path], image: tuple[ImageManifest, Path], rounds: int = ROUNDS
) -> list[Result]:
    """On QEMU, with overlays."""
    with tempfile.TemporaryDirectory(prefix="bb") as work:
        material = Material(kernel, image, build_one_line_init(Path(work)))
        bench = BootBench(vmm, Qcow2Driver(), material, Path(work))
        ready, references = await interleave(rounds, bench.candidate, bench.reference)
    what = "cold boot to agent-ready / one-line init"
    first = "cold boot to the end of a first command / one-line init"
    return [
        compare("P2", what, ready, references, unit="s", at_most=1.15),
        compare("P2-exec", first, bench.first_commands, references, unit="s", at_most=1.5),
    ]
