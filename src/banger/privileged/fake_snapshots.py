"""Root disks of VMs on an invented host: plain data, for tests to set and to look at.

A layer of changes is known by its file, so that one that has been full stays so when it is attached again.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from banger.privileged.contract.machines import (
    ACTIVE,
    FULL,
    AttachSnapshot,
    DetachSnapshot,
    Snapshot,
    Snapshots,
)
from banger.privileged.helper.loop import verify_file
from banger.privileged.helper.refusals import snapshot_full, snapshot_in_use, snapshot_taken
from banger.privileged.helper.snapshots import plan_base

_NEW_BYTES = 8192  # what the kernel itself has in a new layer


@dataclass
class FakeSnapshot:
    """`layer` is its file, as device and inode. `size_bytes` is the disk's; `in_use` keeps it from being detached."""

    size_bytes: int
    layer: tuple[int, int]
    layer_bytes: int
    used_bytes: int = _NEW_BYTES
    in_use: bool = False


@dataclass
class FakeSnapshots:
    """`full` are layers that the kernel has given up, attached or not."""

    attached: dict[str, FakeSnapshot] = field(default_factory=dict)
    full: set[tuple[int, int]] = field(default_factory=set)

    def fill(self, vm: str) -> None:
        """As when its layer has no more room."""
        self.full.add(self.attached[vm].layer)

    def attach(self, request: AttachSnapshot, descriptors: Sequence[int]) -> None:
        base, changes = descriptors
        plan_base(verify_file(base, read_only=True, owner=os.getuid()), request.size_bytes)
        layer_bytes = verify_file(changes, read_only=False, owner=os.getuid())
        state = os.fstat(changes)
        layer = (state.st_dev, state.st_ino)
        if request.vm in self.attached:
            raise snapshot_taken(request.vm)
        if layer in self.full:
            raise snapshot_full(request.vm)
        self.attached[request.vm] = FakeSnapshot(request.size_bytes, layer, layer_bytes)

    def detach(self, request: DetachSnapshot) -> None:
        found = self.attached.get(request.vm)
        if found is not None and found.in_use:
            raise snapshot_in_use(request.vm)
        self.attached.pop(request.vm, None)

    def list(self) -> Snapshots:
        return Snapshots(snapshots=tuple(self._describe(vm) for vm in sorted(self.attached)))

    def _describe(self, vm: str) -> Snapshot:
        found = self.attached[vm]
        full = found.layer in self.full
        return Snapshot(
            vm=vm,
            state=FULL if full else ACTIVE,
            used_bytes=0 if full else found.used_bytes,
            size_bytes=0 if full else found.layer_bytes,
            in_use=found.in_use,
        )
