"""At which places of this host a socket that listens in a guest is reached, or why it is not. Pure."""

import ipaddress
from typing import NamedTuple

from banger.guest.entries import Listener
from banger.model.machine import PortForward
from banger.model.ports import ANY
from banger.model.vm import LOOPBACK, NetworkMode, VmRecord, VmRuntime
from banger.network.user import GUEST_ADDRESS, SSH_PORT


class Place(NamedTuple):
    """Where to connect to, and what people call it there."""

    address: str
    port: int
    name: str

    @property
    def shown(self) -> str:
        return f"{self.name}:{self.port}"


class Reach(NamedTuple):
    """No places: `why` not, and what helps."""

    places: tuple[Place, ...] = ()
    why: str = ""
    hint: str = ""


def find_reach(vm: VmRecord, runtime: VmRuntime, listener: Listener) -> Reach:
    """On the bridge under the VM's own address, and where its port is published; in user mode only there."""
    is_bridged = runtime.network_mode is NetworkMode.BRIDGE
    if why := _find_obstacle(listener.address, runtime.address if is_bridged else GUEST_ADDRESS):
        return Reach(why=why, hint=f"have it listen on 0.0.0.0 in {vm.name}")
    places: list[Place] = []
    if is_bridged:
        places.append(Place(runtime.address, listener.port, f"{vm.name}.vm"))
    places += [_locate(forward) for forward in vm.spec.publish if _leads_to(forward, listener)]
    if not is_bridged and (listener.protocol, listener.port) == ("tcp", SSH_PORT):
        places.append(Place(LOOPBACK, runtime.ssh_port, LOOPBACK))
    if places:
        return Reach(tuple(places))
    suffix = "" if listener.protocol == "tcp" else "/udp"
    port = f"{_suggest(listener.port)}:{listener.port}{suffix}"
    return Reach(why="it is not published", hint=f"banger vm publish {vm.name} {port}")


def _find_obstacle(address: str, own: str) -> str:
    """Why nothing that arrives at the guest's own address gets to this socket. Empty when it does."""
    bound = ipaddress.ip_address(address)
    mapped = bound.ipv4_mapped if isinstance(bound, ipaddress.IPv6Address) else None
    bound = mapped or bound
    if bound.is_unspecified or str(bound) == own:
        return ""
    if bound.is_loopback:
        return "it listens on the guest's loopback only"
    if bound.version == 6:
        return "it listens on an IPv6 address only, and VMs are reached by IPv4"
    return f"it listens on {bound} only, which is not the VM's address"


def _leads_to(forward: PortForward, listener: Listener) -> bool:
    return (forward.protocol, forward.guest_port) == (listener.protocol, listener.port)


def _locate(forward: PortForward) -> Place:
    address = LOOPBACK if forward.host_address == ANY else forward.host_address
    return Place(address, forward.host_port, address)


def _suggest(port: int) -> int:
    """A port of the host that its owner may bind without being root."""
    return port if port >= 1024 else port + 8000
