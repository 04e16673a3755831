import errno
import ipaddress
import os
import socket
import struct

import pytest

from banger.privileged.helper.attributes import (
    pack_attribute,
    pack_text,
    pack_u8,
    pack_u32,
    unpack_attributes,
    unpack_text,
    unpack_u32,
)
from banger.privileged.helper.netlink import Netlink, _parse_route


def test_attributes_are_padded_to_four_bytes() -> None:
    assert pack_text(3, "br0") == b"\x08\x00\x03\x00br0\0"
    assert pack_text(3, "br-1") == b"\x09\x00\x03\x00br-1\0\0\0\0"
    assert pack_u8(23, 1) == b"\x05\x00\x17\x00\x01\0\0\0"
    assert pack_u32(27, 7) == struct.pack("=HHI", 8, 27, 7)


def test_attributes_come_back() -> None:
    data = pack_text(3, "tap") + pack_attribute(18, pack_text(1, "bridge")) + pack_u32(10, 42)
    found = unpack_attributes(b"head" + data, 4)
    assert unpack_text(found[3]) == "tap"
    assert unpack_text(unpack_attributes(found[18])[1]) == "bridge"
    assert unpack_u32(found[10]) == 42


def test_the_nested_flag_is_no_part_of_the_type() -> None:
    assert unpack_attributes(struct.pack("=HH", 4, 18 | 0x8000)) == {18: b""}


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\x03\x00\x01\x00", b"\xff\xff\x01\x00abcd", b"\x00\x00\x01\x00" * 3]
)
def test_attributes_that_are_cut_off_end_the_list(data: bytes) -> None:
    assert unpack_attributes(data) == {}


@pytest.mark.parametrize("value", [None, b"", b"\0\0", bytes(8)])
def test_a_number_that_is_none_is_zero(value: bytes | None) -> None:
    assert unpack_u32(value) == 0


class TestRoutes:
    def route(
        self, *attributes: bytes, length: int = 24, table: int = 254, kind: int = 1, flags: int = 0
    ) -> bytes:
        return struct.pack("=BBBBBBBBI", 2, length, 0, 0, table, 3, 0, kind, flags) + b"".join(attributes)

    def test_a_network_by_a_gateway(self) -> None:
        network = socket.inet_aton("192.0.2.0")
        found = _parse_route(
            self.route(
                pack_attribute(1, network), pack_u32(4, 7), pack_attribute(5, socket.inet_aton("192.0.2.1"))
            )
        )
        assert found == (ipaddress.IPv4Network("192.0.2.0/24"), 7, "192.0.2.1")

    def test_the_default_route_has_no_destination(self) -> None:
        found = _parse_route(self.route(pack_u32(4, 7), length=0))
        assert found == (ipaddress.IPv4Network("0.0.0.0/0"), 7, "")

    def test_of_several_ways_the_first_stands_for_all(self) -> None:
        gateway = pack_attribute(5, socket.inet_aton("192.0.2.1"))
        hops = struct.pack("=HBBi", 8 + len(gateway), 0, 0, 7) + gateway + struct.pack("=HBBi", 8, 0, 0, 8)
        found = _parse_route(self.route(pack_attribute(9, hops), length=0))
        assert found == (ipaddress.IPv4Network("0.0.0.0/0"), 7, "192.0.2.1")

    @pytest.mark.parametrize(
        ("table", "kind", "flags"), [(255, 1, 0), (254, 2, 0), (254, 6, 0), (254, 7, 0), (254, 1, 0x200)]
    )
    def test_local_blackhole_and_cloned_routes_are_left_out(self, table: int, kind: int, flags: int) -> None:
        assert _parse_route(self.route(table=table, kind=kind, flags=flags)) is None

    def test_a_large_table_number_is_an_attribute(self) -> None:
        assert _parse_route(self.route(pack_u32(15, 255), table=252)) is None
        assert _parse_route(self.route(pack_u32(15, 51820), table=252)) is not None


class TestKernel:
    """What everybody may ask."""

    def test_the_loopback_is_there_and_nothing_else_of_that_name(self) -> None:
        netlink = Netlink()
        found = netlink.find_link("lo")
        assert found is not None
        assert (found.name, found.kind, found.master, found.mac) == ("lo", "", 0, "00:00:00:00:00:00")
        assert found in netlink.list_links()
        assert netlink.find_link("bng-ffffffff") is None
        netlink.close()

    def test_routes_and_addresses_are_told(self) -> None:
        netlink = Netlink()
        for route in netlink.list_routes():
            assert route.device >= 0
        netlink.list_addresses()
        netlink.close()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root would do it")
    def test_what_is_not_permitted_is_an_error_of_the_kernels(self) -> None:
        netlink = Netlink()
        with pytest.raises(OSError) as error:
            netlink.add_bridge("br-bangerunit", "06:62:00:00:00:01")
        assert error.value.errno == errno.EPERM
        assert netlink.find_link("lo") is not None  # the socket goes on
        netlink.close()
