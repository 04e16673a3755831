"""All that a test needs to start mini guests on the real Firecracker."""

import asyncio
import os
from pathlib import Path

from banger.model.machine import Machine
from banger.vmm.contract import Handle, Place
from banger.vmm.firecracker.backend import FirecrackerVmm
from banger.vmm.identity import find_start_time


class NativeBench:
    def __init__(self, root: Path, kernel: Path, program: Path) -> None:
        self.root = root
        self.program = program
        self.kernel = root / "kernel"
        self.kernel.write_bytes(kernel.read_bytes())
        self.initramfs = root / "initramfs"
        self.initramfs.write_bytes(b"070701")
        self.started: list[Handle] = []
        self.vmm = self.new_daemon()

    def new_daemon(self, program: Path | None = None) -> FirecrackerVmm:
        """A back end that knows nothing, on the same host."""
        return FirecrackerVmm(
            program=str(program or self.program), cache=self.root / "probe.json", any_kvm=True
        )

    def place(self, name: str = "a") -> Place:
        place = Place(str(self.root / name / "run"), str(self.root / name / "state"))
        for directory in place:
            Path(directory).mkdir(parents=True, exist_ok=True)
        return place

    def machine(self, name: str = "a", **changes: object) -> Machine:
        fields: dict[str, object] = {
            "id": name,
            "name": name,
            "vcpus": 1,
            "memory_mib": 64,
            "kernel": str(self.kernel),
            "initramfs": str(self.initramfs),
            "kernel_arguments": ("console=ttyS0",),
            "disks": (),
            "network": None,
            "agent_channel": "org.banger.test",
        }
        return Machine(**(fields | changes))  # type: ignore[arg-type]

    async def start(self, name: str = "a", *, tap: int | None = None, **changes: object) -> Handle:
        handle = await self.vmm.start(self.machine(name, **changes), self.place(name), tap)
        self.started.append(handle)
        return handle

    async def say(self, handle: Handle, line: bytes) -> bytes:
        reader, writer = await self.vmm.connect_agent(handle)
        writer.write(line)
        answer = await reader.readline()
        writer.close()
        return answer

    def files(self, name: str = "a") -> list[str]:
        """What is in a VM's runtime directory."""
        directory = self.root / name / "run"
        return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())

    async def end(self) -> list[int]:
        """Ends what still runs, and says what did."""
        left = [handle.pid for handle in self.started if find_start_time(handle.pid) == handle.start_time]
        for pid in left:
            os.kill(pid, 9)
        await self.vmm.close()
        await asyncio.sleep(0)
        return left
