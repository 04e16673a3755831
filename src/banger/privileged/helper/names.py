"""Names' routing: systemd-resolved asks the bridge's address for our zone and for the subnet's reverse names only.

`resolvectl` with a fixed argv; the settings are the link's and vanish with it (resolvectl(1)).
"""

import ipaddress
import time

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.managed import Root, exists_below
from banger.privileged.helper.programs import find_program, run_program

_PROGRAM = "resolvectl"
_DEADLINE_S = 5.0
_ROUTING_S = 15.0  # for all of the commands together: the daemon waits for 20
# Our zone is not signed and not served over TLS, whatever the host asks of others; and nobody is to be asked for the
# host's own bare names on the guests' link.
_SWITCHED_OFF = ("default-route", "dnssec", "dnsovertls", "llmnr", "mdns")
_NO_RESOLVED = Refusal("unavailable", "this host has no systemd-resolved", "banger doctor")


def is_running() -> bool:
    """Whether systemd-resolved answers."""
    program = _find_resolvectl()
    if program is None:
        return False
    try:
        return run_program((program, "--no-pager", "dns"), deadline_s=_DEADLINE_S).status == 0
    except Refusal:
        return False


def route_names(bridge: str, interface: ipaddress.IPv4Interface, zone: str) -> None:
    """Raises Refusal; nothing is routed then."""
    program = _find_resolvectl()
    if program is None:
        raise _NO_RESOLVED
    ends_at = time.monotonic() + _ROUTING_S
    try:
        for argv in plan_routing(program, bridge, interface, zone):
            _run(argv, min(_DEADLINE_S, max(ends_at - time.monotonic(), 0)))
    except Refusal:
        unroute_names(bridge)
        raise


def unroute_names(bridge: str) -> None:
    """Idempotent. A complaint means that there is nothing to undo: no link, or no systemd-resolved any more."""
    program = _find_resolvectl()
    if program is not None:
        run_program((program, "revert", bridge), deadline_s=_DEADLINE_S)


def plan_routing(
    program: str, bridge: str, interface: ipaddress.IPv4Interface, zone: str
) -> tuple[tuple[str, ...], ...]:
    """The commands. The last makes the server known: before it nothing is asked. Pure."""
    domains = (zone, *reverse_zones(interface.network))
    return (
        *((program, setting, bridge, "no") for setting in _SWITCHED_OFF),
        (program, "domain", bridge, *(f"~{domain}" for domain in domains)),
        (program, "dns", bridge, str(interface.ip)),
    )


def reverse_zones(network: ipaddress.IPv4Network) -> tuple[str, ...]:
    """The names below in-addr.arpa that cover exactly this subnet, at most 128. Pure."""
    octets = 2 if network.prefixlen <= 16 else 3 if network.prefixlen <= 24 else 4
    return tuple(
        ".".join(reversed(str(part.network_address).split(".")[:octets])) + ".in-addr.arpa"
        for part in network.subnets(new_prefix=octets * 8)
    )


def _find_resolvectl() -> str | None:
    return find_program(_PROGRAM) if exists_below(Root.SYSTEMD, ("resolve",)) else None


def _run(argv: tuple[str, ...], deadline_s: float) -> None:
    done = run_program(argv, deadline_s=deadline_s)
    if done.status != 0:
        raise Refusal(
            "unavailable", f"systemd-resolved does not take names: {done.complaint}", "resolvectl status"
        )
