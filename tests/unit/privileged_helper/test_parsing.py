"""What other programs and the kernel say, and what we tell them."""

import errno
import ipaddress
import os

import pytest

from banger.privileged.contract.network import ForwardDrop
from banger.privileged.contract.values import PublishedPort
from banger.privileged.helper.host_state import ends_in_refusal, find_drops
from banger.privileged.helper.names import plan_routing, reverse_zones
from banger.privileged.helper.netlink import KernelRoute
from banger.privileged.helper.nftables import NftError
from banger.privileged.helper.processes import parse_real_uid, parse_start_time
from banger.privileged.helper.refusals import translate
from banger.privileged.helper.routes import find_overlap
from banger.privileged.helper.ruleset import Publication, parse_publication


class TestResolved:
    def test_the_server_is_made_known_last(self) -> None:
        interface = ipaddress.IPv4Interface("10.209.0.1/24")
        assert plan_routing("/usr/bin/resolvectl", "br-banger", interface, "vm") == (
            ("/usr/bin/resolvectl", "default-route", "br-banger", "no"),
            ("/usr/bin/resolvectl", "dnssec", "br-banger", "no"),
            ("/usr/bin/resolvectl", "dnsovertls", "br-banger", "no"),
            ("/usr/bin/resolvectl", "llmnr", "br-banger", "no"),
            ("/usr/bin/resolvectl", "mdns", "br-banger", "no"),
            ("/usr/bin/resolvectl", "domain", "br-banger", "~vm", "~0.209.10.in-addr.arpa"),
            ("/usr/bin/resolvectl", "dns", "br-banger", "10.209.0.1"),
        )

    @pytest.mark.parametrize(
        ("network", "zones"),
        [
            ("10.209.0.0/16", ("209.10.in-addr.arpa",)),
            ("10.209.4.0/23", ("4.209.10.in-addr.arpa", "5.209.10.in-addr.arpa")),
            ("192.168.7.0/24", ("7.168.192.in-addr.arpa",)),
            ("10.209.0.248/29", tuple(f"{n}.0.209.10.in-addr.arpa" for n in range(248, 256))),
        ],
    )
    def test_reverse_names_cover_the_subnet_and_no_more(self, network: str, zones: tuple[str, ...]) -> None:
        assert reverse_zones(ipaddress.IPv4Network(network)) == zones

    @pytest.mark.parametrize("length", range(16, 30))
    def test_there_are_never_more_than_systemd_takes(self, length: int) -> None:
        assert len(reverse_zones(ipaddress.IPv4Network(f"10.0.0.0/{length}"))) <= 128


class TestProcesses:
    @pytest.mark.parametrize("command", ["qemu", "a b", "x) R 1", ")", "((", "x) S 1 2 3 4 5 6 7 8 9"])
    def test_a_commands_name_does_not_shift_the_fields(self, command: str) -> None:
        fields = " ".join(str(number) for number in range(4, 53))
        assert parse_start_time(f"77 ({command}) S {fields}\n") == 22

    def test_the_real_uid_is_the_first(self) -> None:
        assert parse_real_uid("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\n") == 1000


def chain(table: str, name: str, policy: str = "drop", **more: str) -> dict[str, str]:
    return {"family": "ip", "table": table, "name": name, "hook": "forward", "policy": policy} | more


