import ipaddress
from pathlib import Path

import pytest

from banger.privileged.contract.values import Guest, Policy, PublishedPort
from banger.privileged.helper.firewall import (
    render_admission,
    render_publication,
    render_release,
    render_removal,
    render_tables,
    render_unpublication,
)

GOLDEN = Path(__file__).parent / "golden"
INTERFACE = ipaddress.IPv4Interface("10.209.0.1/24")
ONE = Guest(tap="bng-0000000a", mac="02:00:00:00:00:0a", address="10.209.0.2", nat=True)
TWO = Guest(tap="bng-0000000b", mac="02:00:00:00:00:0b", address="10.209.0.3", nat=False)
PORTS = (
    PublishedPort(protocol="tcp", host_address="127.0.0.1", host_port=8080, guest_port=80),
    PublishedPort(protocol="udp", host_address="0.0.0.0", host_port=5353, guest_port=53),
    PublishedPort(protocol="tcp", host_address="192.0.2.1", host_port=8443, guest_port=443),
)


@pytest.mark.parametrize(
    ("name", "policy", "guests"),
    [
        ("closed", Policy(), ()),
        (
            "open",
            Policy(
                denied=("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/17", "192.168.128.0/17"),
                allowed=("10.1.2.0/24", "10.1.3.0/24"),
                host_ports=(8000, 53, 8000),
                guests=True,
            ),
            (ONE, TWO),
        ),
    ],
)
def test_the_tables(name: str, policy: Policy, guests: tuple[Guest, ...]) -> None:
    assert render_tables("br-banger", INTERFACE, policy, guests) == (GOLDEN / f"{name}.nft").read_text()


def test_the_tables_replace_what_was_there_in_one_transaction() -> None:
    text = render_tables("br-banger", INTERFACE, Policy(), ())
    assert text.startswith(render_removal())
    assert render_removal() == (
        "add table bridge banger\ndelete table bridge banger\nadd table inet banger\ndelete table inet banger\n"
    )


def test_admission_says_both_what_a_guest_has_and_what_it_has_not() -> None:
    assert render_admission(ONE) == (
        "add element bridge banger guests { bng-0000000a . 02:00:00:00:00:0a . 10.209.0.2 }\n"
        "add element inet banger nat { 10.209.0.2 }\n"
    )
    assert render_admission(TWO) == (
        "add element bridge banger guests { bng-0000000b . 02:00:00:00:00:0b . 10.209.0.3 }\n"
        "add element inet banger nat { 10.209.0.3 }\n"
        "delete element inet banger nat { 10.209.0.3 }\n"
    )


def test_a_release_deletes_what_may_not_be_there() -> None:
    assert render_release([ONE], ["10.209.0.2", "10.209.0.9"]) == (
        "add element bridge banger guests { bng-0000000a . 02:00:00:00:00:0a . 10.209.0.2 }\n"
        "delete element bridge banger guests { bng-0000000a . 02:00:00:00:00:0a . 10.209.0.2 }\n"
        "add element inet banger nat { 10.209.0.2, 10.209.0.9 }\n"
        "delete element inet banger nat { 10.209.0.2, 10.209.0.9 }\n"
    )
    assert render_release([], []) == ""


def test_published_ports_are_in_the_map_of_their_kind() -> None:
    assert render_publication("10.209.0.2", PORTS) == (
        "add element inet banger published_at { tcp . 127.0.0.1 . 8080 : 10.209.0.2 . 80, "
        "tcp . 192.0.2.1 . 8443 : 10.209.0.2 . 443 }\n"
        "add element inet banger published_any { udp . 5353 : 10.209.0.2 . 53 }\n"
    )
    assert render_unpublication("10.209.0.2", PORTS[:1]) == (
        "delete element inet banger published_at { tcp . 127.0.0.1 . 8080 : 10.209.0.2 . 80 }\n"
    )
    assert render_unpublication("10.209.0.2", ()) == ""
