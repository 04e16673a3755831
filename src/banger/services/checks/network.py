"""Which network VMs get: the bridge, through whom, or user mode, and why not the bridge."""

from banger.api.system import Finding
from banger.model.vm import NetworkMode
from banger.network.user import GATEWAY
from banger.privileged.contract.processes import Hello
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned
from banger.services.hostnet.bridge import BridgeNetwork

CAVEAT = f"a guest with --nat reaches this host's loopback, too (at {GATEWAY})"


async def check(around: CheckSurroundings) -> Finding:
    """Asks and makes nothing: the bridge is the daemon's to open, here it is only waited for."""
    if around.config.network == "user":
        return passed("network", f"user mode, as the configuration says; {CAVEAT}")
    standing = await around.networks.settle()
    bridge = around.networks.bridge
    if standing.mode is NetworkMode.BRIDGE:
        assert bridge is not None
        return passed("network", f"bridge {bridge.plan.name}, {bridge.plan.cidr}, {await _greet(bridge)}")
    reason, fix = standing.reason, standing.hint or None
    if bridge is None and around.root_socket.exists():
        reason = "the root helper came after this daemon, which is to be started anew"
        fix = around.start_anew
    if around.config.network == "bridge":
        return failed("network", f'no VM can start: network = "bridge" cannot be had: {reason}', fix)
    return warned("network", f"user mode: {reason}; {CAVEAT}", fix)


async def _greet(bridge: BridgeNetwork) -> str:
    """Who acts as root now. Raises Problem when nobody answers any more."""
    greeting = (await bridge.privileged.call(Hello())).result
    if bridge.privileged.kind == "in-process":
        return "by this daemon itself, which is root"
    return f"through the root helper (build {greeting.build}, pid {greeting.pid})"
