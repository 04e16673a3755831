"""Guests without VMs: a namespace with a tap of its own whose frames are carried to a tap of banger's and back.

A frame can also be written by hand, as a hostile guest would.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys

from tests.host.privileged.places import Place

_TUNSETIFF = 0x400454CA
_FLAGS = 0x0002 | 0x1000 | 0x4000  # TAP, NO_PI, VNET_HDR
VNET_HEADER = bytes(10)
BROADCAST = "ff:ff:ff:ff:ff:ff"

_PUMP = """
import os, select, sys
one, other = int(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
while True:
    for source in select.select((one, other), (), ())[0]:
        try:
            frame = os.read(source, 70000)
        except OSError:
            sys.exit()
        try:
            os.write(other if source == one else one, frame)
        except OSError:
            pass  # the tap at the other end is down
"""


class PretendGuest:
    """Has an address, a MAC and a default route by way of the bridge; the kernel's own network stack speaks."""

    def __init__(self, tap: int, mac: str, address: str, gateway: str, length: int = 24) -> None:
        self.tap = tap
        self.mac = mac
        self.address = address
        self.place = Place()
        with self.place.inside():
            own = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(own, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _FLAGS))
        self.place.set_value("net/ipv6/conf/eth0/disable_ipv6", 1)
        self.place.run("ip", "link", "set", "eth0", "address", mac, "up")
        self.place.run("ip", "address", "add", f"{address}/{length}", "dev", "eth0")
        self.place.run("ip", "route", "add", "default", "via", gateway)
        self._pump = subprocess.Popen(
            (sys.executable, "-c", _PUMP, str(tap), str(own)), pass_fds=(tap, own), stdout=subprocess.PIPE
        )
        os.close(own)
        assert self._pump.stdout is not None
        assert self._pump.stdout.readline() == b"ready\n"

    def close(self) -> None:
        self._pump.kill()
        self._pump.wait()
        assert self._pump.stdout is not None
        self._pump.stdout.close()
        self.place.__exit__()


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, target: str, kind: int, payload: bytes) -> bytes:
    return mac_bytes(target) + mac_bytes(source) + struct.pack("!H", kind) + payload


def vlan(source: str, target: str, tag: int, kind: int, payload: bytes) -> bytes:
    return mac_bytes(target) + mac_bytes(source) + struct.pack("!HHH", 0x8100, tag, kind) + payload


def udp4(source: str, target: str, source_port: int, port: int, data: bytes = b"hello") -> bytes:
    """An IPv4 packet with UDP, its UDP checksum left out."""
    udp = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(udp),
        1,
        0,
        64,
        17,
        0,
        socket.inet_aton(source),
        socket.inet_aton(target),
    )
    return header[:10] + _checksum(header) + header[12:] + udp


def arp(operation: int, mac: str, address: str, target: str, target_mac: str = "00:00:00:00:00:00") -> bytes:
    return (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        + mac_bytes(mac)
        + socket.inet_aton(address)
        + mac_bytes(target_mac)
        + socket.inet_aton(target)
    )


def udp6_all_nodes(source_mac: str, data: bytes) -> bytes:
    """A UDP datagram from a link-local address to all nodes."""
    source = socket.inet_pton(socket.AF_INET6, "fe80::1")
    target = socket.inet_pton(socket.AF_INET6, "ff02::1")
    udp = struct.pack("!HHHH", 5000, 5000, 8 + len(data), 0) + data
    packet = struct.pack("!IHBB", 0x60000000, len(udp), 17, 1) + source + target + udp
    return ethernet(source_mac, "33:33:00:00:00:01", 0x86DD, packet)


def _checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
