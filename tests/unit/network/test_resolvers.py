"""The host's resolvers: which lines of resolv.conf name one, and that a changed file is read again."""

import socket
from ipaddress import IPv4Address

from banger.network.resolvers import HostResolvers, Resolver, parse_resolvers


def test_the_hosts_resolvers_are_read_as_the_c_library_does():
    text = (
        "# nameserver 192.0.2.1\n nameserver 192.0.2.2\nnameserver\nnameserver 192.0.2.3 # note\n"
        "search nameserver 192.0.2.4\nnameserver\t2001:db8::5\nnameservers 192.0.2.6\nnameserver example.com\n"
        "nameserver 192.0.2.3\nnameserver 10.209.0.1\nnameserver ::ffff:10.209.0.1\nnameserver fe80::1%lo\n"
        "nameserver fe80::1%nolink\nnameserver 192.0.2.9\n"
    )
    assert parse_resolvers(text, IPv4Address("10.209.0.1")) == (
        Resolver(socket.AF_INET, ("192.0.2.3", 53)),
        Resolver(socket.AF_INET6, ("2001:db8::5", 53, 0, 0)),
        Resolver(socket.AF_INET6, ("fe80::1", 53, 0, socket.if_nametoindex("lo"))),
    )


def test_the_hosts_list_is_read_again_when_the_file_has_changed(tmp_path):
    path = tmp_path / "resolv.conf"
    resolvers = HostResolvers(IPv4Address("10.209.0.1"), path)
    assert resolvers() == ()
    path.write_text("nameserver 192.0.2.1\n")
    assert [resolver.address[0] for resolver in resolvers()] == ["192.0.2.1"]
    other = tmp_path / "other"
    other.write_text("nameserver 192.0.2.2\n")
    other.rename(path)
    assert [resolver.address[0] for resolver in resolvers()] == ["192.0.2.2"]
    path.unlink()
    assert resolvers() == ()
    path.write_bytes(b"\xff\xfe\nnameserver 192.0.2.3\n")
    assert [resolver.address[0] for resolver in resolvers()] == ["192.0.2.3"]
