"""Names and opens what there is to stand on: the only module that knows a concrete VMM, storage driver or store.

Opens store, VMMs and ways to root in order, has the services composed of them, and closes all in reverse.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from banger.base.files import ensure_private_directory
from banger.base.paths import Paths
from banger.base.problem import Problem, bad_request, unavailable
from banger.base.tasks import Supervisor
from banger.daemon.backends import Backends, Candidate, Networks, Trial
from banger.daemon.composition import Adapters, Daemon
from banger.daemon.contract import Services
from banger.daemon.root_ways import WaysToRoot
from banger.daemon.startup import verify_socket_room
from banger.images.ownership import Ownership
from banger.model.config import Config, parse_config
from banger.model.machine import DiskFormat
from banger.model.network import parse_bridge_cidr
from banger.network.bridge import BridgePlan
from banger.privileged.contract.base import Privileged
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.service import HostNetwork
from banger.storage.choose import Storage
from banger.storage.clone import CopyDriver, ReflinkDriver
from banger.storage.qcow2 import Qcow2Driver
from banger.storage.snapshot import SnapshotDriver
from banger.store.sqlite import open_store
from banger.vmm.firecracker.backend import FirecrackerVmm
from banger.vmm.qemu.backend import QemuVmm


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


@asynccontextmanager
async def open_services(paths: Paths) -> AsyncIterator[Services]:
    """Raises Problem for a bad configuration or a damaged database; nothing has been begun then."""
    verify_socket_room(paths)
    config = read_config(paths)
    for directory in (Path(paths.data), Path(paths.cache), Path(paths.state) / "vms"):
        ensure_private_directory(directory)
    store = open_store(Path(paths.database))
    root = WaysToRoot()
    try:
        async with open_vmms(paths, config, root) as vmms, Supervisor() as tasks:
            networks = open_networks(config, root, tasks)
            daemon = Daemon(make_adapters(paths, config, root, vmms, networks), networks, store, tasks)
            try:
                await daemon.begin()
                yield daemon.render()
            finally:
                await daemon.close()
    finally:
        await root.close()
        store.close()


class Vmms(NamedTuple):
    firecracker: FirecrackerVmm
    qemu: QemuVmm


@asynccontextmanager
async def open_vmms(paths: Paths, config: Config, root: WaysToRoot) -> AsyncIterator[Vmms]:
    """Closing lets go of guests; they run on."""
    cache = Path(paths.cache)
    firecracker = FirecrackerVmm(
        program=config.firecracker_bin,
        directory=Path(paths.data) / "firecracker",
        cache=cache / "firecracker-verdict.json",
        jail=root.find(),
        unjailed=not config.jailer_enabled,
    )
    qemu = QemuVmm(cache=cache / "kvm-verdict.json", qemu=config.qemu_bin)
    try:
        yield Vmms(firecracker, qemu)
    finally:
        await firecracker.close()
        await qemu.close()


def make_adapters(paths: Paths, config: Config, root: WaysToRoot, vmms: Vmms, networks: Networks) -> Adapters:
    privileged = root.find()
    storage = open_storage(paths, config, privileged)
    candidates = (_describe_firecracker(vmms.firecracker, config, privileged), _describe_qemu(vmms.qemu))
    backends = Backends(config.vmm, candidates, storage, networks)
    return Adapters(paths, config, backends, storage, privileged, Ownership(root.map_ids))


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


def open_storage(paths: Paths, config: Config, privileged: Privileged | None) -> Storage:
    return Storage(
        config.storage_driver,
        (
            SnapshotDriver(privileged, config.snapshot_limit_bytes),
            Qcow2Driver(),
            ReflinkDriver(Path(paths.data), Path(paths.state) / "vms"),
            CopyDriver(),
        ),
    )


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
