"""The first waist: what banger asks of a virtual machine monitor, whichever it is.

Every back end passes `tests/contracts/test_vmm.py`. A `Handle` is plain data, so that a daemon that was
restarted can adopt what its predecessor began. Optional abilities are protocols of their own, found by
capability, never by the back end's name.
"""

import asyncio
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

from banger.model.machine import Machine, PortForward


class Capability(Enum):
    """What a back end can do beyond start and stop."""

    HARDWARE = "hardware"  # runs guests on KVM
    PAUSE = "pause"
    USER_NETWORK = "user_network"
    POWER_OFF = "power_off"  # ends when its guest powers off; without it, only when the guest resets
    QCOW2_DISKS = "qcow2_disks"
    SNAPSHOT_DISKS = "snapshot_disks"  # DiskFormat.SNAPSHOT
    JAIL = "jail"  # each VMM has a uid, a root and limits of its own


class Place(NamedTuple):
    """Directories of one VM, both existing and private: `runtime` for sockets, `state` for what is kept.

    The serial console goes to `state/serial.log`, the VMM's own words to `state/vmm.log`.
    """

    runtime: str
    state: str


class GuestView(NamedTuple):
    """What a guest is told of its machine: the channels to try for its agent, in order, and what each disk is found
    by (its serial or its device), by serial."""

    channels: tuple[str, ...]
    disks: dict[str, str]


class Handle(msgspec.Struct, frozen=True, kw_only=True):
    """A started VMM as plain data. `start_time` (clock ticks since boot, proc(5) field 22) makes the pid
    an identity; `agent_socket` is where the guest agent's stream is reached. `memory` names the directory
    whose file system holds the guest's memory, for people; `serial_log` is the console's file. `jail` is the id of a
    VM whose VMM lives in a jail: its sockets are names in there then, not paths."""

    backend: str
    pid: int
    start_time: int
    agent_socket: str
    control_socket: str
    accelerator: str
    memory: str = ""
    serial_log: str = ""
    jail: str = ""


class Liveness(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    GONE = "gone"


class Exit(NamedTuple):
    """How a VMM ended, as far as can be known: `clean` is a power-off or reboot by the guest."""

    clean: bool
    reason: str


class Vmm(Protocol):
    """A back end. All methods raise Problem; none leaves a process behind that no handle names."""

    @property
    def name(self) -> str: ...

    async def capabilities(self) -> frozenset[Capability]:
        """What this host lets the back end do. Tries, never assumes; the verdict is remembered.
        Raises `unavailable` with a hint when the back end cannot run at all."""

    def view_guest(self, machine: Machine) -> GuestView:
        """Pure."""

    async def start(self, machine: Machine, place: Place, tap: int | None = None) -> Handle:
        """Starts the VMM and the guest's first instruction. Cancelled or failed: no process, no socket.
        `tap` is the descriptor of the machine's tap, if it has one; it stays the caller's."""

    async def wait_exit(self, handle: Handle) -> Exit:
        """Returns when the VMM is gone. An event, never a poll. Works for adopted handles too (pidfd)."""

    async def stop(self, handle: Handle, *, deadline_s: float) -> Exit:
        """The guest has been asked to power off by its agent: waits for that, and kills at the deadline.
        Idempotent; removes the sockets."""

    async def kill(self, handle: Handle) -> Exit:
        """Ends the VMM at once. Idempotent."""

    async def evict(self, place: Place) -> None:
        """Ends a VMM that runs at this place without a handle, because whoever started it died before it
        could write one down. Nothing happens when there is none."""

    async def adopt(self, handle: Handle) -> Liveness:
        """Whether the process named is alive and the same one; takes over its monitor if it is."""

    async def pause(self, handle: Handle) -> None: ...

    async def resume(self, handle: Handle) -> None: ...

    async def connect_agent(self, handle: Handle) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The byte stream to the guest agent. There may be one at a time."""

    async def close(self) -> None:
        """Lets go of monitors and watches; the guests run on and can be adopted by a later daemon."""


class Forwarding(Protocol):
    """Of a back end with `USER_NETWORK`: ports of the host that lead to a running guest, changed while it runs."""

    async def add_forward(self, handle: Handle, forward: PortForward) -> None:
        """Raises `conflict` when the host's port is taken."""

    async def remove_forward(self, handle: Handle, forward: PortForward) -> None:
        """Idempotent."""
