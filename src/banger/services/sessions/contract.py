"""What sessions ask of the VMs."""

from collections.abc import Callable, Sequence
from typing import Protocol

from banger.guest.agent import Agent
from banger.guest.command import ExecRequest
from banger.model.vm import VmRecord

Met = Callable[[str, Agent], None]


class Vms(Protocol):
    """The VMs, as everybody else sees them. Raises Problem."""

    def list_rows(self) -> Sequence[VmRecord]: ...

    def resolve(self, untrusted_reference: str) -> VmRecord: ...

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable`."""

    def touch(self, vm_id: str) -> object:
        """It has been used, now."""

    def arrange(self, vm: VmRecord, request: ExecRequest) -> ExecRequest:
        """What somebody wants to run in it, as it is run there."""

    def on_agent(self, met: Met) -> None:
        """`met` is told whenever there is a new connection to a guest's agent: it starts, or is taken over, or had
        been lost."""
