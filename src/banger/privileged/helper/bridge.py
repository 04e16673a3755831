"""The bridge: made with its address and its tables, or refused as a whole.

There is one bridge of ours at a time. Spanning tree and multicast snooping are off, IPv6 is off, `route_localnet` is on
for ports published on loopback (the tables drop what guests send to 127/8).
"""

import errno
import ipaddress
from contextlib import ExitStack, suppress
from typing import NamedTuple

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.firewall import CLOSED, TABLE, render_removal, render_tables
from banger.privileged.helper.host import BRIDGE_KIND, Host, is_our_bridge, is_our_tap
from banger.privileged.helper.managed import Root, write_below
from banger.privileged.helper.names import unroute_names
from banger.privileged.helper.netlink import Link
from banger.privileged.helper.nftables import NftError
from banger.privileged.helper.refusals import BRIDGE_HINT, bridge_missing
from banger.privileged.helper.routes import find_overlap

_OTHER_SUBNET = 'set bridge_cidr in config.toml, for example bridge_cidr = "10.210.0.1/24"'
_ARP_OWN = "1"  # answers for the address of this link alone: guests do not learn the host's others
_STOP_HINT = "banger vm list, then: banger vm stop NAME"


class Bridge(NamedTuple):
    link: Link
    interface: ipaddress.IPv4Interface

    @property
    def name(self) -> str:
        return self.link.name


def get_bridge(host: Host, name: str) -> Bridge:
    """Raises Refusal `not_found` for one that is not there or is half made."""
    link = host.netlink.find_link(name)
    if link is None or link.kind != BRIDGE_KIND:
        raise bridge_missing(name)
    addresses = host.netlink.list_addresses(link.ifindex)
    if len(addresses) != 1:
        raise bridge_missing(name)
    return Bridge(link, addresses[0])


def ensure_bridge(host: Host, name: str, interface: ipaddress.IPv4Interface) -> bool:
    """Whether bridge or tables had to be made. What can be refused is looked at before anything is changed."""
    host.nft.ensure()
    links = host.netlink.list_links()
    ours = [link for link in links if is_our_bridge(link)]
    present = _find_present(host, ours, name, interface)
    if present is None or not count_taps(links, ours):
        _refuse_overlap(host, interface.network, ours)
    if present is None:
        _refuse_removal(links, ours)
        for link in ours:
            _remove_link(host, link)
        _make(host, name, interface)
        return True
    complete = _has_tables(host)
    if not complete:
        apply_tables(host, render_tables(name, interface, CLOSED, ()))
    if not present.up:
        host.netlink.set_up(name, up=True)
    return not complete


def remove_bridge(host: Host, name: str) -> None:
    links = host.netlink.list_links()
    ours = [link for link in links if is_our_bridge(link)]
    wanted = [link for link in ours if link.name == name]
    _refuse_removal(links, wanted)
    if wanted:
        host.nft.ensure()
    for link in wanted:
        _remove_link(host, link)
    if not any(link.kind == BRIDGE_KIND for link in ours if link not in wanted):
        _remove_tables(host)


def remove_all(host: Host, links: list[Link]) -> None:
    """Every bridge of ours among these links, none of which has taps, and the tables even where there is no bridge."""
    for link in links:
        if is_our_bridge(link) and link.kind == BRIDGE_KIND:
            _remove_link(host, link)
    _remove_tables(host)


def count_taps(links: list[Link], bridges: list[Link]) -> int:
    """Taps of ours on these bridges."""
    masters = {bridge.ifindex for bridge in bridges}
    return sum(is_our_tap(link) and link.master in masters for link in links)


def apply_tables(host: Host, text: str) -> None:
    try:
        host.nft.run(text)
    except NftError as error:
        if error.errno in (errno.EPERM, errno.ENOMEM):
            raise
        raise Refusal(
            "unavailable", f"this kernel does not take banger's nftables tables: {error.strerror}"
        ) from error


