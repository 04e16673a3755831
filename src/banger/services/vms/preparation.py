"""What happens to a VM before its first boot: its specification is settled and its disks are made.

Owns no state. Everything here either succeeds or leaves nothing that `Layout.remove` does not remove.
"""

import asyncio
import errno
from pathlib import Path
from typing import NamedTuple

from banger.api.vm import VmCreate
from banger.base.clock import utc_now
from banger.base.files import clone_sparse, free_bytes, write_atomic
from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.base.units import render_size
from banger.guest.sshkeys import make_key_pair, render_known_host
from banger.model.config import Config
from banger.model.image import ImageManifest
from banger.model.ports import parse_all
from banger.model.sizing import Asked, HostSize, derive_sizes
from banger.model.vm import VmRecord, VmSpec, VmState, validate_spec
from banger.network.ports import check_port
from banger.services.vms.layout import Layout
from banger.services.vms.plan import ROOTFS, locate_root
from banger.storage.contract import RootDriver


def settle_spec(request: VmCreate, config: Config, host: HostSize) -> VmSpec:
    """Flag, else configuration, else host, else floor; refused when no host could run it."""
    flags = Asked(
        request.vcpus, request.memory_mib, request.disk_size_bytes, request.system_overlay_size_bytes
    )
    sizes = derive_sizes(flags, config.asked_sizes, host)
    spec = VmSpec(
        image=request.image or config.default_image,
        kernel=request.kernel or "",
        vcpus=sizes.vcpus,
        memory_mib=sizes.memory_mib,
        disk_size_bytes=sizes.disk_size_bytes,
        system_overlay_size_bytes=sizes.system_overlay_size_bytes,
        nat=request.nat,
        publish=parse_all(request.publish),
        origins=sizes.origins,
    )
    return validate_spec(spec)


def check_host_room(spec: VmSpec, state: Path, host: HostSize) -> None:
    """Refuses, with numbers, what this host could never hold."""
    free = free_bytes(state)
    wanted = spec.disk_size_bytes
    if wanted > free:
        raise Problem(
            Code.NO_SPACE,
            f"a work disk of {render_size(wanted)} does not fit: {state} has {render_size(free)} free",
            hint="choose a smaller --disk-size, or make room: banger vm prune",
            outcome=Outcome.NOT_STARTED,
        )
    if spec.memory_mib * 1024 * 1024 > host.memory_bytes:
        raise Problem(
            Code.NO_SPACE,
            f"{spec.memory_mib} MiB of memory are more than this host has ({render_size(host.memory_bytes)})",
            hint="choose a smaller --memory",
            outcome=Outcome.NOT_STARTED,
        )


def check_ports(spec: VmSpec) -> None:
    """Refuses what is published at a port that somebody has."""
    for forward in spec.publish:
        check_port(forward)


def check_disk_sizes(spec: VmSpec, image: ImageManifest, directory: Path) -> None:
    """A disk smaller than the file system on it would destroy it."""
    if spec.system_overlay_size_bytes < image.virtual_size_bytes:
        raise bad_request(
            f"a root disk of {render_size(spec.system_overlay_size_bytes)} is smaller than {image.name}",
            hint=f"--system-overlay-size takes {render_size(image.virtual_size_bytes)} or more with this image",
        )
    if image.work_seed is None:
        return
    seed_bytes = (directory / image.work_seed).stat().st_size
    if spec.disk_size_bytes < seed_bytes:
        raise bad_request(
            f"a work disk of {render_size(spec.disk_size_bytes)} is smaller than the seed of {image.name}",
            hint=f"--disk-size takes {render_size(seed_bytes)} or more with this image",
        )


class Ground(NamedTuple):
    """What a new VM stands on."""

    image: ImageManifest
    directory: Path
    driver: RootDriver


def compose_record(vm_id: str, name: str, spec: VmSpec, request: VmCreate, ground: Ground) -> VmRecord:
    """A new VM's row. Nothing of the VM is on disk yet."""
    now = utc_now()
    return VmRecord(
        id=vm_id,
        name=name,
        spec=spec,
        state=VmState.CREATED,
        created_at=now,
        updated_at=now,
        last_touched_at=now,
        labels=request.labels,
        ephemeral=request.ephemeral,
        has_work_disk=ground.image.work_seed is not None,
        image_id=ground.image.id,
        image_directory=str(ground.directory),
        root_driver=ground.driver.name,
    )


def check_root_room(driver: RootDriver, directory: Path, state: Path) -> None:
    """Refuses a root disk that would fill the disk while it is made."""
    free = free_bytes(state)
    wanted = driver.estimate_bytes(directory / ROOTFS)
    if wanted > free:
        raise Problem(
            Code.NO_SPACE,
            f"a {driver.name.value} of the image ({render_size(wanted)}) does not fit: "
            f"{state} has {render_size(free)} free",
            hint="make room: banger vm prune",
            outcome=Outcome.NOT_STARTED,
        )


async def prepare_disks(vm: VmRecord, layout: Layout, driver: RootDriver, image: ImageManifest) -> None:
    """Root on the shared image by its driver, work disk as a clone of the seed, and the guest's host key."""
    try:
        await asyncio.to_thread(_prepare_disks, vm, layout, driver, image)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Problem(
                Code.NO_SPACE,
                f"{layout.state.parent} is full",
                hint="make room: banger vm prune",
            ) from error
        raise


def _prepare_disks(vm: VmRecord, layout: Layout, driver: RootDriver, image: ImageManifest) -> None:
    layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    driver.create(locate_root(vm, layout))
    if image.work_seed is not None:
        clone_sparse(Path(vm.image_directory) / image.work_seed, layout.work_disk)
        with layout.work_disk.open("r+b") as disk:
            disk.truncate(vm.spec.disk_size_bytes)
    key = make_key_pair(vm.name)
    write_atomic(layout.host_key, key.private)
    write_atomic(layout.host_key.with_suffix(".pub"), key.public.encode() + b"\n")
    write_atomic(layout.known_hosts, render_known_host((host_key_alias(vm.id),), key.public).encode())


def host_key_alias(vm_id: str) -> str:
    """The name under which ssh knows a guest, whatever address or port it has at the time."""
    return f"banger-{vm_id}"
