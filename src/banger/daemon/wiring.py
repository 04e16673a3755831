"""Puts the daemon together: the only module that names a concrete VMM or store.

Opens store, back ends and services in order, and closes them in reverse.
"""

import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from banger import guest
from banger.base.files import ensure_private_directory
from banger.base.paths import Paths
from banger.base.problem import bad_request
from banger.base.tasks import Supervisor
from banger.daemon.backends import Backends
from banger.daemon.completion import Completion
from banger.daemon.contract import OperationHandler, Services, VmCounts
from banger.daemon.material_calls import MaterialCalls
from banger.guest.sshkeys import KeyPair, ensure_owner_key
from banger.model.config import Config, parse_config
from banger.model.sizing import HostSize
from banger.services.checks.contract import CheckSurroundings
from banger.services.checks.service import CheckService
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.services.vms.layout import Layouts
from banger.services.vms.lifecycle import Surroundings
from banger.services.vms.service import VmService
from banger.store.contract import Store
from banger.store.sqlite import open_store
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
    state, data, cache = Path(paths.state), Path(paths.data), Path(paths.cache)
    for directory in (data, cache, state / "vms"):
        ensure_private_directory(directory)
    store = open_store(Path(paths.database))
    qemu = QemuVmm(cache=cache / "kvm-verdict.json", qemu=config.qemu_bin)
    backends = Backends(config.vmm, qemu)
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
    finally:
        await qemu.close()
        store.close()


def _vm_surroundings(
    paths: Paths,
    config: Config,
    store: Store,
    images: ImageService,
    kernels: KernelService,
    backends: Backends,
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


def _check_surroundings(paths: Paths, config: Config, backends: Backends) -> CheckSurroundings:
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
