"""User mode: the VMM speaks for the guest and listens on the host's ports; nothing is held here."""

from contextlib import ExitStack

from banger.model.vm import LOOPBACK, NetworkMode
from banger.network.ports import find_port, hold_port
from banger.network.user import PREFIX_LENGTH, plan_user_network
from banger.services.hostnet.contract import Lease, Wish


def lease_user(wish: Wish) -> Lease:
    """The VMM will listen on the ports itself; one that is taken now is refused now. Raises `conflict`."""
    with ExitStack() as looking:  # so that SSH gets none of the published ones
        for forward in wish.publish:
            looking.enter_context(hold_port(forward, reuse=True))
        ssh_port = find_port(wish.ssh_port or None)
    network = plan_user_network(wish.vm_id, nat=wish.nat, ssh_port=ssh_port, published=wish.publish)
    return Lease(
        mode=NetworkMode.USER,
        network=network,
        guest_address=f"{network.guest_address}/{PREFIX_LENGTH}",
        gateway=network.gateway,
        dns=network.dns,
        address=LOOPBACK,
        ssh_port=network.forwards[0].host_port,
    )