class TestOthersFirewalls:
    def test_whoever_drops_is_named_by_the_chains_beside(self) -> None:
        chains = [
            chain("filter", "FORWARD"),
            {"family": "ip", "table": "filter", "name": "DOCKER-USER"},
            {"family": "ip", "table": "filter", "name": "ufw-user-forward"},
            chain("filter", "FORWARD", family="inet"),
            {"family": "inet", "table": "filter", "name": "ufw-user-forward"},
            chain("firewalld", "filter_FORWARD", family="inet"),
            chain("mine", "forward"),
        ]
        assert [(drop.family, drop.table, drop.owner) for drop in find_drops(chains)] == [
            ("ip", "filter", "docker"),
            ("inet", "filter", "ufw"),
            ("inet", "firewalld", "firewalld"),
            ("ip", "mine", "unknown"),
        ]
        assert find_drops(chains)[0] == ForwardDrop(
            family="ip", table="filter", chain="FORWARD", owner="docker"
        )

    @pytest.mark.parametrize(
        "other",
        [
            chain("filter", "FORWARD", "accept"),
            chain("filter", "FORWARD", family="ip6"),
            chain("filter", "FORWARD", family="bridge"),
            chain("banger", "forward", family="inet"),
            chain("filter", "INPUT", hook="input"),
            {"family": "ip", "table": "filter", "name": "FORWARD"},
            chain("filter", "a } ; flush ruleset"),
        ],
    )
    def test_what_does_not_drop_is_not_told(self, other: dict[str, str]) -> None:
        assert find_drops([other]) == []

    @pytest.mark.parametrize(
        ("rules", "refuses"),
        [
            ([], False),
            ([[{"match": {}}, {"accept": None}]], False),
            ([[{"reject": {"type": "icmpx"}}]], True),
            ([[{"drop": None}]], True),
            ([[{"counter": {}}, {"drop": None}]], True),
            ([[{"match": {}}, {"drop": None}]], False),
            ([[{"drop": None}], [{"match": {}}, {"accept": None}]], False),
        ],
    )
    def test_a_chain_that_ends_in_a_refusal_is_known(self, rules: list, refuses: bool) -> None:
        items = [{"chain": {}}, *({"rule": {"expr": expression}} for expression in rules)]
        assert ends_in_refusal(items) is refuses


class TestOverlap:
    SUBNET = ipaddress.IPv4Network("10.209.0.0/24")

    @pytest.mark.parametrize("text", ["10.209.0.0/24", "10.209.0.0/16", "10.0.0.0/8", "10.209.0.5/32"])
    def test_a_route_into_the_subnet_is_found(self, text: str) -> None:
        route = KernelRoute(ipaddress.IPv4Network(text), 7, "")
        assert find_overlap([route], self.SUBNET, ()) == route
        assert find_overlap([route], self.SUBNET, {7}) is None

    @pytest.mark.parametrize(
        "text", ["0.0.0.0/0", "0.0.0.0/1", "8.0.0.0/5", "10.208.0.0/24", "192.168.0.0/16"]
    )
    def test_default_routes_and_others_are_none(self, text: str) -> None:
        assert find_overlap([KernelRoute(ipaddress.IPv4Network(text), 7, "")], self.SUBNET, ()) is None


def test_published_ports_are_read_back() -> None:
    at = parse_publication({"concat": ["tcp", "127.0.0.1", 8080]}, {"concat": ["10.209.0.2", 80]})
    anywhere = parse_publication({"concat": ["udp", 53]}, {"concat": ["10.209.0.2", 53]})
    assert at == Publication(
        "10.209.0.2", PublishedPort(protocol="tcp", host_address="127.0.0.1", host_port=8080, guest_port=80)
    )
    assert anywhere.key == ("udp", "0.0.0.0", 53)


@pytest.mark.parametrize(
    ("complaint", "number", "text"),
    [
        ("Error: Could not process rule: File exists\nadd element …\n   ^^^\n", errno.EEXIST, "Could not process rule: File exists"),
        ("/dev/stdin:1:1-5: Error: No such file or directory; did you mean …\n", errno.ENOENT, "No such file or directory; did you mean …"),
        ("Error: Could not process rule: Operation not permitted\n", errno.EPERM, "Could not process rule: Operation not permitted"),
        ("Error: syntax error, unexpected string\n", 0, "syntax error, unexpected string"),
        ("", 0, "nftables failed without a word"),
    ],
)  # fmt: skip
def test_a_complaint_of_nftables_becomes_an_error(complaint: str, number: int, text: str) -> None:
    error = NftError(complaint)
    assert (error.errno, error.strerror) == (number, text)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EPERM, "unavailable"),
        (errno.EACCES, "unavailable"),
        (errno.EROFS, "unavailable"),
        (errno.EMFILE, "unavailable"),
        (errno.EINVAL, "internal"),
    ],
)
def test_errors_of_the_kernel_become_refusals(number: int, code: str) -> None:
    refusal = translate(OSError(number, os.strerror(number), "disable_ipv6"))
    assert refusal.code == code
    assert refusal.message.endswith(f"disable_ipv6: {os.strerror(number)}")
