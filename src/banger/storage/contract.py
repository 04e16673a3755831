"""The waist of root disks: what banger asks of a way to stand a VM's root on a shared image.

A driver is chosen when a VM is made and stays its own. It keeps one file in the VM's directory, which goes with the
directory; what it has on the host besides exists only while the VM runs, and is given back by `release`.
"""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from banger.base.problem import Problem
from banger.model.machine import Disk, DiskFormat
from banger.model.storage import StorageDriver

ROOT_SERIAL = "root"


class Root(NamedTuple):
    """A VM's root disk: the raw image it stands on, which never changes, the VM's own directory, and how large it is
    to its guest. `vm_name` is for people, and so is `work_disk`: what the VM still has when its root is lost."""

    vm_id: str
    vm_name: str
    image: Path
    state: Path
    size_bytes: int
    work_disk: Path | None = None


class RootDriver(Protocol):
    """Raises Problem."""

    @property
    def name(self) -> StorageDriver: ...

    @property
    def format(self) -> DiskFormat:
        """What a VMM must be able to read."""

    async def probe(self) -> None:
        """Tries. Raises `unavailable` with the reason and a hint where this host cannot do it."""

    def create(self, root: Root) -> None:
        """Makes the VM's own file. Blocks; all or nothing."""

    def estimate_bytes(self, image: Path) -> int:
        """What `create` takes of the disk at once."""

    def attach(self, root: Root) -> AbstractAsyncContextManager[Disk]:
        """The disk as a VMM is told of it, there while the block lasts. Leaving finishes, whoever is cancelled."""

    def adopt(self, root: Root) -> AbstractAsyncContextManager[object]:
        """Of a VM that runs already: what it has on the host goes when the block ends."""

    async def release(self, vm_id: str) -> None:
        """Of a VM that does not run and that no block holds. Idempotent, also for a VM of which nothing is known."""

    def measure_bytes(self, root: Root) -> int:
        """What only this VM has on the host's disk; 0 when it is gone."""

    async def find_full(self) -> frozenset[str]:
        """Ids of attached VMs whose root the host has given up for want of room. Costs nothing where none can be."""

    def explain_full(self, root: Root) -> Problem:
        """What is told of such a VM, then and whenever it is started again."""
