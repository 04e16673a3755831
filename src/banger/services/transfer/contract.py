"""What copying asks of the VMs."""

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
        """It is used as long as the block lasts."""
