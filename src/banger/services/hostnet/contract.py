"""What a VM asks of the network and what it gets."""

from typing import NamedTuple

from banger.model.machine import Network, PortForward, TapNetwork
from banger.model.vm import NetworkMode
from banger.privileged.contract.values import PublishedPort


class Wish(NamedTuple):
    """Of one VM. `address` is reserved for it on the bridge (empty: none yet), `ssh_port` was its port in user mode."""

    vm_id: str
    name: str
    nat: bool
    publish: tuple[PortForward, ...]
    address: str = ""
    ssh_port: int = 0


class Lease(NamedTuple):
    """A VM's place on the network, from before its VMM starts until after it has ended.

    `guest_address` has its prefix length; `address` and `ssh_port` are where the host reaches sshd. The descriptor
    is the pool's: a VMM inherits it.
    """

    mode: NetworkMode
    network: Network
    guest_address: str
    gateway: str
    dns: str
    address: str
    ssh_port: int
    tap_descriptor: int | None = None

    @property
    def tap(self) -> str:
        """Its name; empty in user mode."""
        return self.network.tap if isinstance(self.network, TapNetwork) else ""


class Standing(NamedTuple):
    """Which mode the next start gets, and why it is not the better one."""

    mode: NetworkMode
    reason: str
    hint: str = ""


def published(forward: PortForward) -> PublishedPort:
    """As root is told of it."""
    return PublishedPort(
        protocol=forward.protocol,
        host_address=forward.host_address,
        host_port=forward.host_port,
        guest_port=forward.guest_port,
    )
