"""Benches: one per VMM back end, each able to start a guest that echoes lines and obeys OFF."""

import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.firecracker import build_mini_guest as build_firecracker_guest
from tests.support.firecracker import need_native
from tests.support.tiers import skip_or_fail

from banger.base.process import find_tool
from banger.model.machine import Machine
from banger.vmm.contract import Handle, Place, Vmm
from banger.vmm.fake import FAKE_INITRAMFS, FAKE_KERNEL, FakeHost, FakeVmm
from banger.vmm.firecracker.backend import FirecrackerVmm
from banger.vmm.identity import find_start_time
from banger.vmm.qemu.backend import QemuVmm

MINI = Path(__file__).parents[1] / "vm" / "mini" / "build.py"


def load_mini() -> ModuleType:
    spec = importlib.util.spec_from_file_location("banger_mini_guest", MINI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def mini_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_tool("qemu-system-x86_64") is None:
        skip_or_fail("qemu-system-x86_64 is not installed", tier="vm")
    try:
        return load_mini().build_mini_guest(tmp_path_factory.mktemp("mini"))
    except FileNotFoundError as error:
        skip_or_fail(str(error), tier="vm")


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """For sockets: pytest's own directories can exceed what a socket's path may have."""
    path = Path(tempfile.mkdtemp(prefix="bt-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def children_named(name: str) -> set[int]:
    """Processes of a VMM that this test process started and that still are."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except FileNotFoundError:
        children = []
    found = set()
    for child in children:
        comm = Path(f"/proc/{child}/comm")
        if comm.exists() and comm.read_text().startswith(name) and find_start_time(int(child)):
            found.add(int(child))
    return found


class Bench:
    """A back end with all a test needs to start guests on it."""

    install_hint = "apt-get install"

    def __init__(self, root: Path, kernel: bytes | Path) -> None:
        self.root = root
        self.kernel = root / "kernel"
        self.kernel.write_bytes(kernel if isinstance(kernel, bytes) else kernel.read_bytes())
        self.initramfs = root / "initramfs"
        self.initramfs.write_bytes(FAKE_INITRAMFS)
        self.vmm: Vmm

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

    async def start(self, name: str = "a", **changes: object) -> Handle:
        return await self.vmm.start(self.machine(name, **changes), self.place(name))

    async def say(self, handle: Handle, line: bytes) -> bytes:
        reader, writer = await self.vmm.connect_agent(handle)
        writer.write(line)
        answer = await reader.readline()
        writer.close()
        return answer

    def new_daemon(self) -> Vmm:
        """A back end that knows nothing, on the same host."""
        raise NotImplementedError

    def without_vmm(self) -> Vmm:
        raise NotImplementedError

    def kill_from_outside(self, handle: Handle) -> None:
        raise NotImplementedError

    def alive(self) -> set[int]:
        raise NotImplementedError


class FakeBench(Bench):
    def __init__(self, root: Path) -> None:
        super().__init__(root, FAKE_KERNEL)
        self.host = FakeHost()
        self.vmm = FakeVmm(host=self.host)

    def new_daemon(self) -> Vmm:
        return FakeVmm(host=self.host)

    def without_vmm(self) -> Vmm:
        vmm = FakeVmm(host=self.host)
        vmm.faults.missing = True
        return vmm

    def kill_from_outside(self, handle: Handle) -> None:
        self.host.kill(handle.pid)

    def alive(self) -> set[int]:
        return {handle.pid for handle in self.host.alive()}


class QemuBench(Bench):
    def __init__(self, root: Path, kernel: Path) -> None:
        super().__init__(root, kernel)
        self.vmm = QemuVmm(cache=root / "probe.json")

    def new_daemon(self) -> Vmm:
        return QemuVmm(cache=self.root / "probe.json")

    def without_vmm(self) -> Vmm:
        return QemuVmm(qemu="/nonexistent/qemu-system-x86_64")

    def kill_from_outside(self, handle: Handle) -> None:
        os.kill(handle.pid, 9)

    def alive(self) -> set[int]:
        return children_named("qemu")


class FirecrackerBench(Bench):
    install_hint = "banger setup firecracker"

    def __init__(self, root: Path, kernel: Path, program: Path) -> None:
        super().__init__(root, kernel)
        self.program = program
        self.vmm = self.new_daemon()

    def new_daemon(self) -> Vmm:
        return FirecrackerVmm(program=str(self.program), cache=self.root / "probe.json", any_kvm=True)

    def without_vmm(self) -> Vmm:
        return FirecrackerVmm(program="/nonexistent/firecracker")

    def kill_from_outside(self, handle: Handle) -> None:
        os.kill(handle.pid, 9)

    def alive(self) -> set[int]:
        return children_named("firecracker")


@pytest.fixture(scope="session")
def firecracker() -> Path:
    return need_native().firecracker


@pytest.fixture(scope="session")
def firecracker_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_firecracker_guest(tmp_path_factory.mktemp("mini"))


def make_bench(kind: str, root: Path, request: pytest.FixtureRequest) -> Bench:
    if kind == "fake":
        return FakeBench(root)
    if kind == "qemu":
        return QemuBench(root, request.getfixturevalue("mini_guest"))
    program = request.getfixturevalue("firecracker")
    return FirecrackerBench(root, request.getfixturevalue("firecracker_guest"), program)


@pytest.fixture(
    params=[
        "fake",
        pytest.param("qemu", marks=pytest.mark.vm),
        pytest.param("firecracker", marks=pytest.mark.native),
    ]
)
async def bench(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Bench]:
    made = make_bench(request.param, short_directory, request)
    yield made
    left = made.alive()
    for pid in left:
        if request.param != "fake":
            os.kill(pid, 9)
    await made.vmm.close()
    assert not left, f"the test left {left} behind"
    sockets = [path for path in short_directory.rglob("*.sock*") if path.is_socket()]
    assert not sockets, f"the test left {sockets} behind"
