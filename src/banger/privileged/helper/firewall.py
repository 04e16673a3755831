"""The text of our two nftables tables and of every change to them. Pure: text in a fixed order, golden tests.

`table bridge banger` says who may speak: a frame from a tap is IPv4 or ARP and has the MAC and the address that belong
to that tap, or it is dropped; taps do not reach one another. `table inet banger` says what is reached: NAT, denied and
allowed networks, the host's own ports, published ports. Other traffic of the host leaves both at their first rule.

Everything in the text has passed the contract's validation: names, addresses and numbers, no words of a caller's.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from banger.privileged.contract.values import TAP_PREFIX, Guest, Policy, PublishedPort

TABLE = "banger"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - a word of the contract
GUESTS_PORTS = "32768-60999"  # where Linux takes ports for outgoing connections
CLOSED = Policy(denied=("0.0.0.0/0",))  # until the daemon has said its policy

_BRIDGE_TABLE = """\
table bridge banger {{
  set guests {{ type ifname . ether_addr . ipv4_addr; {guests} }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "{taps}*" accept
    ether type ip iifname . ether saddr . ip saddr @guests accept
    ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
iifname . ether saddr . arp saddr ip @guests iifname . arp saddr ether . arp saddr ip @guests accept
    drop
  }}
{between_taps}}}
"""
_BETWEEN_TAPS = """\
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname "{taps}*" oifname "{taps}*" drop
  }}
"""

# A revoked NAT or a new policy cuts flows that run: packets of a guest's own flows pass by @nat alone, in both
# directions, never because their connection is established.
# 127/8 on the bridge: route_localnet is on there, for ports published on loopback. Frames to a reserved multicast MAC
# (01:80:c2:00:00:0x) leave the bridge on the tap itself, hence `iifname "bng-*"`.
# A guest's address comes from the bridge only, whatever rp_filter says: the name server goes by it, and so does NAT.
# NAT gives guests ports of the range that nobody serves on: not those that tell NFS and rsh of root, and none whose
# service would lose its callers to the guest that has spoken to them first.
# Packets to 127/8 from a link are not looked up among the published ports: DNAT comes before the martian check.
_INET_TABLE = """\
table inet banger {{
  set nat {{ type ipv4_addr; {nat} }}
  set denied {{ type ipv4_addr; flags interval; {denied} }}
  set allowed {{ type ipv4_addr; flags interval; {allowed} }}
  set host_ports {{ type inet_service; {host_ports} }}
  map published_at {{ type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  map published_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{taps}*" drop
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname != {{ "{bridge}", "lo" }} ip saddr {subnet} drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{bridge}" return
    ip daddr 127.0.0.0/8 return
    fib daddr type local jump published
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump published
  }}
  chain published {{
    dnat ip to meta l4proto . ip daddr . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published_any
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname != "{bridge}" ip saddr @nat meta l4proto {{ tcp, udp }} masquerade to :{ports}
    oifname != "{bridge}" ip saddr @nat masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" goto from_guest
    oifname "{bridge}" goto to_guest
  }}
  chain from_guest {{
    oifname "{bridge}" {between_guests}
    ct direction reply ct state established,related accept
    ip saddr @nat ip daddr @allowed accept
    ip saddr @nat ip daddr != @denied accept
    ct state established meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }}
  chain to_guest {{
    ct direction reply ct state established,related ip daddr @nat accept
    ct status dnat accept
    drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{bridge}" goto to_host
  }}
  chain to_host {{
    ct state established,related accept
    ip daddr {address} meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr {address} icmp type echo-request accept
    ip daddr {address} meta l4proto {{ tcp, udp }} th dport @host_ports accept
    reject with icmpx admin-prohibited
  }}
}}
"""


def render_tables(
    bridge: str, interface: ipaddress.IPv4Interface, policy: Policy, guests: Sequence[Guest]
) -> str:
    """Both tables anew, whatever was in them, in one transaction."""
    inet = _INET_TABLE.format(
        bridge=bridge,
        address=interface.ip,
        subnet=interface.network,
        ports=GUESTS_PORTS,
        taps=TAP_PREFIX,
        nat=_elements(guest.address for guest in guests if guest.nat),
        denied=_elements(_collapse(policy.denied)),
        allowed=_elements(_collapse(policy.allowed)),
        host_ports=_elements(str(port) for port in sorted(set(policy.host_ports))),
        between_guests="accept" if policy.guests else "drop",
    )
    layer2 = _BRIDGE_TABLE.format(
        taps=TAP_PREFIX,
        guests=_elements(_identity(guest) for guest in guests),
        between_taps="" if policy.guests else _BETWEEN_TAPS.format(taps=TAP_PREFIX),
    )
    return render_removal() + layer2 + inet


def render_removal() -> str:
    """Both tables are gone afterwards, whether they were there or not."""
    return "".join(
        f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("bridge", "inet")
    )


def render_admission(guest: Guest) -> str:
    """The guest's elements are there; it is in @nat or not, as it says."""
    text = _change("add", "bridge", "guests", [_identity(guest)]) + _change(
        "add", "inet", "nat", [guest.address]
    )
    return text if guest.nat else text + _change("delete", "inet", "nat", [guest.address])


def render_release(guests: Sequence[Guest], nat: Sequence[str]) -> str:
    """The elements are gone, whether they were there or not: what is added first can be deleted."""
    identities = [_identity(guest) for guest in guests]
    return "".join(
        _change(verb, family, name, elements)
        for family, name, elements in (("bridge", "guests", identities), ("inet", "nat", nat))
        for verb in ("add", "delete")
        if elements
    )


def render_publication(guest_address: str, ports: Sequence[PublishedPort]) -> str:
    return _render_ports("add", guest_address, ports)


def render_unpublication(guest_address: str, ports: Sequence[PublishedPort]) -> str:
    """Of ports that are there."""
    return _render_ports("delete", guest_address, ports)


def _render_ports(verb: str, guest_address: str, ports: Sequence[PublishedPort]) -> str:
    at = [port for port in ports if port.host_address != ANY_ADDRESS]
    everywhere = [port for port in ports if port.host_address == ANY_ADDRESS]
    text = ""
    if at:
        text += _change(
            verb,
            "inet",
            "published_at",
            [
                f"{port.protocol} . {port.host_address} . {port.host_port} : {guest_address} . {port.guest_port}"
                for port in at
            ],
        )
    if everywhere:
        text += _change(
            verb,
            "inet",
            "published_any",
            [
                f"{port.protocol} . {port.host_port} : {guest_address} . {port.guest_port}"
                for port in everywhere
            ],
        )
    return text


def _change(verb: str, family: str, name: str, elements: Iterable[str]) -> str:
    return f"{verb} element {family} {TABLE} {name} {{ {', '.join(elements)} }}\n"


def _elements(elements: Iterable[str]) -> str:
    text = ", ".join(elements)
    return f"elements = {{ {text} }}" if text else ""


def _identity(guest: Guest) -> str:
    return f"{guest.tap} . {guest.mac} . {guest.address}"


def _collapse(networks: Iterable[str]) -> list[str]:
    """Without overlaps, which an interval set refuses."""
    return [
        str(network)
        for network in ipaddress.collapse_addresses(ipaddress.IPv4Network(text) for text in networks)
    ]
