"""What drivers have in common whose root disk is one file that a VMM opens by itself: nothing is on the host."""

from pathlib import Path

from banger.base.files import allocated_bytes
from banger.base.problem import Problem
from banger.model.machine import Disk, DiskFormat
from banger.storage.contract import ROOT_SERIAL, Root


class PlainFile:
    """`file` is the name in the VM's directory."""

    def __init__(self, file: str, format_: DiskFormat, *, stands_on_image: bool) -> None:
        self._file = file
        self._format = format_
        self._stands_on_image = stands_on_image

    @property
    def format(self) -> DiskFormat:
        return self._format

    @property
    def stands_on_image(self) -> bool:
        return self._stands_on_image

    async def probe(self) -> None:
        """Every host can."""

    def estimate_bytes(self, image: Path) -> int:
        return 0

    async def attach(self, root: Root) -> Disk:
        return Disk(serial=ROOT_SERIAL, path=str(self._place(root)), format=self._format)

    def adopt(self, vm_id: str) -> None:
        """There is nothing."""

    async def release(self, vm_id: str) -> None:
        """There is nothing."""

    def measure_bytes(self, root: Root) -> int:
        return allocated_bytes(self._place(root))

    async def find_full(self) -> frozenset[str]:
        return frozenset()

    def explain_full(self, root: Root) -> Problem:
        raise AssertionError(root.vm_id)

    def _place(self, root: Root) -> Path:
        return root.state / self._file
