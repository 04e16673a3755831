"""Taps: made on the bridge, down, each living as long as somebody holds its descriptor (tun.rst of the kernel).

They are not persistent, so nothing that is killed leaves one. They are isolated ports of the bridge unless the policy
in force lets guests reach one another: a second barrier, which holds when somebody flushes the nftables ruleset.
"""

import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Sequence
from contextlib import suppress

from banger.privileged.contract.network import Tap, Taps
from banger.privileged.contract.values import TAP_PREFIX, Refusal
from banger.privileged.helper.bridge import Bridge, disable_ipv6
from banger.privileged.helper.host import Host, is_our_tap
from banger.privileged.helper.managed import Root, open_below, write_below
from banger.privileged.helper.netlink import Link
from banger.privileged.helper.nftables import NftError
from banger.privileged.helper.refusals import tun_missing
from banger.privileged.helper.ruleset import are_guests_separate

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x4000, 0x8000
_IFREQ = struct.Struct("16sH22x")
_ARP_NEVER = "8"  # frames to reserved multicast MACs arrive here and not on the bridge: nobody answers them
_GROUP_WORTH = 4  # fewer are deleted one by one


def create_taps(host: Host, bridge: Bridge, count: int) -> tuple[Taps, tuple[int, ...]]:
    """All or none. The descriptors are the caller's."""
    names: list[str] = []
    descriptors: list[int] = []
    try:
        for _ in range(count):
            name = TAP_PREFIX + secrets.token_hex(4)
            descriptors.append(_open_tap(name))
            names.append(name)
            disable_ipv6(name)
            write_below(Root.IPV4, ("conf", name, "arp_ignore"), _ARP_NEVER)
        host.netlink.attach(names, bridge.link.ifindex, isolated=_isolates(host))
    except BaseException as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, OSError) and error.errno == errno.EXFULL:
            raise Refusal("unavailable", f"{bridge.name} has no room for {count} more taps") from error
        raise
    return Taps(taps=tuple(Tap(name=name, up=False) for name in names)), tuple(descriptors)


def list_taps(host: Host, bridge: Link | None) -> Taps:
    links = host.netlink.list_links(master=bridge.ifindex) if bridge is not None else []
    ours = sorted((link for link in links if is_our_tap(link)), key=lambda link: link.name)
    return Taps(taps=tuple(Tap(name=link.name, up=link.up) for link in ours))


def delete_taps(host: Host, names: Sequence[str]) -> None:
    """Whoever holds them still. Several go as one group, for which the kernel waits once. A name of ours that is no
    tap is left alone."""
    if len(names) < _GROUP_WORTH:
        for name in names:
            link = host.netlink.find_link(name)
            if link is not None and is_our_tap(link):
                _delete_one(host, link)
        return
    wanted = set(names)
    links = host.netlink.list_links()
    taps = [link for link in links if link.name in wanted and is_our_tap(link)]
    if not taps:
        return
    group = _choose_group({link.group for link in links})
    host.netlink.set_group((link.ifindex for link in taps), group)
    try:
        host.netlink.delete_group(group)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ESRCH):  # all of them went by themselves
            raise


def isolate_taps(host: Host, bridge: Bridge, *, isolated: bool) -> None:
    links = host.netlink.list_links(master=bridge.link.ifindex)
    host.netlink.set_isolated((link.name for link in links if is_our_tap(link)), isolated=isolated)


def find_tap(host: Host, name: str) -> Link | None:
    link = host.netlink.find_link(name)
    return link if link is not None and is_our_tap(link) else None


def verify_tun() -> None:
    """Raises Refusal where this host can have no taps."""
    os.close(_open_tun())


def _open_tap(name: str) -> int:
    descriptor = _open_tun()
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_tun() -> int:
    try:
        return open_below(Root.TUN, ("tun",), os.O_RDWR)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR):
            raise tun_missing() from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise Refusal(
                "unavailable",
                "the root helper may not open /dev/net/tun",
                "allow the device 10:200 in the container",
            ) from error
        raise


def _delete_one(host: Host, link: Link) -> None:
    try:
        host.netlink.delete_link(link.ifindex)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _isolates(host: Host) -> bool:
    """As the policy in force says; without tables nobody reaches anybody."""
    with suppress(NftError):
        return are_guests_separate(host.nft)
    return True


def _choose_group(taken: set[int]) -> int:
    """A number that no link has: deleting a group deletes whatever is in it."""
    while (group := secrets.randbits(31)) in taken | {0}:
        pass
    return group
