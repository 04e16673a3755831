"""Are VMs found by name? Served on the bridge, and asked by this host: its own resolver is asked for the zone.

A host that was told by hand (dnsmasq, NetworkManager, a line in resolv.conf) passes like one with systemd-resolved.
"""

import ipaddress
from pathlib import Path

from banger.api.system import Finding
from banger.model.vm import NetworkMode
from banger.network.bridge import ZONE
from banger.network.resolvers import PORT, parse_resolvers
from banger.services.checks.contract import CheckSurroundings, passed, warned
from banger.services.hostnet.bridge import BridgeNetwork

RECIPES = "docs/how-to/reach-vms-by-address-and-name.md"
STUB = "sudo ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf"
_ANSWER_S = 2.0
_NOBODY = ipaddress.IPv4Address(0)


async def check(around: CheckSurroundings) -> Finding:
    standing, bridge = await around.networks.settle(), around.networks.bridge
    if standing.mode is NetworkMode.USER or bridge is None:
        return passed("names", "none in user mode: VMs have no address of their own")
    if around.serving_since is None:
        return passed("names", "served at the bridge's address while a daemon runs")
    if bridge.names is None:
        return warned("names", f"not served: {bridge.names_reason}", f"sudo ss -lntup 'sport = :{PORT}'")
    return await _judge_asking(around, bridge)


async def _judge_asking(around: CheckSurroundings, bridge: BridgeNetwork) -> Finding:
    """Whether this host's own programs find the names that are served."""
    served = f"NAME.{ZONE} is served at {bridge.plan.host}"
    resolver = find_resolver(around.resolv_conf)
    if resolver is not None and (resolver == bridge.plan.host or await has_zone(resolver)):
        return passed("names", f"{served}, and this host's resolver {resolver} asks there")
    if bridge.names_reason:
        return warned(
            "names",
            f"{served}, but this host does not ask there: {bridge.names_reason} (other ways: {RECIPES})",
            f"sudo apt-get install systemd-resolved && {around.start_anew}",
        )
    if _uses_resolved(around.nsswitch_conf):
        return passed("names", f"{served}, and the C library asks there through systemd-resolved")
    return warned(
        "names", f"{served}, but resolv.conf does not lead to systemd-resolved, which asks there", STUB
    )


def find_resolver(resolv_conf: Path) -> str | None:
    """Whom this host's programs ask first."""
    try:
        text = resolv_conf.read_text("utf-8", "replace")
    except OSError:
        return None
    resolvers = parse_resolvers(text, _NOBODY)
    return str(resolvers[0].address[0]) if resolvers else None


async def has_zone(server: str, port: int = PORT) -> bool:
    """Whether this server knows our zone, which is its own name server (no other zone of that name is). The SOA is
    asked for because systemd-resolved passes no question for addresses of a single label on
    (ResolveUnicastSingleLabel= in resolved.conf(5)). To a server that does not know it the question is harmless."""
    import dns.asyncquery  # dnspython is not for daemons without a bridge
    import dns.exception
    import dns.message
    import dns.name
    import dns.rdatatype
    import dns.rdtypes.ANY.SOA

    zone = dns.name.from_text(ZONE)
    question = dns.message.make_query(zone, dns.rdatatype.SOA)
    try:
        answer = await dns.asyncquery.udp(question, server, timeout=_ANSWER_S, port=port)
    except (OSError, dns.exception.DNSException):
        return False
    return any(
        isinstance(record, dns.rdtypes.ANY.SOA.SOA) and record.mname == zone
        for records in answer.answer
        for record in records
    )


def _uses_resolved(nsswitch_conf: Path) -> bool:
    """nss-resolve(8): asks systemd-resolved whatever resolv.conf says."""
    try:
        lines = nsswitch_conf.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any("resolve" in line.split() for line in lines if line.lstrip().startswith("hosts:"))
