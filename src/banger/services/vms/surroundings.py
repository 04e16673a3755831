"""What VMs are made with: adapters come in here and nowhere else."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from banger.api.vm import Posture
from banger.base.clock import Entropy
from banger.guest.sshkeys import KeyPair
from banger.model.config import Config
from banger.model.sizing import HostSize
from banger.model.vm import VmRecord
from banger.privileged.contract.base import Privileged
from banger.services.hostnet.contract import Standing
from banger.services.hostnet.service import HostNetwork
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.services.vms.layout import Layouts
from banger.storage.choose import Storage
from banger.storage.contract import RootDriver
from banger.store.contract import VmRepository, WorkspaceRepository
from banger.vmm.contract import Vmm


class Backends(Protocol):
    """Which VMM boots a VM here and what its root disk is, and what there is to say about it."""

    async def choose_driver(self, network: Standing) -> RootDriver:
        """Of a new VM's root disk. Raises `unavailable` where no VMM could run it."""

    async def choose(self, vm: VmRecord, network: Standing) -> Vmm:
        """One that can read the VM's root disk and be on this network. Raises `unavailable`."""

    def by_name(self, name: str) -> Vmm: ...

    def list(self) -> Sequence[Vmm]:
        """All of them, whatever this host can run."""

    def explain(self, vm: VmRecord) -> Posture: ...


class Surroundings(NamedTuple):
    """`privileged` is the way to root, if any."""

    vms: VmRepository
    workspaces: WorkspaceRepository
    images: ImageService
    kernels: KernelService
    backends: Backends
    networks: HostNetwork
    storage: Storage
    privileged: Privileged | None
    config: Config
    host: HostSize
    layouts: Layouts
    owner_key_path: Path
    owner_key: Callable[[], KeyPair]
    entropy: Entropy = Entropy()
