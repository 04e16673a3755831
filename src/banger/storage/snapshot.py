"""Root as a device-mapper snapshot of the image: root attaches it, what changes is in a file of the VM's own.

Owns that file: its size, and what its header says (Documentation/admin-guide/device-mapper/snapshot.rst;
drivers/md/dm-snap-persistent.c). The kernel gives a snapshot up for good when its layer has no room for one more
chunk, or cannot be written because the file system below is full. So the layer is as large as it can ever get, and
sparse, unless the configuration caps it.
"""

import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banger.base.files import allocated_bytes, atomic_file
from banger.base.problem import Code, Outcome, Problem, not_found, unavailable
from banger.base.units import render_size
from banger.model.machine import Disk, DiskFormat
from banger.model.storage import StorageDriver
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.machines import (
    FULL,
    AttachSnapshot,
    DetachSnapshot,
    InspectMachines,
    ListSnapshots,
)
from banger.storage.contract import ROOT_SERIAL, Root
from banger.storage.sizes import plan_size

FILE = "root.cow"
CHUNK_BYTES = 4096
_EXCEPTIONS_PER_CHUNK = CHUNK_BYTES // 16
_HEADER = struct.Struct("<4sI")  # magic, valid
_MAGIC = b"SnAp"
_NEARLY = 64 * CHUNK_BYTES

_log = logging.getLogger(__name__)


class SnapshotDriver:
    """For VMMs that are given devices by root: a jailed Firecracker."""

    name = StorageDriver.SNAPSHOT
    format = DiskFormat.SNAPSHOT
    stands_on_image = True

    def __init__(self, privileged: Privileged | None, limit_bytes: int | None) -> None:
        self._privileged = privileged
        self._limit_bytes = limit_bytes
        self._attached: set[str] = set()

    async def probe(self) -> None:
        support = (await self._get_root().call(InspectMachines())).result
        if support.snapshot_reason:
            raise unavailable(
                f"root disks cannot be dm snapshots: {support.snapshot_reason}",
                hint=support.snapshot_hint or None,
            )

    def create(self, root: Root) -> None:
        size = plan_layer_bytes(
            plan_size(root.image, root.size_bytes, unit_bytes=CHUNK_BYTES), self._limit_bytes
        )
        with atomic_file(root.state / FILE) as layer:
            os.ftruncate(layer, size)

    def estimate_bytes(self, image: Path) -> int:
        return 0

    async def attach(self, root: Root) -> Disk:
        """A snapshot of this name that no VMM has open is one that somebody could not detach: it is replaced."""
        privileged = self._get_root()
        size = plan_size(root.image, root.size_bytes, unit_bytes=CHUNK_BYTES)
        with _open_files(root) as (image, layer):
            if is_spent(layer):
                raise self.explain_full(root)
            wanted = plan_layer_bytes(size, self._limit_bytes)
            if wanted > os.fstat(layer).st_size:  # the limit was raised
                os.ftruncate(layer, wanted)
            request = AttachSnapshot(vm=root.vm_id, size_bytes=size)
            try:
                await privileged.call(request, (image, layer))
            except Problem as problem:
                if problem.code is not Code.CONFLICT:
                    raise
                await privileged.call(DetachSnapshot(vm=root.vm_id))
                await privileged.call(request, (image, layer))
        self._attached.add(root.vm_id)
        return Disk(serial=ROOT_SERIAL, path=f"/dev/mapper/banger-{root.vm_id}", format=DiskFormat.SNAPSHOT)

    def adopt(self, vm_id: str) -> None:
        self._attached.add(vm_id)

    async def release(self, vm_id: str) -> None:
        self._attached.discard(vm_id)
        if self._privileged is not None:
            await self._privileged.call(DetachSnapshot(vm=vm_id))

    def measure_bytes(self, root: Root) -> int:
        return allocated_bytes(root.state / FILE)

    async def find_full(self) -> frozenset[str]:
        if not self._attached:
            return frozenset()
        snapshots = (await self._get_root().call(ListSnapshots())).result.snapshots
        return frozenset(self._attached & {snapshot.vm for snapshot in snapshots if snapshot.state == FULL})

    def explain_full(self, root: Root) -> Problem:
        layer = root.state / FILE
        size = layer.stat().st_size
        if allocated_bytes(layer) + _NEARLY < size:
            brief = (
                f"{root.state} had no room for what {root.vm_name} changed on its root disk, which is lost"
            )
            way_out = "make room (banger vm prune --dry-run)"
        else:
            brief = (
                f"{root.vm_name} has changed more than {render_size(size)} of its root disk, which is lost"
            )
            way_out = "raise snapshot_limit in config.toml"
        kept = f"; its /root is intact: {root.work_disk}" if root.work_disk else ""
        return Problem(
            Code.NO_SPACE,
            brief,
            hint=f"{way_out}, then create the VM anew{kept}",
            outcome=Outcome.NOT_STARTED,
        )

    def _get_root(self) -> Privileged:
        if self._privileged is None:
            raise unavailable(
                "root disks cannot be dm snapshots: no root helper is installed",
                hint="sudo banger system install",
            )
        return self._privileged


def plan_layer_bytes(size_bytes: int, limit_bytes: int | None) -> int:
    """Room for every chunk of the disk, for a chunk of exceptions before each 256 of them and one beyond the last,
    which the kernel wipes in advance, and for the header; or the limit, if that is less."""
    chunks = -(-size_bytes // CHUNK_BYTES)
    whole = (1 + chunks + chunks // _EXCEPTIONS_PER_CHUNK + 2) * CHUNK_BYTES
    if limit_bytes is None:
        return whole
    return min(whole, limit_bytes // CHUNK_BYTES * CHUNK_BYTES)


def is_spent(layer: int) -> bool:
    """Whether the kernel has written down that it has given this layer up."""
    head = os.pread(layer, _HEADER.size, 0)
    if len(head) < _HEADER.size:
        return False
    magic, valid = _HEADER.unpack(head)
    return bool(magic == _MAGIC and valid == 0)


@contextmanager
def _open_files(root: Root) -> Iterator[tuple[int, int]]:
    layer_path = root.state / FILE
    try:
        layer = os.open(layer_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise not_found(
            f"the root disk of {root.vm_name} is missing: {layer_path}",
            hint=f"banger vm delete {root.vm_name}",
        ) from error
    try:
        image = os.open(root.image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield image, layer
        finally:
            os.close(image)
    finally:
        os.close(layer)
