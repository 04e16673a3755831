"""The waist of root disks: what banger asks of a way to stand a VM's root on a shared image.

A driver is chosen when a VM is made and stays its own. It keeps one file in the VM's directory, which goes with the
directory; what it has on the host besides exists only while the VM runs, and is given back by `release`.
"""

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

    @property
    def stands_on_image(self) -> bool:
        """Whether a VM's root needs its image for as long as it lives, not only when it is made."""

    async def probe(self) -> None:
        """Tries. Raises `unavailable` with the reason and a hint where this host cannot do it."""

    def create(self, root: Root) -> None:
        """Makes the VM's own file. Blocks; all or nothing."""

    def estimate_bytes(self, image: Path) -> int:
        """What `create` takes of the disk at once."""

    async def attach(self, root: Root) -> Disk:
        """The disk as a VMM is told of it. However this ends, `release` gives back what there is of it then."""

    def adopt(self, vm_id: str) -> None:
        """Of a VM that runs already, since before this driver was made."""

    async def release(self, vm_id: str) -> None:
        """Of a VM that does not run. Idempotent, also for a VM of which nothing is known. Raises a Problem while the
        disk cannot be given back."""

    def measure_bytes(self, root: Root) -> int:
        """What only this VM has on the host's disk; 0 when it is gone."""

    async def find_full(self) -> frozenset[str]:
        """Ids of attached VMs whose root the host has given up for want of room. Costs nothing where none can be."""

    def explain_full(self, root: Root) -> Problem:
        """What is told of such a VM, then and whenever it is started again."""
