"""The services, put together out of adapters that somebody else has named and opened.

Knows paths, configuration and contracts; `wiring` knows which VMM, root disk driver and store there are.
"""

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from banger import guest
from banger.api.vm import VmDetails, VmShow
from banger.base.clock import HostTime, host_now
from banger.base.paths import ROOT_PROGRAM, Paths
from banger.base.problem import Problem
from banger.base.tasks import Supervisor
from banger.daemon.backends import Backends
from banger.daemon.completion import Completion
from banger.daemon.contract import Services, VmCounts
from banger.daemon.handlers import make_handlers
from banger.daemon.judging import Judging
from banger.daemon.material_calls import MaterialCalls
from banger.daemon.root_ways import find_root_socket
from banger.guest.sshkeys import KeyPair, ensure_owner_key
from banger.images.ownership import Ownership
from banger.model.config import Config
from banger.model.sizing import HostSize
from banger.model.vm import VmRecord
from banger.pinned.catalog import DIRECTORY as PROGRAMS
from banger.privileged.contract.base import Privileged
from banger.services.access.service import AccessService
from banger.services.agents.service import AgentService
from banger.services.checks.contract import CheckSurroundings, Networks
from banger.services.checks.service import CheckService
from banger.services.contract import Perform
from banger.services.disk.service import DiskService, Places
from banger.services.hostnet.service import HostNetwork
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.services.sessions.service import SessionService
from banger.services.tooling.service import ToolingService
from banger.services.transfer.service import TransferService
from banger.services.upkeep.activity import GuestActivity
from banger.services.upkeep.service import Upkeep
from banger.services.usage.sampling import Sampler, measure_disks
from banger.services.usage.service import UsageService
from banger.services.vms.capabilities.registration import list_checks
from banger.services.vms.layout import Layouts
from banger.services.vms.service import VmService
from banger.services.vms.surroundings import Surroundings
from banger.services.workspaces.outgoing import OutgoingService
from banger.services.workspaces.service import WorkspaceService
from banger.storage.choose import Storage
from banger.store.contract import Store

GUEST_PROGRAM = Path(guest.__file__).parent / "bin" / f"banger-init-{platform.machine()}"


class Adapters(NamedTuple):
    """What services stand on. `privileged` is root for jails and disks, if there is a way to it."""

    paths: Paths
    config: Config
    backends: Backends
    storage: Storage
    privileged: Privileged | None
    ownership: Ownership


class Material(NamedTuple):
    images: ImageService
    kernels: KernelService


class Daemon:
    """All services of a daemon. `begin` first, `close` last."""

    def __init__(self, adapters: Adapters, networks: HostNetwork, store: Store, tasks: Supervisor) -> None:
        self._adapters = adapters
        self._networks = networks
        self._store = store
        self._tasks = tasks
        self._material = make_material(adapters, store.vms.list)
        self._vms = VmService(self._surroundings(), tasks)
        self._sessions = SessionService(self._vms, store.sessions, tasks)
        self._transfer = TransferService(self._vms)
        self._workspaces = WorkspaceService(
            self._vms, store.workspaces, Path(adapters.paths.state) / "workspaces", tasks
        )
        self._outgoing = OutgoingService(
            self._vms, store.workspaces, Path(adapters.paths.state) / "quarantine"
        )
        layouts, storage = _find_layouts(adapters.paths), adapters.storage
        self._usage = UsageService(
            self._vms, Sampler(self._vms, lambda vm: measure_disks(storage, layouts, vm))
        )

    async def begin(self) -> None:
        """VMs first: what runs is known before the bridge is opened for it."""
        config, tasks = self._adapters.config, self._tasks
        self._workspaces.open()
        self._outgoing.sweep()
        self._sessions.open()
        await self._vms.recover()
        self._networks.open()
        tasks.start(self._sweep(), name="sweep")
        tasks.start(self._adapters.backends.learn(), name="learn what this host can run")
        tasks.start(self._usage.poll(config.stats_poll_interval_s), name="poll stats")

    def render(self) -> Services:
        """As the server needs them."""
        images, kernels = self._material
        checks = make_checks(
            self._adapters, self._networks, self._material, self._store.vms.list, serving_since=host_now()
        )
        programs = Path(self._adapters.paths.data) / PROGRAMS
        agents = AgentService(self._vms, self._adapters.config.agents, programs)
        handlers = make_handlers(
            self._vms,
            MaterialCalls(images, kernels, default_image=self._adapters.config.default_image),
            checks,
            Completion(self._store, images, kernels, agents.names),
            self._usage,
            self._make_disk(),
            self._make_access(),
            agents,
            self._sessions,
            self._transfer,
            self._workspaces,
            self._outgoing,
            self._make_tooling(),
        )
        return Services(
            handlers=handlers,
            operations=self._store.operations,
            count_vms=lambda: VmCounts(*self._vms.count()),
            stop_vms=self._vms.stop_all,
            reconcile=self._vms.reconcile,
            judge=self._make_judging().judge,
            attend=self.attend,
            log_level=self._adapters.config.log_level,
        )

    def attend(self, perform: Perform) -> None:
        """What ends VMs by itself does so in operations."""

        def is_at_work(vm_id: str) -> bool:
            return self._vms.is_streaming(vm_id) or self._sessions.is_busy(vm_id)

        activity = GuestActivity(is_at_work, self._usage.count_connections)
        stale_after_s = self._adapters.config.auto_stop_stale_after_s
        Upkeep(self._vms, activity, self._tasks, perform, stale_after_s=stale_after_s).open()

    async def close(self) -> None:
        await self._vms.close()
        await self._networks.close()

    async def _sweep(self) -> None:
        """What interrupted builds have left behind goes away; nobody waits for it."""
        await self._material.kernels.sweep()
        await self._material.images.sweep()

    def _surroundings(self) -> Surroundings:
        adapters = self._adapters
        key_path = _find_owner_key(adapters.paths, adapters.config)

        def owner_key() -> KeyPair:
            return ensure_owner_key(key_path, "banger")

        return Surroundings(
            vms=self._store.vms,
            workspaces=self._store.workspaces,
            images=self._material.images,
            kernels=self._material.kernels,
            backends=adapters.backends,
            networks=self._networks,
            storage=adapters.storage,
            privileged=adapters.privileged,
            config=adapters.config,
            host=measure_host(),
            layouts=_find_layouts(adapters.paths),
            owner_key_path=key_path,
            owner_key=owner_key,
        )

    def _make_access(self) -> AccessService:
        key_path = _find_owner_key(self._adapters.paths, self._adapters.config)
        return AccessService(key_path, lambda: ensure_owner_key(key_path, "banger"))

    def _make_tooling(self) -> ToolingService:
        adapters, layouts = self._adapters, _find_layouts(self._adapters.paths)
        return ToolingService(
            self._vms,
            self._store.workspaces,
            adapters.config.tooling,
            Path(adapters.paths.data) / PROGRAMS,
            lambda vm_id: layouts.of(vm_id).log("tooling"),
        )

    def _make_disk(self) -> DiskService:
        paths, vms = self._adapters.paths, self._vms
        data = Path(paths.data)
        places = Places(data / "images", data / "kernels", Path(paths.state))
        return DiskService(
            places, _find_layouts(paths), self._adapters.storage, vms.list_rows, vms.measure_claim
        )

    def _make_judging(self) -> Judging:
        async def describe(vm: VmRecord) -> VmDetails:
            return self._vms.show(VmShow(vm=vm.id))

        images, kernels = self._material
        return Judging(self._vms.list_rows, self._vms.is_changing, describe, images.show, kernels.show)


