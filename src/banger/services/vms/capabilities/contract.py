"""The hooks by which something that VMs can have takes its part in a VM's life.

A capability is one module here and one line in `registration`. It knows its own surroundings; what it learns of a VM
comes with the hook. Every hook does nothing unless a capability says otherwise.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from banger.api.system import Finding
from banger.base.progress import Progress
from banger.guest.agent import Agent
from banger.guest.bootconfig import BootConfig
from banger.guest.command import ExecRequest
from banger.model.config import Config
from banger.model.image import ImageManifest
from banger.model.machine import Machine
from banger.model.vm import VmRecord, VmSpec
from banger.services.hostnet.contract import Lease
from banger.services.vms.layout import Layout
from banger.vmm.contract import GuestView

Check = Callable[[], Awaitable[Finding]]


class Wants(NamedTuple):
    """What whoever starts a VM waits for beyond its agent."""

    ssh: bool = False
    opencode: bool = False


class GuestBoot(NamedTuple):
    """What is known of a guest before its first instruction."""

    vm: VmRecord
    layout: Layout
    lease: Lease
    view: GuestView


class Started(NamedTuple):
    """A VM whose agent has answered."""

    vm: VmRecord
    agent: Agent
    wants: Wants
    progress: Progress


class Capability:
    """Hooks raise Problem."""

    name: ClassVar[str]

    def preflight(self, vm: VmRecord) -> Sequence[str]:
        """Before anything is taken: refuses a start, or says in a line each what it will leave out."""
        return ()

    def machine(self, vm: VmRecord, layout: Layout, machine: Machine) -> Machine:
        """The hardware with this capability's part. Pure."""
        return machine

    def guest(self, boot: GuestBoot, config: BootConfig) -> BootConfig:
        """What the guest is told at boot, with this capability's part. May read the host's files; blocks."""
        return config

    def prepare(self, vm: VmRecord, layout: Layout, image: ImageManifest) -> None:
        """Once, before the first start, what belongs into the VM's directory. Blocks. What it leaves half-made goes
        with the directory."""

    async def started(self, started: Started) -> None:
        """The agent has answered. Without the VM's lock: it may be stopped meanwhile. Raises what the caller is told; a
        VM that was only started runs on then, one that was to be created goes."""

    def command(self, vm: VmRecord, request: ExecRequest) -> ExecRequest:
        """What somebody wants to run in the guest, with this capability's part."""
        return request

    async def cleanup(self, vm: VmRecord) -> None:
        """The VM is being removed and does not run. Idempotent: it may come again after a crash."""

    async def change(self, vm: VmRecord, after: VmSpec) -> None:
        """The specification is about to be `after`: the host's part of it. Refuses what cannot be done now."""

    @classmethod
    def checks(cls, config: Config) -> Mapping[str, Check]:
        """For the doctor, which may run where no daemon does: what this capability needs of the host, by the names of
        the findings. Read-only."""
        return {}
