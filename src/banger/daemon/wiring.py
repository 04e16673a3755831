"""Puts the daemon together: the only module that names concrete adapters.

Opens store, back ends and services in order, and closes them in reverse.
"""

import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from banger import guest
from banger.api.system import Complete, Completions
from banger.api.vm import Posture
from banger.base.files import ensure_private_directory
from banger.base.paths import Paths
from banger.base.problem import Problem, bad_request
from banger.base.tasks import Supervisor
from banger.daemon.contract import OperationHandler, Services, VmCounts
from banger.daemon.material_calls import MaterialCalls
from banger.guest.sshkeys import KeyPair, ensure_owner_key
from banger.model.config import Config, parse_config
from banger.model.sizing import HostSize
from banger.model.vm import VmRecord
from banger.services.checks.contract import CheckSurroundings, Verdict
from banger.services.checks.service import CheckService
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.services.vms.layout import Layouts
from banger.services.vms.lifecycle import Surroundings
from banger.services.vms.service import VmService
from banger.store.contract import Store
from banger.store.sqlite import open_store
from banger.vmm.choose import choose_vmm
from banger.vmm.contract import Capability, Vmm
from banger.vmm.qemu.backend import QemuVmm

GUEST_PROGRAM = Path(guest.__file__).parent / "bin" / f"banger-init-{platform.machine()}"

_NO_NAT_TEXT = "no root helper is installed: ports are forwarded on loopback, nothing goes out"
_NAT_TEXT = (
    "no root helper is installed: the guest reaches the network and, at 10.0.2.2, this host's loopback"
)


class QemuBackends:
    """QEMU, and what there is to say about a VM on it. Firecracker will stand beside it here."""

    def __init__(self, config: Config, cache: Path) -> None:
        self._wanted = config.vmm
        self._qemu = QemuVmm(cache=cache / "kvm-verdict.json", qemu=config.qemu_bin)
        self._accelerator_reason = ""

    async def choose(self) -> Vmm:
        vmm = await choose_vmm(self._wanted, {self._qemu.name: self._qemu})
        self._accelerator_reason = (await self._qemu.probe()).kvm_reason
        return vmm

    def by_name(self, name: str) -> Vmm:
        assert name == self._qemu.name, name
        return self._qemu

    async def close(self) -> None:
        await self._qemu.close()

    def explain(self, vm: VmRecord) -> Posture:
        runtime = vm.runtime
        return Posture(
            backend=runtime.backend if runtime else "",
            accelerator=runtime.accelerator if runtime else "",
            accelerator_reason=self._accelerator_reason,
            network_mode="user",
            network_reason=_NAT_TEXT if vm.spec.nat else _NO_NAT_TEXT,
            storage_driver="qcow2 overlay, raw work disk",
            memory_backing=runtime.memory if runtime else "",
        )

    async def try_vmm(self) -> Verdict:
        try:
            verdict = await self._qemu.probe()
        except Problem as problem:
            return Verdict(False, problem.brief, problem.hint)
        return Verdict(True, f"{verdict.qemu_version} at {verdict.qemu}")

    async def try_accelerator(self) -> Verdict:
        try:
            hardware = Capability.HARDWARE in await self._qemu.capabilities()
            reason = (await self._qemu.probe()).kvm_reason
        except Problem as problem:
            return Verdict(False, problem.brief, problem.hint)
        return Verdict(hardware, "a probe guest ran on KVM" if hardware else reason)


class _Completion:
    """Words for the shell."""

    def __init__(self, store: Store, images: ImageService, kernels: KernelService) -> None:
        self._store, self._images, self._kernels = store, images, kernels

    async def complete(self, request: Complete) -> Completions:
        match request.what:
            case "vm":
                words = [vm.name for vm in self._store.vms.list()]
            case "image":
                words = [image.name for image in await self._images.list_images()]
            case "kernel":
                words = [kernel.name for kernel in await self._kernels.list_kernels()]
            case "operation":
                words = [operation.id for operation in self._store.operations.list(50)]
            case other:
                raise bad_request(f"{other!r} has no names to complete")
        return Completions(words=words)


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
    state, data, cache = Path(paths.state), Path(paths.data), Path(paths.cache)
    for directory in (data, cache, state / "vms"):
        ensure_private_directory(directory)
    store = open_store(Path(paths.database))
    backends = QemuBackends(config, cache)
    try:
        async with Supervisor() as tasks:
            kernels = KernelService(
                data / "kernels",
                GUEST_PROGRAM,
                users_of=lambda kernel: [vm.name for vm in store.vms.list() if vm.spec.kernel == kernel.name],
            )
            images = ImageService(
                data / "images",
                users_of=lambda image: [vm.name for vm in store.vms.list() if vm.image_id == image.id],
            )
            vms = VmService(_vm_surroundings(paths, config, store, images, kernels, backends), tasks)
            checks = CheckService(_check_surroundings(paths, config, backends))
            try:
                await vms.recover()
                tasks.start(_sweep(images, kernels), name="sweep")
                yield Services(
                    handlers=_handlers(vms, images, kernels, checks, _Completion(store, images, kernels)),
                    operations=store.operations,
                    count_vms=lambda: VmCounts(*vms.count()),
                    stop_vms=vms.stop_all,
                    log_level=config.log_level,
                )
            finally:
                await vms.close()
    finally:
        await backends.close()
        store.close()


def _vm_surroundings(
    paths: Paths,
    config: Config,
    store: Store,
    images: ImageService,
    kernels: KernelService,
    backends: QemuBackends,
) -> Surroundings:
    key_path = Path(config.ssh_key_path or f"{paths.data}/ssh/id_ed25519").expanduser()

    def owner_key() -> KeyPair:
        return ensure_owner_key(key_path, "banger")

    return Surroundings(
        vms=store.vms,
        images=images,
        kernels=kernels,
        backends=backends,
        config=config,
        host=measure_host(),
        layouts=Layouts(Path(paths.state) / "vms", Path(paths.runtime) / "vms"),
        owner_key_path=key_path,
        owner_key=owner_key,
    )


def _check_surroundings(paths: Paths, config: Config, backends: QemuBackends) -> CheckSurroundings:
    return CheckSurroundings(
        paths=paths,
        config=config,
        host=measure_host(),
        try_vmm=backends.try_vmm,
        try_accelerator=backends.try_accelerator,
        images=Path(paths.data) / "images",
        kernels=Path(paths.data) / "kernels",
        guest_program=GUEST_PROGRAM,
    )


def _handlers(
    vms: VmService,
    images: ImageService,
    kernels: KernelService,
    checks: CheckService,
    completion: _Completion,
) -> dict[str, Any]:
    calls = MaterialCalls(images, kernels)
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
        "vm.prune": vms.prune,
        "vm.ssh": vms.ssh,
        "vm.exec": vms.execute,
        "image.list": calls.list_images,
        "image.show": calls.show_image,
        "image.build": OperationHandler(calls.build_image, lambda request: request.image),
        "image.delete": calls.delete_image,
        "kernel.list": calls.list_kernels,
        "kernel.show": calls.show_kernel,
        "kernel.pull": OperationHandler(calls.pull_kernel, lambda request: request.kernel),
        "kernel.delete": calls.delete_kernel,
        "doctor.run": checks.run,
        "complete": completion.complete,
    }
