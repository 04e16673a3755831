"""Guests in the tables: who may speak on which tap, who has NAT, whose ports are published.

An admission puts the elements in before the tap goes up, a release takes the tap down before they go.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from banger.privileged.contract.values import Guest, Policy, PublishedPort, Refusal, parse_address, refuse
from banger.privileged.helper.bridge import Bridge, apply_tables
from banger.privileged.helper.firewall import (
    render_admission,
    render_publication,
    render_release,
    render_tables,
    render_unpublication,
)
from banger.privileged.helper.host import Host
from banger.privileged.helper.host_state import is_forwarding
from banger.privileged.helper.nftables import NftError
from banger.privileged.helper.refusals import forwarding_off, tables_missing, tap_missing
from banger.privileged.helper.ruleset import list_admitted, list_nat, list_publications
from banger.privileged.helper.tap import find_tap, isolate_taps


def apply_guests(host: Host, bridge: Bridge, policy: Policy, guests: Sequence[Guest]) -> None:
    for guest in guests:
        _verify_guest(bridge, guest)
    apply_tables(host, render_tables(bridge.name, bridge.interface, policy, guests))
    isolate_taps(host, bridge, isolated=not policy.guests)


def admit_guest(host: Host, bridge: Bridge, guest: Guest) -> None:
    _verify_guest(bridge, guest)
    tap = find_tap(host, guest.tap)
    if tap is None or tap.master != bridge.link.ifindex:
        raise tap_missing(guest.tap, bridge.name)
    if guest.nat and not is_forwarding():
        raise forwarding_off()
    with _tables_expected():
        host.nft.run(render_admission(guest))
    try:
        host.netlink.set_up(guest.tap, up=True)
    except OSError as error:
        host.nft.run(render_release([guest], [guest.address]))
        if error.errno == errno.ENODEV:
            raise tap_missing(guest.tap, bridge.name) from error
        raise


def release_guest(host: Host, guest: Guest) -> None:
    """What it has published goes as well, and its flows: another guest may get its address."""
    if find_tap(host, guest.tap) is not None:
        try:
            host.netlink.set_up(guest.tap, up=False)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
    try:
        published = _list_published(host, guest.address)
        host.nft.run(
            render_unpublication(guest.address, published) + render_release([guest], [guest.address])
        )
    except NftError as error:
        if error.errno != errno.ENOENT:
            raise
    host.conntrack.forget(guest.address)


def publish_ports(host: Host, bridge: Bridge, address: str, ports: Sequence[PublishedPort]) -> None:
    """The sockets that came along have been looked at: `ports.verify_sockets`."""
    _verify_address(bridge, address)
    if not is_forwarding() and not all(_is_loopback(port.host_address) for port in ports):
        raise forwarding_off()
    with _tables_expected():
        leads = {publication.key: publication for publication in list_publications(host.nft)}
    fresh = []
    for port in ports:
        known = leads.get((port.protocol, port.host_address, port.host_port))
        if known is None:
            fresh.append(port)
        elif (known.guest_address, known.port) != (address, port):
            raise Refusal(
                "conflict",
                f"port {port.host_address}:{port.host_port}/{port.protocol} leads to "
                f"{known.guest_address}:{known.port.guest_port} already",
                f"publish another port, for example {port.host_port % 65535 + 1}",
            )
    if fresh:
        with _tables_expected():
            host.nft.run(render_publication(address, fresh))


def unpublish_ports(host: Host, address: str, ports: Sequence[PublishedPort]) -> None:
    """Those that lead elsewhere are somebody else's and stay."""
    try:
        present = [port for port in _list_published(host, address) if port in ports]
        if present:
            host.nft.run(render_unpublication(address, present))
    except NftError as error:
        if error.errno != errno.ENOENT:
            raise


def release_gone(host: Host, taps: set[str]) -> None:
    """Takes out what belongs to taps that are not among these."""
    try:
        admitted = list_admitted(host.nft)
        alive = {guest.address for guest in admitted if guest.tap in taps}
        gone = [guest for guest in admitted if guest.tap not in taps]
        text = render_release(gone, [address for address in list_nat(host.nft) if address not in alive])
        for publication in list_publications(host.nft):
            if publication.guest_address not in alive:
                text += render_unpublication(publication.guest_address, [publication.port])
        if text:
            host.nft.run(text)
    except NftError as error:
        if error.errno != errno.ENOENT:
            raise
    else:
        for guest in gone:
            host.conntrack.forget(guest.address)


def _list_published(host: Host, address: str) -> list[PublishedPort]:
    return [each.port for each in list_publications(host.nft) if each.guest_address == address]


@contextmanager
def _tables_expected() -> Iterator[None]:
    try:
        yield
    except NftError as error:
        if error.errno == errno.ENOENT:
            raise tables_missing() from error
        raise


def _verify_guest(bridge: Bridge, guest: Guest) -> None:
    _verify_address(bridge, guest.address)
    if guest.mac == bridge.link.mac:
        raise refuse(f"{guest.mac} is the bridge's own MAC address")


def _verify_address(bridge: Bridge, text: str) -> None:
    address, subnet = parse_address(text), bridge.interface.network
    reserved = (bridge.interface.ip, subnet.network_address, subnet.broadcast_address)
    if address not in subnet or address in reserved:
        raise refuse(f"{address} is not a guest's address in {subnet}")


def _is_loopback(text: str) -> bool:
    return parse_address(text).is_loopback
