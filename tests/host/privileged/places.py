"""Network namespaces that a test makes, enters and leaves: all in one process, the machine's own is never touched.

A socket stays in the namespace it was made in, so a test opens sockets inside of a place and uses them from outside.
"""

import ctypes
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)
PATIENCE_S, QUICK_S = 5.0, 0.4  # for what shall come, and for what shall not
_OWN = "/proc/thread-self/ns/net"


def call_kernel(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


class Place:
    """A network namespace, with its loopback up; IPv6 addresses are there at once. Lives until it is closed."""

    def __init__(self) -> None:
        own = os.open(_OWN, os.O_RDONLY)
        call_kernel("unshare", CLONE_NEWNET)
        self.descriptor = os.open(_OWN, os.O_RDONLY)
        call_kernel("setns", own, CLONE_NEWNET)
        os.close(own)
        self.run("ip", "link", "set", "lo", "up")
        self.set_value("net/ipv6/conf/default/accept_dad", 0)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self.descriptor)

    @contextmanager
    def inside(self) -> Iterator[None]:
        own = os.open(_OWN, os.O_RDONLY)
        call_kernel("setns", self.descriptor, CLONE_NEWNET)
        try:
            yield
        finally:
            call_kernel("setns", own, CLONE_NEWNET)
            os.close(own)

    def run(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        with self.inside():
            done = subprocess.run(argv, capture_output=True, text=True, input=stdin, timeout=60)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def set_value(self, key: str, value: int) -> None:
        with self.inside():
            Path("/proc/sys", *key.split("/")).write_text(str(value))

    def get_value(self, key: str) -> int:
        with self.inside():
            return int(Path("/proc/sys", *key.split("/")).read_text())

    def open_socket(
        self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, protocol: int = 0
    ) -> socket.socket:
        with self.inside():
            made = socket.socket(family, kind, protocol)
        made.settimeout(5)
        return made

    def bound(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        made = self.open_socket(kind)
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen(8)
        return made

    def traces(self) -> tuple[str, str, str]:
        """What a test must leave as it found it: links, ruleset, routes. A carrier follows with a delay and is not
        part of it."""
        links = [
            f"{link['ifname']} {link['address']} {link.get('master')} {link['group']} {link['mtu']} {'UP' in link['flags']}"
            for link in json.loads(self.run("ip", "-j", "link"))
        ]
        return (
            "\n".join(links),
            self.run("nft", "list", "ruleset"),
            self.run("ip", "route", "show", "table", "all").replace(" linkdown", ""),
        )

    def add_link(self, name: str) -> None:
        """Some interface that is none of banger's, up."""
        self.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"peer{os.urandom(3).hex()}")
        self.run("ip", "link", "set", name, "up")


def try_tcp(place: Place, address: str, port: int, *, timeout_s: float = PATIENCE_S) -> str:
    """`open`, or how it failed: `refused`, `unreachable`, `silent`."""
    with place.open_socket() as client:
        client.settimeout(timeout_s)
        try:
            client.connect((address, port))
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silent"
        except OSError:
            return "unreachable"
    return "open"


def try_ping(place: Place, address: str, *, timeout_s: float = PATIENCE_S) -> bool:
    """An ICMP echo and its reply."""
    with place.open_socket(socket.SOCK_RAW, protocol=socket.IPPROTO_ICMP) as pinger:
        pinger.settimeout(timeout_s)
        try:
            pinger.sendto(bytes.fromhex("0800f7fe00000001"), (address, 0))
            while True:
                answer, (sender, _) = pinger.recvfrom(200)
                if sender == address and answer[20] == 0:
                    return True
        except OSError:  # a timeout is one
            return False
