"""Where Firecrackers are begun, found again and ended: outside of a jail (`unjailed`) or in one (`jailed`)."""

from contextlib import AsyncExitStack
from typing import Protocol

from banger.model.machine import Machine
from banger.vmm.contract import Handle, Place
from banger.vmm.firecracker.guest import WatchedGuest

BACKEND = "firecracker"


class Surroundings(Protocol):
    """All methods raise Problem."""

    async def begin(self, machine: Machine, place: Place, undo: AsyncExitStack) -> WatchedGuest:
        """A process that is about to make its API's socket, and what undoes it. Its knock is listened for."""

    async def reclaim_tap(self, tap: int, name: str) -> None:
        """After the process has ended, wherever the tap's loan was interrupted."""

    async def find(self, handle: Handle) -> WatchedGuest | None:
        """Watched from now on; None when it is gone."""

    async def evict(self, place: Place) -> None:
        """Ends whoever lives here without a handle, and removes what is left."""
