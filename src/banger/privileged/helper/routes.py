"""The host's IPv4 routes, as the contract tells them and as they are in the way of a subnet."""

import ipaddress
from collections.abc import Collection, Iterable

from banger.privileged.contract.network import Route
from banger.privileged.helper.host import Host, is_our_bridge
from banger.privileged.helper.netlink import KernelRoute

DEFAULT_PREFIX_MAX = (
    7  # VPNs write the default route as 0.0.0.0/1 and 128.0.0.0/1; private ranges begin with /8
)


def list_host_routes(host: Host) -> tuple[Route, ...]:
    """Our own bridge's left out."""
    links = {link.ifindex: link for link in host.netlink.list_links()}
    routes = []
    for route in host.netlink.list_routes():
        link = links.get(route.device)
        if link is not None and is_our_bridge(link):
            continue
        routes.append(
            Route(destination=str(route.destination), device=link.name if link else "", gateway=route.gateway)
        )
    return tuple(routes)


def find_overlap(
    routes: Iterable[KernelRoute], subnet: ipaddress.IPv4Network, own_devices: Collection[int]
) -> KernelRoute | None:
    """A route into the subnet, or of which the subnet would cut out a part. Default routes are none. Pure."""
    for route in routes:
        is_default = route.destination.prefixlen <= DEFAULT_PREFIX_MAX
        if not is_default and route.device not in own_devices and route.destination.overlaps(subnet):
            return route
    return None
