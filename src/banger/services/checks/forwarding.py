"""Does what guests with NAT send leave this host? Forwarding may be off, or another firewall may drop it.

Our own tables cannot help it: a packet has to pass every chain on the forward hook, whoever made it. Each recipe lets
all of our bridge's traffic pass there, because what guests may reach is decided in our own table.
"""

from banger.api.system import Finding
from banger.base.problem import Problem
from banger.model.vm import NetworkMode
from banger.privileged.contract.network import ForwardDrop, InspectHost
from banger.services.checks.contract import CheckSurroundings, passed, warned

FORWARD = "sudo sysctl -w net.ipv4.ip_forward=1"


async def check(around: CheckSurroundings) -> Finding:
    standing, bridge = await around.networks.settle(), around.networks.bridge
    if standing.mode is NetworkMode.USER or bridge is None:
        return passed("forwarding", "not needed in user mode")
    try:
        state = (await bridge.privileged.call(InspectHost())).result
    except Problem as problem:
        return warned("forwarding", f"not known: {problem.brief}", problem.hint)
    wrong, fixes = [], []
    if not state.ip_forward:
        wrong.append("this host does not forward IPv4: --nat and ports published beyond loopback are refused")
        fixes.append(FORWARD)
    for drop in state.drops:
        wrong.append(f"{_say_who(drop)} drops what guests with NAT send: {_say_where(drop)}")
        fixes.extend(plan_passage(drop, bridge.plan.name))
    if wrong:
        return warned("forwarding", "; ".join(wrong), " && ".join(dict.fromkeys(fixes)))
    return passed("forwarding", "IPv4 is forwarded, and no other firewall drops it")


def plan_passage(drop: ForwardDrop, bridge: str) -> tuple[str, ...]:
    """The commands that let the bridge's traffic pass the chain, by the tool that owns it. Pure."""
    match drop.owner:
        case "docker":
            return _insert("DOCKER-USER", bridge)
        case "ufw":
            return (
                f"sudo ufw route allow in on {bridge}",
                f"sudo ufw route allow out on {bridge}",
                f"sudo ufw allow in on {bridge} to any port 53",
            )
        case "firewalld":
            return (
                f"sudo firewall-cmd --permanent --zone=trusted --add-interface={bridge}",
                "sudo firewall-cmd --reload",
            )
    if (drop.family, drop.table, drop.chain) == ("ip", "filter", "FORWARD"):
        return _insert(drop.chain, bridge)
    place = f"{drop.family} {drop.table} {drop.chain}"
    return tuple(f"sudo nft insert rule {place} {side} {bridge} accept" for side in ("iifname", "oifname"))


def _insert(chain: str, bridge: str) -> tuple[str, ...]:
    """Both directions: connections are tracked, but nothing says that the other's rules look at that."""
    return tuple(f"sudo iptables -I {chain} {side} {bridge} -j ACCEPT" for side in ("-i", "-o"))


def _say_who(drop: ForwardDrop) -> str:
    return "a firewall of unknown origin" if drop.owner == "unknown" else drop.owner


def _say_where(drop: ForwardDrop) -> str:
    return f"chain {drop.chain} of table {drop.family} {drop.table}"