def make_material(adapters: Adapters, list_rows: Callable[[], Sequence[VmRecord]]) -> Material:
    """What VMs use of images and kernels their rows know, and nobody deletes."""
    data = Path(adapters.paths.data)
    images = ImageService(
        data / "images",
        users_of=lambda build: [vm.name for vm in list_rows() if Path(vm.image_directory).name == build],
        ownership=adapters.ownership,
    )
    kernels = KernelService(
        data / "kernels",
        GUEST_PROGRAM,
        users_of=lambda build: [vm.name for vm in list_rows() if vm.spec.kernel == build.partition("@")[0]],
    )
    return Material(images, kernels)


def make_checks(
    adapters: Adapters,
    networks: Networks,
    material: Material,
    list_rows: Callable[[], Sequence[VmRecord]],
    *,
    serving_since: HostTime | None = None,
    config_is_known: bool = True,
) -> CheckService:
    """Without a moment since which it serves it is a doctor's who looks while no daemon runs."""
    paths, config, backends = adapters.paths, adapters.config, adapters.backends

    async def list_damaged() -> Sequence[Problem]:
        return [*await material.images.list_damaged(), *await material.kernels.list_damaged()]

    around = CheckSurroundings(
        paths=paths,
        config=config,
        host=measure_host(),
        try_vmm=backends.try_vmm,
        try_accelerator=backends.try_accelerator,
        images=Path(paths.data) / "images",
        kernels=Path(paths.data) / "kernels",
        guest_program=GUEST_PROGRAM,
        ownership=adapters.ownership,
        networks=networks,
        privileged=adapters.privileged,
        storage=adapters.storage,
        choose_storage=backends.choose_storage,
        try_firecracker=backends.try_firecracker,
        root_socket=find_root_socket(),
        root_program=Path(ROOT_PROGRAM),
        list_rows=list_rows,
        list_damaged=list_damaged,
        owner_key=_find_owner_key(paths, config),
        other_config_files=(Path("~/.config/banger/config.toml").expanduser(),),
        serving_since=serving_since,
        config_is_known=config_is_known,
    )
    return CheckService(around, list_checks(config))


def measure_host() -> HostSize:
    return HostSize(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def _find_layouts(paths: Paths) -> Layouts:
    return Layouts(Path(paths.state) / "vms", Path(paths.runtime) / "vms")


def _find_owner_key(paths: Paths, config: Config) -> Path:
    return Path(config.ssh_key_path or f"{paths.data}/ssh/id_ed25519").expanduser()
