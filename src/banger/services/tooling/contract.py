"""What tooling asks of the VMs and of the store."""

from contextlib import AbstractContextManager
from typing import Protocol

from banger.guest.agent import Agent
from banger.model.vm import VmRecord
from banger.model.workspace import Workspace


class Vms(Protocol):
    """The VMs, as everybody else sees them. Raises Problem."""

    def resolve(self, untrusted_reference: str) -> VmRecord: ...

    def get_agent(self, vm: VmRecord) -> Agent:
        """Raises `unavailable`."""

    def using(self, vm_id: str) -> AbstractContextManager[None]:
        """It is used as long as the block lasts."""


class Workspaces(Protocol):
    def find(self, vm_id: str) -> Workspace | None: ...

    def save(self, workspace: Workspace) -> None: ...