def derive_mac(address: ipaddress.IPv4Address) -> str:
    """The bridge's own, the same for the same address: guests that are restored remember it. Guests' begin with 02."""
    return (b"\x06\x62" + address.packed).hex(":")


def _find_present(host: Host, ours: list[Link], name: str, interface: ipaddress.IPv4Interface) -> Link | None:
    """The bridge as it is wanted, the only one of ours; it may be down."""
    if len(ours) != 1 or ours[0].name != name or ours[0].kind != BRIDGE_KIND:
        return None
    return ours[0] if host.netlink.list_addresses(ours[0].ifindex) == [interface] else None


def _refuse_removal(links: list[Link], bridges: list[Link]) -> None:
    for bridge in bridges:
        if bridge.kind != BRIDGE_KIND:
            raise Refusal(
                "conflict",
                f"{bridge.name} is a {bridge.kind or 'device'}, not a bridge",
                "set bridge_name in config.toml",
            )
        if taps := count_taps(links, [bridge]):
            raise Refusal("conflict", f"{bridge.name} is in use: it has {taps} taps", _STOP_HINT)


def _refuse_overlap(host: Host, subnet: ipaddress.IPv4Network, ours: list[Link]) -> None:
    overlap = find_overlap(host.netlink.list_routes(), subnet, {link.ifindex for link in ours})
    if overlap is not None:
        device = next(
            (f" by {link.name}" for link in host.netlink.list_links() if link.ifindex == overlap.device), ""
        )
        raise Refusal(
            "conflict",
            f"{subnet} overlaps {overlap.destination}, which this host reaches{device}",
            _OTHER_SUBNET,
        )
    own = {found for link in ours for found in host.netlink.list_addresses(link.ifindex)}
    for found in host.netlink.list_addresses():
        if found.ip in subnet and found not in own:
            raise Refusal("conflict", f"{found.ip} in {subnet} is this host's own already", _OTHER_SUBNET)


def _has_tables(host: Host) -> bool:
    found = {
        (item["table"]["family"], item["table"]["name"])
        for item in host.nft.query("list tables")
        if "table" in item
    }
    return {("bridge", TABLE), ("inet", TABLE)} <= found


def _make(host: Host, name: str, interface: ipaddress.IPv4Interface) -> None:
    """Tables first: there is no moment in which a port could speak unfiltered. What fails leaves nothing."""
    with ExitStack() as undo:
        apply_tables(host, render_tables(name, interface, CLOSED, ()))
        undo.callback(host.nft.run, render_removal())
        _add_link(host, name, interface.ip)
        link = host.netlink.find_link(name)
        assert link is not None
        undo.callback(host.netlink.delete_link, link.ifindex)
        disable_ipv6(name)
        write_below(Root.IPV4, ("conf", name, "route_localnet"), "1")
        write_below(Root.IPV4, ("conf", name, "arp_ignore"), _ARP_OWN)
        host.netlink.add_address(link.ifindex, interface)
        host.netlink.set_up(name, up=True)
        undo.pop_all()


def _add_link(host: Host, name: str, address: ipaddress.IPv4Address) -> None:
    try:
        host.netlink.add_bridge(name, derive_mac(address))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Refusal("unavailable", "this kernel has no bridges", BRIDGE_HINT) from error
        raise


def disable_ipv6(name: str) -> None:
    """Guests have none: what they send of it is dropped, and the host offers none. A kernel without it has no file."""
    with suppress(FileNotFoundError):
        write_below(Root.IPV6, ("conf", name, "disable_ipv6"), "1")


def _remove_tables(host: Host) -> None:
    with suppress(Refusal):  # where there is no nftables there is no table of ours
        host.nft.run(render_removal())


def _remove_link(host: Host, link: Link) -> None:
    with suppress(Refusal):  # the settings vanish with the link
        unroute_names(link.name)
    host.netlink.delete_link(link.ifindex)
