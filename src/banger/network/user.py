"""The address plan of user mode: each guest alone in the same small network, reached by forwarded ports. Pure.

Refuses to choose ports: whether one is free is the host's to say (`network.ports`). NAT off means a
restricted network: the forwards work, and the guest itself reaches nothing.
"""

import hashlib

from banger.base.problem import bad_request
from banger.model.machine import PortForward, UserNetwork
from banger.model.vm import LOOPBACK

SUBNET = "10.0.2.0/24"
PREFIX_LENGTH = 24
GUEST_ADDRESS = "10.0.2.15"
GATEWAY = "10.0.2.2"
DNS = "10.0.2.3"
SSH_PORT = 22


def derive_mac(vm_id: str) -> str:
    """A locally administered unicast address that stays the VM's for life."""
    digest = hashlib.sha256(b"banger-mac\0" + vm_id.encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def check_forward(forward: PortForward, *, nat: bool) -> None:
    """QEMU's restricted network drops every UDP packet of the guest's, answers included."""
    if forward.protocol == "udp" and not nat:
        raise bad_request(
            f"UDP port {forward.host_port} cannot be published in user mode without NAT",
            hint="--nat, or have a bridge: sudo banger system install",
        )


def plan_user_network(
    vm_id: str, *, nat: bool, ssh_port: int, published: tuple[PortForward, ...] = ()
) -> UserNetwork:
    """SSH on loopback at `ssh_port`, and what the owner publishes. Raises `bad_request` when two forwards
    want one port, or one cannot work."""
    for forward in published:
        check_forward(forward, nat=nat)
    forwards = (PortForward(host_address=LOOPBACK, host_port=ssh_port, guest_port=SSH_PORT), *published)
    seen: set[tuple[str, str, int]] = set()
    for forward in forwards:
        key = (forward.protocol, forward.host_address, forward.host_port)
        if key in seen:
            raise bad_request(f"{forward.host_address}:{forward.host_port} is published twice")
        seen.add(key)
    return UserNetwork(
        mac=derive_mac(vm_id),
        subnet=SUBNET,
        guest_address=GUEST_ADDRESS,
        gateway=GATEWAY,
        dns=DNS,
        restricted=not nat,
        forwards=forwards,
    )
