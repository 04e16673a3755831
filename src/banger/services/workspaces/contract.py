"""What workspaces need of the service of VMs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from banger.guest.agent import Agent
from banger.model.vm import VmRecord


class Vms(Protocol):
    def resolve(self, untrusted_reference: str) -> VmRecord:
        """Raises `not_found`, `ambiguous`."""

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable`."""

    def using(self, vm_id: str) -> AbstractContextManager[None]:
        """It is used as long as the block lasts: one that is made for a command waits for it."""


class WatchedVms(Vms, Protocol):
    def on_agent(self, met: Callable[[str, Agent], None]) -> None:
        """`met` is told of each agent that there is, and of each new connection to one."""
