"""What our tables hold now, read through `nft -j`. Parsing is pure; `Ruleset` asks.

The other direction, from contract to text, is `firewall`.
"""

from typing import Any, NamedTuple

from banger.privileged.contract.values import Guest, PublishedPort
from banger.privileged.helper.firewall import ANY_ADDRESS, TABLE
from banger.privileged.helper.nftables import Nft


class Publication(NamedTuple):
    """A port of the host that leads to a guest now."""

    guest_address: str
    port: PublishedPort

    @property
    def key(self) -> tuple[str, str, int]:
        return (self.port.protocol, self.port.host_address, self.port.host_port)


def list_admitted(nft: Nft) -> list[Guest]:
    """Whether they have NAT is not told here: `list_nat`. Raises NftError (ENOENT) without tables, as all do."""
    elements = _elements(nft.query(f"list set bridge {TABLE} guests"), "set")
    return [
        Guest(tap=tap, mac=mac, address=address, nat=False)
        for tap, mac, address in (each["concat"] for each in elements)
    ]


def list_nat(nft: Nft) -> list[str]:
    return [str(each) for each in _elements(nft.query(f"list set inet {TABLE} nat"), "set")]


def list_publications(nft: Nft) -> list[Publication]:
    found = [
        parse_publication(*element)
        for name in ("published_at", "published_any")
        for element in _elements(nft.query(f"list map inet {TABLE} {name}"), "map")
    ]
    return sorted(found, key=lambda publication: publication.key)


def are_guests_separate(nft: Nft) -> bool:
    """Whether the policy in force keeps guests from one another."""
    chains = [item["chain"] for item in nft.query("list chains bridge") if "chain" in item]
    return any((chain["table"], chain["name"]) == (TABLE, "forward") for chain in chains)


def parse_publication(key: dict[str, Any], value: dict[str, Any]) -> Publication:
    protocol, *address, host_port = key["concat"]
    guest_address, guest_port = value["concat"]
    port = PublishedPort(
        protocol=protocol,
        host_address=address[0] if address else ANY_ADDRESS,
        host_port=int(host_port),
        guest_port=int(guest_port),
    )
    return Publication(guest_address, port)


def _elements(items: list[dict[str, Any]], kind: str) -> list[Any]:
    return [element for item in items for element in item.get(kind, {}).get("elem", ())]
