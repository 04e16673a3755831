"""What NAT and names depend on, looked at and never changed: forwarding, nftables, resolver, others' firewalls."""

import re
from contextlib import suppress
from typing import Any

from banger.privileged.contract.network import ForwardDrop, HostState
from banger.privileged.helper import names
from banger.privileged.helper.firewall import TABLE
from banger.privileged.helper.host import Host
from banger.privileged.helper.managed import Root, read_below
from banger.privileged.helper.nftables import NftError
from banger.privileged.helper.passage import lets_bridge_pass

_FAMILIES = ("ip", "inet")  # guests have IPv4 only
_FIREWALLD = "firewalld"
_REFUSING = ("drop", "reject")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.\\/-]*")  # nft's grammar; it is asked about by this name


def inspect_host(host: Host) -> HostState:
    version = host.nft.find_version()
    return HostState(
        ip_forward=is_forwarding(),
        nft=version,
        resolved=names.is_running(),
        drops=tuple(_list_drops(host)) if version else (),
    )


def is_forwarding() -> bool:
    return read_below(Root.IPV4, ("ip_forward",)).strip() == "1"


def _list_drops(host: Host) -> list[ForwardDrop]:
    chains = [item["chain"] for item in host.nft.query("list chains") if "chain" in item]
    drops = find_drops(chains)
    for chain in chains:
        if _is_forward(chain) and chain["table"] == _FIREWALLD and chain.get("policy") != "drop":
            with suppress(NftError):  # removed meanwhile
                if ends_in_refusal(
                    host.nft.query(f"list chain {chain['family']} {_FIREWALLD} {chain['name']}")
                ):
                    drops.append(_drop(chain, _FIREWALLD))
    return [drop for drop in drops if not _lets_bridge_pass(host, drop)]


def _lets_bridge_pass(host: Host, drop: ForwardDrop) -> bool:
    """Whether somebody has followed the doctor's advice."""
    if _WORD.fullmatch(drop.table) is None:
        return False
    with suppress(NftError):  # removed meanwhile
        return lets_bridge_pass(host.nft.query(f"list table {drop.family} {drop.table}"), drop.chain)
    return False


def find_drops(chains: list[dict[str, Any]]) -> list[ForwardDrop]:
    """Base chains of others' on the forward hook whose policy is drop, with whoever made them. Pure."""
    return [
        _drop(chain, _find_owner(chain, chains))
        for chain in chains
        if _is_forward(chain) and chain.get("policy") == "drop"
    ]


def ends_in_refusal(items: list[dict[str, Any]]) -> bool:
    """Whether a chain's last rule drops or rejects whatever gets there: no condition before it. Pure."""
    rules = [item["rule"] for item in items if "rule" in item]
    if not rules:
        return False
    *conditions, verdict = rules[-1].get("expr", [{}])
    return any(word in verdict for word in _REFUSING) and not any("match" in each for each in conditions)


def _is_forward(chain: dict[str, Any]) -> bool:
    return (
        chain.get("hook") == "forward"
        and chain["family"] in _FAMILIES
        and chain["table"] != TABLE
        and _WORD.fullmatch(chain["name"]) is not None
    )


def _find_owner(chain: dict[str, Any], chains: list[dict[str, Any]]) -> str:
    """By the other chains of its table. Docker before ufw: its DOCKER-USER chain is where both can be answered."""
    if chain["table"] == _FIREWALLD:
        return _FIREWALLD
    place = (chain["family"], chain["table"])
    beside = [each["name"] for each in chains if (each["family"], each["table"]) == place]
    for owner, prefix in (("docker", "DOCKER"), ("ufw", "ufw-")):
        if any(name.startswith(prefix) for name in beside):
            return owner
    return "unknown"


def _drop(chain: dict[str, Any], owner: str) -> ForwardDrop:
    return ForwardDrop(family=chain["family"], table=chain["table"], chain=chain["name"], owner=owner)
