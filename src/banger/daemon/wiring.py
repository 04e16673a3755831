"""Puts the daemon together: the only module that names a concrete VMM, storage driver or store.

Opens store, back ends and services in order, and closes them in reverse.
"""

import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from banger import guest
from banger.base.files import ensure_private_directory
from banger.base.paths import ROOT_PROGRAM, Paths
from banger.base.problem import Problem, bad_request, unavailable
from banger.base.tasks import Supervisor
from banger.daemon.backends import Backends, Candidate, Trial
from banger.daemon.completion import Completion
from banger.daemon.contract import OperationHandler, Services, VmCounts
from banger.daemon.material_calls import MaterialCalls
from banger.daemon.root_ways import WaysToRoot, find_root_socket
from banger.guest.sshkeys import KeyPair, ensure_owner_key
from banger.images.ownership import Ownership
from banger.model.config import Config, parse_config
from banger.model.machine import DiskFormat
from banger.model.network import parse_bridge_cidr
from banger.model.sizing import HostSize
from banger.network.bridge import BridgePlan
from banger.privileged.contract.base import Privileged
from banger.services.checks.contract import CheckSurroundings
from banger.services.checks.service import CheckService
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.service import HostNetwork
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.services.vms.layout import Layouts
from banger.services.vms.lifecycle import Surroundings
from banger.services.vms.service import VmService
from banger.storage.choose import Storage
from banger.storage.clone import CopyDriver, ReflinkDriver
from banger.storage.qcow2 import Qcow2Driver
from banger.storage.snapshot import SnapshotDriver
from banger.store.contract import Store
from banger.store.sqlite import open_store
from banger.vmm.firecracker.backend import FirecrackerVmm
from banger.vmm.qemu.backend import QemuVmm

GUEST_PROGRAM = Path(guest.__file__).parent / "bin" / f"banger-init-{platform.machine()}"


def read_config(paths: Paths) -> Config:
    """The configuration file's, or all defaults when there is none."""
    file = Path(paths.config_file)
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise bad_request(f"{file} cannot be read: {error}", hint=f"ls -l {file}") from error
    return parse_config(text, file=str(file))


