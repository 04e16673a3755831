"""What happens to a VM before its first boot: its specification is settled and its disks are made.

Owns no state. Everything here either succeeds or leaves nothing that `Layout.remove` does not remove.
"""

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from banger.api.vm import VmCreate
from banger.base.problem import Code, Problem, bad_request
from banger.base.tasks import in_thread
from banger.base.units import render_size
from banger.model.config import Config
from banger.model.image import ImageManifest
from banger.model.moment import Ttl
from banger.model.names import validate_labels
from banger.model.ports import parse_all
from banger.model.sizing import Asked, HostSize, derive_sizes
from banger.model.vm import VmRecord, VmSpec, VmState, validate_spec
from banger.network.ports import check_port
from banger.services.moment import read_moment
from banger.services.vms.capabilities.contract import Capability
from banger.services.vms.layout import Layout
from banger.services.vms.plan import locate_root
from banger.storage.contract import RootDriver


def settle_spec(request: VmCreate, config: Config, host: HostSize) -> VmSpec:
    """Flag, else configuration, else host, else floor; refused when no host could run it."""
    flags = Asked(
        request.vcpus, request.memory_mib, request.disk_size_bytes, request.system_overlay_size_bytes
    )
    sizes = derive_sizes(flags, config.asked_sizes, host, config.allowed)
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
    moment = read_moment()
    now = moment.at
    return VmRecord(
        id=vm_id,
        name=name,
        spec=spec,
        state=VmState.CREATED,
        created_at=now,
        updated_at=now,
        last_touched_at=now,
        touched=moment,
        ttl=None if request.ttl_s is None else Ttl(seconds=request.ttl_s, since=moment),
        labels=validate_labels(request.labels),
        ephemeral=request.ephemeral,
        has_work_disk=ground.image.work_seed is not None,
        image_id=ground.image.id,
        image_directory=str(ground.directory),
        root_driver=ground.driver.name,
    )


async def prepare_files(
    vm: VmRecord, layout: Layout, ground: Ground, capabilities: Iterable[Capability]
) -> None:
    """Root on the shared image by its driver, and what each capability has in the VM's directory."""
    try:
        await in_thread(_prepare_files, vm, layout, ground, capabilities)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Problem(
                Code.NO_SPACE,
                f"{layout.state.parent} is full",
                hint="make room: banger vm prune --dry-run",
            ) from error
        raise


def _prepare_files(vm: VmRecord, layout: Layout, ground: Ground, capabilities: Iterable[Capability]) -> None:
    layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    ground.driver.create(locate_root(vm, layout))
    for capability in capabilities:
        capability.prepare(vm, layout, ground.image)
