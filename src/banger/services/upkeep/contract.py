"""What upkeep asks of the VMs and of who knows what goes on in them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from banger.base.progress import Progress
from banger.model.vm import VmRecord
from banger.services.contract import End


class Vms(Protocol):
    """The life cycle of VMs, as everybody else uses it. Raises Problem."""

    def list_rows(self) -> Sequence[VmRecord]: ...

    def touch(self, vm_id: str) -> object:
        """It has been used, now."""

    async def end_if(self, vm_id: str, judge: Callable[[VmRecord], End | None], progress: Progress) -> None:
        """Stops or deletes it, if that is the verdict on the VM as it is once its lock is held."""


class Activity(Protocol):
    async def is_busy(self, vm: VmRecord) -> bool:
        """Whether a command that somebody waits for runs in it, or somebody is logged in. Raises Problem when it
        cannot be told."""
