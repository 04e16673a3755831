"""Root disks of VMs by device-mapper: an image that is only read, and a layer of what one VM has changed.

Owns the devices `banger-VM` (snapshot) and `banger-VM-base` (the image, with zeroes behind it where the disk is
larger) and the loop devices below them, which go with them. Nothing is remembered: what there is, the kernel says.
"""

import errno
import os
import re
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from banger.privileged.contract.machines import ACTIVE, FULL, SECTOR_BYTES, Snapshot
from banger.privileged.contract.values import VM_PATTERN, refuse
from banger.privileged.helper.devmapper import Device, DeviceMapper, Target, is_loaded, open_mapper
from banger.privileged.helper.loop import attach_loop, verify_file, verify_loops
from banger.privileged.helper.refusals import (
    device_mapper_closed,
    device_mapper_unopened,
    snapshot_failed,
    snapshot_full,
    snapshot_in_use,
    snapshot_taken,
    target_missing,
)

CHUNK_SECTORS = 8
_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0)  # udev looks at every new device for a moment
_NAME = re.compile(rf"banger-({VM_PATTERN.pattern})(-base)?")
# A layer's begin, drivers/md/dm-snap-persistent.c: magic, valid, version, chunk_size in sectors
_LAYER = struct.Struct("<4I")
_MAGIC, _LAYER_VERSION = 0x70416E53, 1
_TARGETS = ("linear", "zero", "snapshot")
_LOST = ("Invalid", "Overflow", "Merge failed")
_USAGE = re.compile(r"(\d+)/(\d+) \d+")


class Names(NamedTuple):
    """A device's name, and the UUID by which it is known to be ours."""

    name: str
    uuid: str


def attach_snapshot(vm: str, size_bytes: int, base: int, changes: int, *, owner: int) -> None:
    """All or nothing. Raises Refusal."""
    base_sectors = plan_base(verify_file(base, read_only=True, owner=owner), size_bytes)
    verify_file(changes, read_only=False, owner=owner)
    verify_layer(vm, os.pread(changes, _LAYER.size, 0))
    with open_mapper() as mapper, ExitStack() as lent, ExitStack() as undo:
        if any(mapper.find(names.uuid) is not None for names in _pair(vm)):
            raise snapshot_taken(vm)
        image = attach_loop(base, read_only=True, owner=owner)
        lent.callback(os.close, image.descriptor)
        layer = attach_loop(changes, read_only=False, owner=owner)
        lent.callback(os.close, layer.descriptor)
        disk, below = _pair(vm)
        _make(mapper, vm, below, render_base(base_sectors, size_bytes, image.number), undo, read_only=True)
        table = render_snapshot(size_bytes, _get_number(mapper, below), layer.number)
        _make(mapper, vm, disk, table, undo)
        undo.pop_all()


def detach_snapshot(vm: str) -> None:
    """Idempotent, a half-made pair included. Raises Refusal `conflict` when it stays in use."""
    if is_loaded():
        with open_mapper() as mapper:
            if not _remove_pair(mapper, vm, _PAUSES_S):
                raise snapshot_in_use(vm)


def list_snapshots() -> tuple[Snapshot, ...]:
    """A half-made pair too, which a helper that was killed has left: as active, with 0 of 0 bytes."""
    if not is_loaded():
        return ()
    with open_mapper() as mapper:
        return tuple(_list(mapper))


def detach_abandoned() -> None:
    """Those that nobody has open, for the time when no daemon is there."""
    if is_loaded():
        with open_mapper() as mapper:
            for snapshot in _list(mapper):
                if not snapshot.in_use:
                    _remove_pair(mapper, snapshot.vm, ())  # opened meanwhile: it is looked at again


def find_snapshot_device(vm: str) -> tuple[int, int] | None:
    """Major and minor number; None when the VM has no such disk attached."""
    if not is_loaded():
        return None
    with open_mapper() as mapper:
        found = mapper.find(_pair(vm)[0].uuid)
    return (found.major, found.minor) if found is not None and found.targets else None


def verify_snapshots() -> None:
    """Raises Refusal where none can be made. Makes none: the kernel is asked for each part."""
    with open_mapper() as mapper:
        try:
            mapper.get_version()
        except PermissionError as error:
            raise device_mapper_unopened() from error
        if (missing := _find_missing(mapper)) is not None:
            raise target_missing(missing)
    verify_loops()


def plan_base(image_bytes: int, size_bytes: int) -> int:
    """How many sectors of the disk the image is. Pure. Raises Refusal."""
    if image_bytes % SECTOR_BYTES:
        raise refuse(f"an image of {image_bytes} bytes is not a whole number of sectors")
    if size_bytes < image_bytes:
        raise refuse(f"a disk of {size_bytes} bytes is smaller than its image of {image_bytes} bytes")
    return image_bytes // SECTOR_BYTES


