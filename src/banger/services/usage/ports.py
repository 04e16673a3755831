"""What listens in a guest: where this host reaches it, and whether a browser can go there."""

from collections.abc import Sequence

from banger.api.usage import GuestPort
from banger.guest.entries import Listener
from banger.model.vm import VmRecord, VmRuntime
from banger.network.user import SSH_PORT
from banger.services.usage.probe import probe_all
from banger.services.usage.reach import Place, Reach, find_reach


async def describe_ports(vm: VmRecord, runtime: VmRuntime, listeners: Sequence[Listener]) -> list[GuestPort]:
    """In the order of their numbers. Probes what can be reached of TCP; sshd, known by its port, is left in peace."""
    reaches = {listener: find_reach(vm, runtime, listener) for listener in listeners}
    probed = await probe_all(
        place
        for listener, reach in reaches.items()
        if listener.protocol == "tcp" and listener.port != SSH_PORT
        for place in reach.places
    )
    ordered = sorted(reaches, key=lambda each: (each.port, each.protocol, each.address))
    return [_describe(listener, reaches[listener], probed) for listener in ordered]


def _describe(listener: Listener, reach: Reach, probed: dict[Place, str]) -> GuestPort:
    found = {place: probed.get(place, "") for place in reach.places}
    service = next(filter(None, found.values()), "")
    if (listener.protocol, listener.port) == ("tcp", SSH_PORT):
        service = "ssh"
    return GuestPort(
        protocol=listener.protocol,
        address=listener.address,
        port=listener.port,
        process=listener.command,
        pid=listener.pid or None,
        service=service,
        reach=[place.shown for place in reach.places],
        urls=[f"{scheme}://{place.shown}/" for place, scheme in found.items() if scheme],
        unreachable=reach.why,
        hint=reach.hint,
    )
