"""The ways into the kernel that requests share, and which interfaces are ours."""

from banger.privileged.contract.values import BRIDGE_PATTERN, TAP_PATTERN
from banger.privileged.helper.conntrack import Conntrack
from banger.privileged.helper.netlink import Link, Netlink
from banger.privileged.helper.nftables import Nft

TAP_KIND = "tun"
BRIDGE_KIND = "bridge"


class Host:
    """This network namespace. Nothing is opened before it is needed."""

    def __init__(self) -> None:
        self.netlink = Netlink()
        self.nft = Nft()
        self.conntrack = Conntrack()

    def close(self) -> None:
        self.netlink.close()
        self.nft.close()
        self.conntrack.close()


def is_our_tap(link: Link) -> bool:
    return link.kind == TAP_KIND and TAP_PATTERN.fullmatch(link.name) is not None


def is_our_bridge(link: Link) -> bool:
    """By its name alone: one of our names that is no bridge is refused, never deleted."""
    return BRIDGE_PATTERN.fullmatch(link.name) is not None
