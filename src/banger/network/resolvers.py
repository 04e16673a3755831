"""The host's own resolvers, as /etc/resolv.conf has them and the C library reads it."""

import ipaddress
import os
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

RESOLV_CONF = Path("/etc/resolv.conf")
PORT = 53
RESOLVERS_MAX = 3  # as resolv.conf(5) has it
_FILE_BYTES_MAX = 64 * 1024


class Resolver(NamedTuple):
    """Whom to ask, as socket(2) and connect(2) take it."""

    family: int
    address: tuple[Any, ...]


def parse_resolvers(text: str, own: IPv4Address) -> tuple[Resolver, ...]:
    """The name servers of a resolv.conf. Our own is left out: a question would go in circles."""
    found: list[Resolver] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver" or not line.startswith("nameserver"):
            continue
        resolver = _parse_resolver(words[1], own)
        if resolver is not None and resolver not in found:
            found.append(resolver)
    return tuple(found[:RESOLVERS_MAX])


def _parse_resolver(text: str, own: IPv4Address) -> Resolver | None:
    try:
        address = ipaddress.ip_address(text)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        if (mapped or address) == own:
            return None
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        family, _, _, _, found = socket.getaddrinfo(text, PORT, type=socket.SOCK_DGRAM, flags=numeric)[0]
    except (ValueError, OSError):  # no address, or of an interface that is not there
        return None
    return Resolver(family, (str(found[0]).partition("%")[0], *found[1:]))


class HostResolvers:
    """The host's list, read again when its file has changed."""

    def __init__(self, own: IPv4Address, path: Path = RESOLV_CONF) -> None:
        self._own = own
        self._path = path
        self._read: tuple[int, ...] | None = None
        self._resolvers: tuple[Resolver, ...] = ()

    def __call__(self) -> Sequence[Resolver]:
        """Empty when there is no such file."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 (once for each question)
            state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if state != self._read:
                with self._path.open("rb") as file:
                    text = file.read(_FILE_BYTES_MAX).decode("utf-8", "replace")
                self._resolvers = parse_resolvers(text, self._own)
                self._read = state
        except OSError:
            self._read, self._resolvers = None, ()
        return self._resolvers
