"""All that a test needs to start mini guests on the real Firecracker in real jails."""

from pathlib import Path

from tests.native.bench import NativeBench
from tests.support.jails import JailingRoot

from banger.model.machine import Machine
from banger.vmm.contract import Place
from banger.vmm.firecracker.backend import FirecrackerVmm

IDS = {"a": "a00000000001", "b": "b00000000002"}


class JailedBench(NativeBench):
    def __init__(self, root: Path, kernel: Path, way: JailingRoot) -> None:
        self.way = way
        super().__init__(root, kernel, Path("/nonexistent/firecracker"))

    def new_daemon(self, program: Path | None = None) -> FirecrackerVmm:
        return FirecrackerVmm(cache=self.root / "probe.json", jail=self.way, any_kvm=True)

    def place(self, name: str = "a") -> Place:
        place = Place(str(self.root / "run" / IDS[name]), str(self.root / "state" / IDS[name]))
        for directory in place:
            Path(directory).mkdir(parents=True, exist_ok=True)
        return place

    def machine(self, name: str = "a", **changes: object) -> Machine:
        return super().machine(name, **({"id": IDS[name]} | changes))

    def state(self, name: str = "a") -> Path:
        return Path(self.place(name).state)

    async def end(self) -> list[int]:
        left = await super().end()
        await self.way.close()
        return left
