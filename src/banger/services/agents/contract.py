"""What agents ask of the VMs."""

from contextlib import AbstractContextManager
from typing import Protocol

from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.model.vm import VmRecord


class Vms(Protocol):
    """The VMs, as everybody else sees them. Raises Problem."""

    def resolve(self, untrusted_reference: str) -> VmRecord: ...

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable`."""

    def using(self, vm_id: str) -> AbstractContextManager[None]:
        """It is used as long as the block lasts."""

    def arrange(self, vm: VmRecord, request: ExecRequest) -> ExecRequest:
        """What somebody wants to run in it, as it is run there."""
