"""The measuring half of `lab`: runs in there as the owner, with the daemon stopped and the root helper running.

`python -m tools.bench.lab_inside setup|boot jailed|unjailed ROUNDS DIRECTORY` prints the samples as JSON. `setup` is
P1: a VM is created by the daemon's own services, and its VMM's very last request, which would start the guest, is not
sent: what came before is the host's part. The create has failed then, and its own undo takes everything away. `boot`
is P2.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tools.bench.boot import BootBench, Material
from tools.bench.measure import interleave

from banger.api.vm import VmCreate
from banger.base.paths import ROOT_SOCKET, Paths, find_paths
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.daemon.composition import GUEST_PROGRAM
from banger.daemon.wiring import open_services
from banger.model.image import DEFAULT_IMAGE
from banger.model.kernel import DEFAULT_KERNEL
from banger.privileged.client import HelperClient
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.storage.clone import CopyDriver
from banger.storage.contract import RootDriver
from banger.storage.snapshot import SnapshotDriver
from banger.vmm.firecracker.api import Api
from banger.vmm.firecracker.backend import FirecrackerVmm
from banger.vmm.firecracker.bodies import START, Call
from banger.vmm.firecracker.jailed import Jailed
from banger.vmm.firecracker.unjailed import Unjailed

Samples = dict[str, list[Any]]
MEMORY_MIB = 256
POOL_S = 1.0  # until the pool of taps is full again, off the path
_BETWEEN = "between requests, settle"
_NAIVE = {"jailed": "snapshot", "unjailed": "copy"}


class _Reached(Exception):
    """The guest would start now."""


class _Entered(Silent):
    """When which stage began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self._entered = [("accept", self.began)]

    def enter(self, stage: str) -> None:
        self._entered.append((stage, time.perf_counter()))

    def measure(self, reached: float) -> dict[str, float]:
        """Milliseconds: each lasted until the next one began, the last until the guest would have started. One that
        came twice has the sum."""
        entered = [(name, at) for name, at in self._entered if at <= reached]  # the undo comes later
        ends = [*(at for _, at in entered[1:]), reached]
        lasted: dict[str, float] = {}
        for (name, at), end in zip(entered, ends, strict=True):
            lasted[name] = lasted.get(name, 0) + (end - at) * 1000
        lasted[_BETWEEN] = lasted.pop(_BETWEEN, 0)
        return lasted


def main() -> None:
    what, how, rounds, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    work = (
        _measure_setup(how, rounds, directory) if what == "setup" else _measure_boot(how, rounds, directory)
    )
    print(json.dumps(asyncio.run(work)))


async def _measure_setup(how: str, rounds: int, directory: Path) -> Samples:
    paths = find_paths()
    _write_material(paths, directory)
    reached: list[float] = []
    stages: list[dict[str, float]] = []
    entered = _Entered()
    request = Api.call

    async def call(api: Api, what: Call) -> None:
        if what == START:
            reached.append(time.perf_counter())
            raise _Reached
        entered.enter(f"{what.method} {what.path}")
        await request(api, what)
        entered.enter(_BETWEEN)

    Api.call = call  # type: ignore[assignment, method-assign]
    for surroundings in (Jailed, Unjailed):
        _mark_begun(surroundings, lambda: entered.enter("begun, until its API answers"))
    async with open_services(paths) as services:
        create: Any = services.handlers["vm.create"]

        async def candidate() -> float:
            nonlocal entered
            entered = _Entered()
            with suppress(_Reached):
                await create.work(VmCreate(name="bench", memory_mib=MEMORY_MIB), entered)
            stages.append(entered.measure(reached[-1]))
            await asyncio.sleep(POOL_S)
            return (reached[-1] - entered.began) * 1000

        async def reference() -> float:
            script = ("sudo", "bash", str(directory / "naive.sh"), _NAIVE[how])
            done = await asyncio.to_thread(subprocess.run, script, check=True, stdout=subprocess.PIPE)
            return float(done.stdout)

        await candidate()  # warm: what is learned of the host once, and the pool
        stages.clear()
        candidates, references = await interleave(rounds, candidate, reference)
    return {"candidate": candidates, "reference": references, "stages": stages}


def _mark_begun(surroundings: Any, mark: Callable[[], None]) -> None:
    """Whenever such a VMM's process has begun."""
    begin = surroundings.begin

    async def marked(*arguments: Any) -> Any:
        guest = await begin(*arguments)
        mark()
        return guest

    surroundings.begin = marked


async def _measure_boot(how: str, rounds: int, directory: Path) -> Samples:
    paths = find_paths()
    data = Path(paths.data)
    material = Material(
        await KernelService(data / "kernels", GUEST_PROGRAM).ensure(Silent(), DEFAULT_KERNEL),
        await ImageService(data / "images").ensure(Silent(), DEFAULT_IMAGE),
        directory / "one-line.cpio",
    )
    root = HelperClient(Path(ROOT_SOCKET))
    vmm = FirecrackerVmm(jail=root if how == "jailed" else None)
    try:
        async with Supervisor():
            snapshots = SnapshotDriver(root, None)
            driver: RootDriver = snapshots if how == "jailed" else CopyDriver()
            bench = BootBench(vmm, driver, material, directory)
            await bench.reference()  # warm: the kernel and the trial of the host
            ready, references = await interleave(rounds, bench.candidate, bench.reference)
    finally:
        await vmm.close()
        await root.close()
    return {"candidate": ready, "reference": references, "first command": bench.first_commands}


def _write_material(paths: Paths, directory: Path) -> None:
    """For the naive recipe: the same files."""
    data = Path(paths.data)
    image, kernel = data / "images" / DEFAULT_IMAGE, data / "kernels" / DEFAULT_KERNEL
    manifest = json.loads((kernel / "manifest.json").read_text())
    values = {
        "ROOTFS": image / "rootfs.ext4",
        "SEED": image / "work-seed.ext4",
        "KERNEL": kernel / "vmlinux",
        "INITRAMFS": kernel / manifest["base_initramfs"],
        "FIRECRACKER": next(Path("/usr/local/lib/banger/firecracker").glob("*/firecracker")),
        "BRIDGE": "br-banger",
    }
    (directory / "bench.env").write_text("".join(f"{key}={value}\n" for key, value in values.items()))


if __name__ == "__main__":
    main()
