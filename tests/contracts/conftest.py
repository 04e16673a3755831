"""Benches: one per VMM back end, each able to start a guest that echoes lines and obeys OFF.

`BANGER_CONFORMANCE` names one (`qemu-kvm`, `firecracker`, `firecracker-jailed`) that this host really has, for a run on
a host where only pytest, pytest-asyncio, the package and these tests are: nothing is fetched or skipped then. It may
bring what would be built or found otherwise: `BANGER_CONFORMANCE_GUEST`, the mini guest's kernel, and
`BANGER_CONFORMANCE_FIRECRACKER`, the program of an unjailed Firecracker. In a jail the root helper's is used, by the
helper's socket, or as root without one.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.firecracker import build_mini_guest as build_firecracker_guest
from tests.support.firecracker import need_native
from tests.support.jails import make_jailing_root
from tests.support.tiers import skip_or_fail

from banger.base.process import find_tool
from banger.model.machine import Machine
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.machines import ListJails, RemoveJail
from banger.vmm.contract import Handle, Place, Vmm
from banger.vmm.fake import FAKE_INITRAMFS, FAKE_KERNEL, FakeHost, FakeVmm
from banger.vmm.firecracker.backend import FirecrackerVmm
from banger.vmm.identity import find_start_time
from banger.vmm.qemu.argv import Accelerator
from banger.vmm.qemu.backend import QemuVmm

MINI = Path(__file__).parents[1] / "vm" / "mini" / "build.py"
ONLY = os.environ.get("BANGER_CONFORMANCE", "")
_SIGKILL = 9


def load_mini() -> ModuleType:
    spec = importlib.util.spec_from_file_location("banger_mini_guest", MINI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def mini_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("BANGER_CONFORMANCE_GUEST"):
        return Path(given)
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


def id_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


class Bench:
    """A back end with all a test needs to start guests on it."""

    install_hint = "apt-get install"
    ended_from_outside = "ended by SIGKILL"

    def __init__(self, root: Path, kernel: bytes | Path) -> None:
        self.root = root
        self.kernel = root / "kernel"
        self.kernel.write_bytes(kernel if isinstance(kernel, bytes) else kernel.read_bytes())
        self.initramfs = root / "initramfs"
        self.initramfs.write_bytes(FAKE_INITRAMFS)
        self.vmm: Vmm

    def place(self, name: str = "a") -> Place:
        """As the daemon has it: the runtime directory is named by the VM's id."""
        place = Place(str(self.root / "run" / id_of(name)), str(self.root / "state" / id_of(name)))
        for directory in place:
            Path(directory).mkdir(parents=True, exist_ok=True)
        return place

    def machine(self, name: str = "a", **changes: object) -> Machine:
        fields: dict[str, object] = {
            "id": id_of(name),
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

    def litter(self, handle: Handle) -> Path:
        """A socket that a VMM has left which is gone."""
        socket = Path(handle.agent_socket)
        socket.parent.mkdir(exist_ok=True)
        socket.touch()
        return socket

    async def end(self) -> set[int]:
        """Ends what still runs, and says what did."""
        left = self.alive()
        for pid in left:
            os.kill(pid, _SIGKILL)
        await self.vmm.close()
        return left


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

    async def end(self) -> set[int]:
        return self.alive()


class QemuBench(Bench):
    def __init__(self, root: Path, kernel: Path, accelerator: Accelerator | None = None) -> None:
        super().__init__(root, kernel)
        self.accelerator = accelerator
        self.vmm = self.new_daemon()

    def new_daemon(self) -> Vmm:
        return QemuVmm(cache=self.root / "probe.json", accelerator=self.accelerator)

    def without_vmm(self) -> Vmm:
        return QemuVmm(qemu="/nonexistent/qemu-system-x86_64")

    def kill_from_outside(self, handle: Handle) -> None:
        os.kill(handle.pid, 9)

    def alive(self) -> set[int]:
        return children_named("qemu")


class FirecrackerBench(Bench):
    install_hint = "ls -l /nonexistent/firecracker"

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


class JailBench(Bench):
    """Firecracker in jails, by whatever way this process is root."""

    install_hint = "ls -l /nonexistent/firecracker"
    ended_from_outside = "ended by a signal"  # root's child, not ours: nobody tells which

    def __init__(self, root: Path, kernel: Path, way: Privileged) -> None:
        super().__init__(root, kernel)
        self.way = way
        self.started: list[Handle] = []
        self.vmm = self.new_daemon()

    def new_daemon(self) -> Vmm:
        return FirecrackerVmm(cache=self.root / "probe.json", jail=self.way, any_kvm=True)

    def without_vmm(self) -> Vmm:
        return FirecrackerVmm(program="/nonexistent/firecracker")

    async def start(self, name: str = "a", **changes: object) -> Handle:
        self.started.append(await super().start(name, **changes))
        return self.started[-1]

    def kill_from_outside(self, handle: Handle) -> None:
        kill_by_any_means(handle.pid)

    def alive(self) -> set[int]:
        return {handle.pid for handle in self.started if find_start_time(handle.pid) == handle.start_time}

    def litter(self, handle: Handle) -> Path:
        return Path("/nonexistent/socket")

    async def end(self) -> set[int]:
        await self.vmm.close()
        ours = {handle.jail for handle in self.started}
        jails = [jail for jail in (await self.way.call(ListJails())).result.jails if jail.vm in ours]
        for jail in jails:
            await self.way.call(RemoveJail(vm=jail.vm))
        await self.way.close()
        return {jail.pid for jail in jails}


def kill_by_any_means(pid: int) -> None:
    """A jailed VMM has another uid than an ordinary user that runs this; the lab's users may use sudo."""
    try:
        os.kill(pid, _SIGKILL)
    except PermissionError:
        subprocess.run(("sudo", "-n", "kill", "-KILL", str(pid)), check=True)


@pytest.fixture(scope="session")
def firecracker() -> Path:
    if given := os.environ.get("BANGER_CONFORMANCE_FIRECRACKER"):
        return Path(given)
    return need_native().firecracker


@pytest.fixture(scope="session")
def firecracker_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("BANGER_CONFORMANCE_GUEST"):
        return Path(given)
    return build_firecracker_guest(tmp_path_factory.mktemp("mini"))


def make_bench(kind: str, root: Path, request: pytest.FixtureRequest) -> Bench:
    if kind == "fake":
        return FakeBench(root)
    if kind == "qemu":
        return QemuBench(root, request.getfixturevalue("mini_guest"))
    if kind == "qemu-kvm":
        return QemuBench(root, request.getfixturevalue("mini_guest"), Accelerator.KVM)
    guest = request.getfixturevalue("firecracker_guest")
    if kind == "firecracker-jailed":
        return JailBench(root, guest, request.getfixturevalue("jailing_root"))
    return FirecrackerBench(root, guest, request.getfixturevalue("firecracker"))


@pytest.fixture
def jailing_root(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Privileged:
    return make_jailing_root(short_directory, monkeypatch, installed=bool(ONLY))


TIERS = {
    "fake": (),
    "qemu": (pytest.mark.vm,),
    "firecracker": (pytest.mark.native,),
    "firecracker-jailed": (pytest.mark.native,),
}


@pytest.fixture(
    params=[ONLY] if ONLY else [pytest.param(kind, marks=marks) for kind, marks in TIERS.items()],
)
async def bench(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Bench]:
    made = make_bench(request.param, short_directory, request)
    yield made
    left = await made.end()
    assert not left, f"the test left {left} behind"
    sockets = [path for path in short_directory.rglob("*.sock*") if path.is_socket()]
    assert not sockets, f"the test left {sockets} behind"
