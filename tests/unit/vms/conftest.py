"""A VM service on fakes: real store, real disks in a scratch directory, a fake VMM with a fake guest."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from banger.api.vm import Posture
from banger.base.problem import not_found, unavailable
from banger.base.progress import Progress
from banger.base.tasks import Supervisor
from banger.base.units import GIB, MIB
from banger.guest.entries import Listener
from banger.guest.fake import FakeGuest
from banger.guest.sshkeys import KeyPair, make_key_pair
from banger.images.shelf import Stored
from banger.model.config import Config, LimitKeys
from banger.model.image import ImageManifest
from banger.model.kernel import KernelManifest
from banger.model.network import parse_bridge_cidr
from banger.model.sizing import HostSize
from banger.model.vm import VmRecord
from banger.network.bridge import BridgePlan
from banger.privileged.fake import FakePrivileged
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.contract import Standing
from banger.services.hostnet.service import HostNetwork
from banger.services.vms.layout import Layouts
from banger.services.vms.service import VmService
from banger.services.vms.surroundings import Surroundings
from banger.storage.choose import Storage
from banger.storage.clone import CopyDriver
from banger.storage.contract import RootDriver
from banger.storage.qcow2 import Qcow2Driver
from banger.store.sqlite import SqliteStore, open_store
from banger.vmm.fake import FAKE_INITRAMFS, FAKE_KERNEL, FakeHost, FakeVmm

SSH = Listener("tcp", "0.0.0.0", 22, 1, "sshd")


class Recorder:
    """A Progress that remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def enter(self, stage: str) -> None:
        self.stages.append(stage)

    def leave(self) -> None: ...

    def tell(self, detail: str) -> None: ...


class Shelf:
    """One image or kernel that is there; every other name is unknown."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored

    async def ensure(self, progress: Progress, name: str) -> Stored:
        return await self.get(name)

    async def get(self, name: str) -> Stored:
        if name != self.stored.manifest.name:
            raise not_found(f"there is no {name!r}", hint="banger image list")
        return self.stored


class FakeBackends:
    """One VMM for all; `driver` is that of new VMs."""

    def __init__(self, vmm: FakeVmm, driver: RootDriver) -> None:
        self.vmm = vmm
        self.driver = driver

    async def choose_driver(self, network: Standing) -> RootDriver:
        await self.vmm.capabilities()
        return self.driver

    async def choose(self, vm: VmRecord, network: Standing) -> FakeVmm:
        await self.vmm.capabilities()
        return self.vmm

    def by_name(self, name: str) -> FakeVmm:
        return self.vmm

    def list(self) -> list[FakeVmm]:
        return [self.vmm]

    def explain(self, vm: VmRecord) -> Posture:
        return Posture(
            backend="fake",
            accelerator="",
            accelerator_reason="",
            network_mode="user",
            network_reason="",
            storage_driver="",
            memory_backing="",
        )


class World(NamedTuple):
    """Everything around a service, and what tests look at."""

    root: Path
    store: SqliteStore
    vmm: FakeVmm
    guests: list[FakeGuest]
    around: Surroundings
    open: Callable[[], "asynccontextmanager"]

    def leftovers(self) -> list[str]:
        """What a VM would leave: files, sockets, processes, rows."""
        found = [str(path) for name in ("vms", "run") for path in (self.root / name).glob("*")]
        found += [f"process {handle.pid}" for handle in self.vmm.host.alive()]
        return found + [f"row {vm.name}" for vm in self.store.vms.list()]


@pytest.fixture
def root() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="bt-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def _material(root: Path) -> tuple[Shelf, Shelf]:
    images, kernels = root / "image", root / "kernel"
    images.mkdir()
    kernels.mkdir()
    for name, size in (("rootfs.ext4", 64 * MIB), ("work-seed.ext4", 64 * MIB)):
        with (images / name).open("wb") as file:
            file.truncate(size)
    (kernels / "vmlinux").write_bytes(FAKE_KERNEL)
    (kernels / "base.cpio").write_bytes(FAKE_INITRAMFS.ljust(512, b"\0"))
    image = ImageManifest(
        name="debian-bookworm",
        id="image1",
        source="test",
        recipe_digest="",
        created_at="",
        work_seed="work-seed.ext4",
        virtual_size_bytes=64 * MIB,
        size_bytes=0,
    )
    kernel = KernelManifest(
        name="debian-cloud",
        release="6.1",
        architecture="x86_64",
        source="test",
        recipe_digest="",
        created_at="",
        vmlinux_sha256="",
    )
    return Shelf(Stored(image, images)), Shelf(Stored(kernel, kernels))


def open_networks(privileged: FakePrivileged | None, tasks: Supervisor) -> HostNetwork:
    """User mode, or a bridge on the fake of root."""
    if privileged is None:
        return HostNetwork("auto", None, unavailable("no root helper is installed"), tasks)
    plan = BridgePlan("br-banger", parse_bridge_cidr("10.209.0.1/24"))
    bridge = BridgeNetwork(privileged, plan, Allowances(), pool_target=2, tasks=tasks)
    return HostNetwork("auto", bridge, None, tasks)


@pytest.fixture
def privileged() -> FakePrivileged | None:
    """None: these VMs are in user mode. Tests of the bridge override it."""
    return None


@pytest.fixture
def drivers() -> list[RootDriver]:
    """New VMs get the first."""
    return [Qcow2Driver(), CopyDriver()]


@pytest.fixture
def world(root: Path, privileged: FakePrivileged | None, drivers: list[RootDriver]) -> Iterator[World]:
    guests: list[FakeGuest] = []

    async def run_guest(reader, writer, power_off):
        guest = FakeGuest(
            root / f"guest{len(guests)}",
            on_power_off=power_off,
            on_reboot=lambda: power_off("reboot"),
        )
        guest.listeners = (SSH,)
        guests.append(guest)
        await guest.serve(reader, writer)

    vmm = FakeVmm(host=FakeHost(), guest=run_guest)
    images, kernels = _material(root)
    for name in ("vms", "run"):
        (root / name).mkdir(mode=0o700)
    store = open_store(root / "banger.db")
    key: KeyPair = make_key_pair("test")
    storage = Storage("auto", drivers)
    around = Surroundings(
        vms=store.vms,
        workspaces=store.workspaces,
        images=images,  # type: ignore[arg-type]
        kernels=kernels,  # type: ignore[arg-type]
        backends=FakeBackends(vmm, drivers[0]),
        networks=None,  # type: ignore[arg-type]  # made with the service
        storage=storage,
        privileged=privileged,
        config=Config(limits=LimitKeys(disk_overcommit=1000, memory_overcommit=100)),
        host=HostSize(cpus=4, memory_bytes=8 * GIB),
        layouts=Layouts(root / "vms", root / "run"),
        owner_key_path=root / "id_ed25519",
        owner_key=lambda: key,
    )

    @asynccontextmanager
    async def open_service() -> AsyncIterator[VmService]:
        async with Supervisor() as tasks:
            networks = open_networks(privileged, tasks)
            service = VmService(around._replace(networks=networks), tasks)
            networks.open()
            yield service
            await service.close()
            await networks.close()

    yield World(root, store, vmm, guests, around, open_service)
    store.close()


@pytest.fixture
async def vms(world: World) -> AsyncIterator[VmService]:
    async with world.open() as service:
        yield service
