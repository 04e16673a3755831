"""P2: cold boot to agent-ready, against the same kernel with a one-line init on the same machine.

Both are started by the same back end with the same devices. The reference's init writes one word to the
console; the bench sees it within a millisecond.
"""

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from tools.bench.measure import Result, compare, interleave

from banger.base.cpio import CpioEntry, render_archive
from banger.base.files import clone_sparse
from banger.daemon.wiring import GUEST_PROGRAM
from banger.guest.agent import Agent
from banger.guest.bootconfig import render_boot_archive
from banger.guest.link import Link
from banger.guest.sshkeys import make_key_pair
from banger.model.image import ImageManifest
from banger.model.kernel import KernelManifest
from banger.model.machine import Machine
from banger.model.vm import VmRecord, VmSpec, VmState
from banger.services.hostnet.contract import Wish
from banger.services.hostnet.user import lease_user
from banger.services.vms.layout import Layout
from banger.services.vms.plan import GuestKeys, compose_boot_config, compose_machine
from banger.vmm.contract import Vmm
from banger.vmm.overlay import create_overlay

ROUNDS = 21
MEMORY_MIB = 256
DEADLINE_S = 120
_INIT = 'int write(int,const void*,unsigned long);int pause(void);int main(void){write(1,"READY\\n",6);for(;;)pause();}'


class BootBench:
    def __init__(
        self, vmm: Vmm, kernel: tuple[KernelManifest, Path], image: tuple[ImageManifest, Path], work: Path
    ) -> None:
        self._vmm = vmm
        self._kernel, self._kernel_directory = kernel
        self._image, self._image_directory = image
        self._work = work
        self._one_line_init = _build_one_line_init(work)
        self._number = 0
        self.first_commands: list[float] = []

    async def candidate(self) -> float:
        """Seconds to WELCOME. The end of a first command, which waits for files and network, is kept aside."""
        machine, layout = self._prepare()
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
        machine, layout = self._prepare()
        machine = msgspec.structs.replace(machine, initramfs=str(self._one_line_init))
        began = time.perf_counter()
        handle = await self._vmm.start(machine, layout.place)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while b"READY" not in layout.log("serial").read_bytes():  # noqa: ASYNC110 (a file has no event)
                    await asyncio.sleep(0.001)
            return time.perf_counter() - began
        finally:
            await self._vmm.kill(handle)

    def _prepare(self) -> tuple[Machine, Layout]:
        """Fresh disks for every boot; making them is not measured."""
        self._number += 1
        layout = Layout(self._work / f"vm{self._number}", self._work / f"run{self._number}")
        layout.state.mkdir()
        layout.ensure_runtime()
        vm = _record(self._image.work_seed is not None)
        create_overlay(layout.root_disk, self._image_directory / self._image.rootfs)
        if self._image.work_seed is not None:
            clone_sparse(self._image_directory / self._image.work_seed, layout.work_disk)
        key = make_key_pair("bench")
        lease = lease_user(Wish(vm_id=vm.id, name=vm.name, nat=False, publish=()))
        guest = compose_boot_config(vm, self._kernel, lease, GuestKeys(key.private, key.public, key.public))
        base = (self._kernel_directory / self._kernel.base_initramfs).read_bytes()
        layout.initramfs.write_bytes(base + render_boot_archive(guest))
        return compose_machine(vm, layout, self._kernel, self._kernel_directory, lease.network), layout


def _record(has_work_disk: bool) -> VmRecord:
    spec = VmSpec(
        image="", kernel="", vcpus=1, memory_mib=MEMORY_MIB, disk_size_bytes=0, system_overlay_size_bytes=0
    )
    return VmRecord(
        id="bench0000000",
        name="bench",
        spec=spec,
        state=VmState.CREATED,
        created_at="",
        updated_at="",
        last_touched_at="",
        has_work_disk=has_work_disk,
    )


def _build_one_line_init(work: Path) -> Path:
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
    assert GUEST_PROGRAM.exists()
    with tempfile.TemporaryDirectory(prefix="bb") as work:
        bench = BootBench(vmm, kernel, image, Path(work))
        ready, references = await interleave(rounds, bench.candidate, bench.reference)
    what = "cold boot to agent-ready / one-line init"
    first = "cold boot to the end of a first command / one-line init"
    return [
        compare("P2", what, ready, references, unit="s", at_most=1.15),
        compare("P2-exec", first, bench.first_commands, references, unit="s", at_most=1.5),
    ]