def measure_host() -> HostSize:
    return HostSize(
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


async def _sweep(images: ImageService, kernels: KernelService) -> None:
    """What interrupted builds have left behind goes away; nobody waits for it."""
    await kernels.sweep()
    await images.sweep()


@asynccontextmanager
async def open_services(paths: Paths) -> AsyncIterator[Services]:
    """Raises Problem for a bad configuration or a damaged database; nothing has been begun then."""
    config = read_config(paths)
    for directory in (Path(paths.data), Path(paths.cache), Path(paths.state) / "vms"):
        ensure_private_directory(directory)
    store = open_store(Path(paths.database))
    root = WaysToRoot()
    machines = root.find()
    firecracker, qemu = _make_vmms(paths, config, machines)
    try:
        async with Supervisor() as tasks:
            networks = open_networks(config, root, tasks)
            storage = open_storage(paths, config, machines, tasks)
            candidates = (_describe_firecracker(firecracker, config, machines), _describe_qemu(qemu))
            backends = Backends(config.vmm, candidates, storage, networks)
            ownership = Ownership(root.map_ids)
            stores = _make_stores(paths, store, ownership)
            images, kernels = stores.images, stores.kernels
            vms = VmService(
                _vm_surroundings(paths, config, stores, backends, networks, storage, machines), tasks
            )
            checks = CheckService(
                _check_surroundings(paths, config, backends, networks, storage, machines, ownership)
            )
            try:
                await vms.recover()
                networks.open()
                tasks.start(_sweep(images, kernels), name="sweep")
                tasks.start(backends.learn(), name="learn what this host can run")
                yield Services(
                    handlers=_handlers(
                        vms,
                        MaterialCalls(images, kernels, default_image=config.default_image),
                        checks,
                        Completion(store, images, kernels),
                    ),
                    operations=store.operations,
                    count_vms=lambda: VmCounts(*vms.count()),
                    stop_vms=vms.stop_all,
                    log_level=config.log_level,
                )
            finally:
                await vms.close()
                await networks.close()
    finally:
        await firecracker.close()
        await qemu.close()
        await root.close()
        store.close()


def open_networks(config: Config, root: WaysToRoot, tasks: Supervisor) -> HostNetwork:
    """By the helper where there is one, as root without, else in user mode. Opens nothing yet."""
    privileged = None if config.network == "user" else root.find()
    if privileged is None:
        return HostNetwork(config.network, None, _explain_absence(config), tasks)
    bridge = BridgeNetwork(
        privileged,
        BridgePlan(config.bridge_name, parse_bridge_cidr(config.bridge_cidr)),
        Allowances(config.allow_networks, config.allow_host_ports, config.allow_guests),
        pool_target=config.tap_pool_size,
        tasks=tasks,
    )
    return HostNetwork(config.network, bridge, None, tasks)


def open_storage(paths: Paths, config: Config, privileged: Privileged | None, tasks: Supervisor) -> Storage:
    return Storage(
        config.storage_driver,
        (
            SnapshotDriver(privileged, config.snapshot_limit_bytes, tasks),
            Qcow2Driver(),
            ReflinkDriver(Path(paths.data), Path(paths.state) / "vms"),
            CopyDriver(),
        ),
    )


def _make_vmms(paths: Paths, config: Config, privileged: Privileged | None) -> tuple[FirecrackerVmm, QemuVmm]:
    cache = Path(paths.cache)
    firecracker = FirecrackerVmm(
        program=config.firecracker_bin,
        directory=Path(paths.data) / "firecracker",
        cache=cache / "firecracker-verdict.json",
        jail=privileged,
        unjailed=not config.jailer_enabled,
    )
    return firecracker, QemuVmm(cache=cache / "kvm-verdict.json", qemu=config.qemu_bin)


def _describe_qemu(qemu: QemuVmm) -> Candidate:
    async def probe() -> Trial:
        verdict = await qemu.probe()
        return Trial(f"QEMU {verdict.qemu_version} at {verdict.qemu}", verdict.kvm_reason)

    return Candidate(qemu, "QEMU", frozenset({DiskFormat.RAW, DiskFormat.QCOW2}), "", probe)


def _describe_firecracker(
    firecracker: FirecrackerVmm, config: Config, privileged: Privileged | None
) -> Candidate:
    async def probe() -> Trial:
        verdict = await firecracker.probe()
        program = f"Firecracker {verdict.firecracker_version} at {verdict.firecracker}"
        return Trial(program, verdict.kvm_reason)

    unjailed = ""
    if not config.jailer_enabled:
        unjailed = "the configuration says jailer_enabled = false"
    elif privileged is None:
        unjailed = "no root helper is installed"
    formats = frozenset({DiskFormat.RAW, DiskFormat.SNAPSHOT})
    return Candidate(firecracker, "Firecracker", formats, unjailed, probe)


def _explain_absence(config: Config) -> Problem:
    if config.network == "user":
        return unavailable('the configuration says network = "user"')
    return unavailable("no root helper is installed", hint="sudo banger system install")


class _Stores(NamedTuple):
    """What is kept on disk."""

    store: Store
    images: ImageService
    kernels: KernelService


def _make_stores(paths: Paths, store: Store, ownership: Ownership) -> _Stores:
    """What a VM uses of images and kernels the store knows, and nobody deletes."""
    kernels = KernelService(
        Path(paths.data) / "kernels",
        GUEST_PROGRAM,
        users_of=lambda kernel: [vm.name for vm in store.vms.list() if vm.spec.kernel == kernel.name],
    )
    images = ImageService(
        Path(paths.data) / "images",
        users_of=lambda image: [vm.name for vm in store.vms.list() if vm.image_id == image.id],
        ownership=ownership,
    )
    return _Stores(store, images, kernels)


def _vm_surroundings(
    paths: Paths,
    config: Config,
    stores: _Stores,
    backends: Backends,
    networks: HostNetwork,
    storage: Storage,
    privileged: Privileged | None,
) -> Surroundings:
    key_path = Path(config.ssh_key_path or f"{paths.data}/ssh/id_ed25519").expanduser()

    def owner_key() -> KeyPair:
        return ensure_owner_key(key_path, "banger")

    return Surroundings(
        vms=stores.store.vms,
        images=stores.images,
        kernels=stores.kernels,
        backends=backends,
        networks=networks,
        storage=storage,
        privileged=privileged,
        config=config,
        host=measure_host(),
        layouts=Layouts(Path(paths.state) / "vms", Path(paths.runtime) / "vms"),
        owner_key_path=key_path,
        owner_key=owner_key,
    )


def _check_surroundings(
    paths: Paths,
    config: Config,
    backends: Backends,
    networks: HostNetwork,
    storage: Storage,
    privileged: Privileged | None,
    ownership: Ownership,
) -> CheckSurroundings:
    return CheckSurroundings(
        paths=paths,
        config=config,
        host=measure_host(),
        try_vmm=backends.try_vmm,
        try_accelerator=backends.try_accelerator,
        images=Path(paths.data) / "images",
        kernels=Path(paths.data) / "kernels",
        guest_program=GUEST_PROGRAM,
        ownership=ownership,
        networks=networks,
        privileged=privileged,
        storage=storage,
        choose_storage=backends.choose_storage,
        try_firecracker=backends.try_firecracker,
        root_socket=find_root_socket(),
        root_program=Path(ROOT_PROGRAM),
    )


def _handlers(
    vms: VmService,
    material: MaterialCalls,
    checks: CheckService,
    completion: Completion,
) -> dict[str, Any]:
    return {
        "vm.list": vms.list_vms,
        "vm.show": vms.show,
        "vm.logs": vms.logs,
        "vm.create": OperationHandler(vms.create, vms.subject_of_create),
        "vm.start": OperationHandler(vms.start, vms.subject),
        "vm.stop": OperationHandler(vms.stop, vms.subject),
        "vm.restart": OperationHandler(vms.restart, vms.subject),
        "vm.kill": OperationHandler(vms.kill, vms.subject),
        "vm.delete": OperationHandler(vms.delete, vms.subject),
        "vm.set": vms.set,
        "vm.publish": vms.publish,
        "vm.unpublish": vms.unpublish,
        "vm.prune": vms.prune,
        "vm.ssh": vms.ssh,
        "vm.exec": vms.execute,
        "image.list": material.list_images,
        "image.show": material.show_image,
        "image.build": OperationHandler(material.build_image, material.subject_of_build),
        "image.delete": material.delete_image,
        "kernel.list": material.list_kernels,
        "kernel.show": material.show_kernel,
        "kernel.pull": OperationHandler(material.pull_kernel, lambda request: request.kernel),
        "kernel.delete": material.delete_kernel,
        "doctor.run": checks.run,
        "complete": completion.complete,
    }