def verify_layer(vm: str, begin: bytes) -> None:
    """Whether the kernel is to read this at all: it believes the sizes that are in it, and makes buffers of them. That
    is against mistakes only, since the file is still the owner's to write. Pure. Raises Refusal."""
    magic, valid, version, chunk_sectors = _LAYER.unpack(begin)
    if magic == 0:  # a new one
        return
    if (magic, version, chunk_sectors) != (_MAGIC, _LAYER_VERSION, CHUNK_SECTORS):
        raise refuse("the second file is neither empty nor a layer of changes of banger's")
    if not valid:
        raise snapshot_full(vm)


def render_base(image_sectors: int, size_bytes: int, image: str) -> tuple[Target, ...]:
    """Pure."""
    table = (Target(0, image_sectors, "linear", f"{image} 0"),)
    more = size_bytes // SECTOR_BYTES - image_sectors
    return (*table, Target(image_sectors, more, "zero", "")) if more else table


def render_snapshot(size_bytes: int, base: str, layer: str) -> tuple[Target, ...]:
    """`P`: what has changed outlives the device. Pure."""
    return (Target(0, size_bytes // SECTOR_BYTES, "snapshot", f"{base} {layer} P {CHUNK_SECTORS}"),)


def describe_snapshot(vm: str, disk: Device | None, base: Device | None) -> Snapshot | None:
    """What the kernel has of a VM's two devices; None when neither is there. Pure."""
    top = disk or base
    if top is None:
        return None
    status = disk.targets[0].text if disk is not None and disk.targets else ""
    usage = _USAGE.fullmatch(status)
    used, size = (int(number) * SECTOR_BYTES for number in usage.groups()) if usage else (0, 0)
    return Snapshot(
        vm=vm,
        state=FULL if status in _LOST else ACTIVE,
        used_bytes=used,
        size_bytes=size,
        in_use=top.open_count > 0,
    )


def _pair(vm: str) -> tuple[Names, Names]:
    """The disk, and what it stands on: in the order in which they go."""
    return Names(f"banger-{vm}", f"BANGER-{vm}"), Names(f"banger-{vm}-base", f"BANGER-{vm}-base")


def _list(mapper: DeviceMapper) -> Iterator[Snapshot]:
    vms = {found[1] for name in mapper.list_names() if (found := _NAME.fullmatch(name))}
    for vm in sorted(vms):
        disk, base = (mapper.find(names.uuid) for names in _pair(vm))
        if (snapshot := describe_snapshot(vm, disk, base)) is not None:
            yield snapshot


def _make(
    mapper: DeviceMapper,
    vm: str,
    names: Names,
    table: Sequence[Target],
    undo: ExitStack,
    *,
    read_only: bool = False,
) -> None:
    try:
        mapper.create(*names)
    except OSError as error:
        if error.errno == errno.EBUSY:  # somebody else's device of this name
            raise snapshot_taken(vm) from error
        raise
    undo.callback(_undo, mapper, names)
    try:
        mapper.load(names.uuid, table, read_only=read_only)
    except OSError as error:
        if error.errno == errno.EINVAL and (missing := _find_missing(mapper)) is not None:
            raise target_missing(missing) from error
        if isinstance(error, PermissionError):
            raise device_mapper_closed() from error
        raise snapshot_failed(vm, error) from error
    loaded = mapper.find(names.uuid, loaded=True)
    if loaded is not None and any(target.text in _LOST for target in loaded.targets):
        raise snapshot_full(vm)
    mapper.resume(names.uuid)


def _undo(mapper: DeviceMapper, names: Names) -> None:
    """What stays in use is found later: the error that led here is what counts."""
    with suppress(OSError):
        _remove(mapper, names, iter(_PAUSES_S))


def _find_missing(mapper: DeviceMapper) -> str | None:
    return next((kind for kind in _TARGETS if not mapper.has_target(kind)), None)


def _get_number(mapper: DeviceMapper, names: Names) -> str:
    found = mapper.find(names.uuid)
    assert found is not None
    return f"{found.major}:{found.minor}"


def _remove_pair(mapper: DeviceMapper, vm: str, pauses_s: Sequence[float]) -> bool:
    """The pauses are for both together."""
    left = iter(pauses_s)
    return all(_remove(mapper, names, left) for names in _pair(vm))


def _remove(mapper: DeviceMapper, names: Names, pauses_s: Iterator[float]) -> bool:
    """False when it stays in use."""
    while True:
        try:
            mapper.remove(names.uuid)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return True
        if (pause_s := next(pauses_s, None)) is None:
            return False
        time.sleep(pause_s)  # device-mapper has no event for a last close
