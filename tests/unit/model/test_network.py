"""The rules for bridges and subnets, the keys that follow them, and that the root helper's contract has the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Problem
from banger.model.config import parse_config
from banger.model.machine import PortForward
from banger.model.network import (
    DEFAULT_BRIDGE,
    DEFAULT_CIDR,
    parse_bridge_cidr,
    parse_network,
    validate_bridge_name,
)
from banger.model.ports import PORTS_MAX, parse_publish
from banger.privileged.contract import values
from banger.privileged.contract.base import DESCRIPTORS_MAX
from banger.privileged.contract.values import PublishedPort, Refusal

NAMES = {
    DEFAULT_BRIDGE: True,
    "br-banger0": True,
    "br-bangerabc123": True,
    "br-bangerabc1234": False,
    "br-banger-0": False,
    "br-bangerA": False,
    "br-bangeré": False,
    "br-banger\n": False,
    "br-banger ": False,
    " br-banger": False,
    "br-bange": False,
    "xbr-banger": False,
    "br0": False,
    "docker0": False,
    "eth0": False,
    "../br-banger": False,
    "": False,
}
CIDRS = {
    DEFAULT_CIDR: True,
    "10.0.0.1/16": True,
    "10.0.0.1/29": True,
    "10.255.255.254/16": True,
    "172.16.0.1/24": True,
    "172.31.255.1/24": True,
    "192.168.77.77/24": True,
    "192.168.0.1/16": True,
    "10.209.0.200/24": True,
    "10.0.0.1/15": False,
    "10.0.0.1/30": False,
    "10.0.0.1/32": False,
    "10.0.0.1/0": False,
    "10.209.0.1": False,
    "10.209.0.0/24": False,
    "10.209.0.255/24": False,
    "172.32.0.1/24": False,
    "192.169.0.1/24": False,
    "192.0.2.1/24": False,
    "8.8.8.8/24": False,
    "127.0.0.1/16": False,
    "169.254.0.1/24": False,
    "0.0.0.0/24": False,
    "10.209.0.1/255.255.255.0": False,
    "10.209.0.1/024": False,
    "010.209.0.1/24": False,
    "10.209.1/24": False,
    "10.209.0.1/24 ": False,
    "10.209.0.1/-1": False,
    "10.209.0.1/x": False,
    "fd00::1/64": False,
    "": False,
}
NETWORKS = {
    "192.168.1.0/24": True,
    "0.0.0.0/0": True,
    "203.0.113.7/32": True,
    "192.168.1.1/24": False,
    "192.168.1.0": False,
    "192.168.1.0/255.255.255.0": False,
    "10/8": False,
    "::/0": False,
    "lan": False,
    "": False,
}
RULES = [
    (validate_bridge_name, values.validate_bridge, NAMES),
    (parse_bridge_cidr, values.parse_bridge_address, CIDRS),
    (parse_network, values.parse_network, NETWORKS),
]


def judge(rule, text):
    """`good`, or the code of the refusal."""
    try:
        rule(text)
    except Problem as problem:
        return problem.code.value
    except Refusal as refusal:
        return refusal.code
    return "good"


@pytest.mark.parametrize(
    ("ours", "helpers", "text", "good"),
    [(ours, theirs, text, good) for ours, theirs, verdicts in RULES for text, good in verdicts.items()],
)
def test_our_verdict_is_the_helpers_and_the_right_one(ours, helpers, text, good):
    expected = "good" if good else "bad_request"
    assert (judge(ours, text), judge(helpers, text)) == (expected, expected)


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_any_subnet_gets_one_verdict(address, length):
    text = f"{address}/{length}"
    assert judge(parse_bridge_cidr, text) == judge(values.parse_bridge_address, text)
    assert judge(parse_network, text) == judge(values.parse_network, text)


@given(st.from_regex(r"\A(br-banger)?[a-z0-9-]{0,8}\Z"))
def test_any_name_gets_one_verdict(name):
    assert judge(validate_bridge_name, name) == judge(values.validate_bridge, name)


def test_what_was_read_is_the_address_with_its_subnet():
    interface = parse_bridge_cidr("192.168.77.9/28")
    assert (str(interface), str(interface.network)) == ("192.168.77.9/28", "192.168.77.0/28")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.209.0.1/30", DEFAULT_CIDR),
        ("8.8.8.8/24", "192.168.0.0/16"),
        ("10.209.0.0/24", "10.209.0.1/24"),
        ("10.209.7.255/21", "10.209.0.1/21"),
    ],
)
def test_the_hint_is_a_subnet_that_would_do(text, hint):
    with pytest.raises(Problem) as caught:
        parse_bridge_cidr(text)
    assert hint in caught.value.hint


def test_whatever_can_be_published_passes_the_contract():
    """A port that we let pass must not be refused by the helper."""
    for text in ("1:1", "65535:65535/udp", "0.0.0.0:80:80", "255.255.255.255:80:80"):
        port = parse_publish(text)
        assert PublishedPort.__annotations__.keys() == PortForward.__annotations__.keys()
        PublishedPort(**{name: getattr(port, name) for name in PortForward.__struct_fields__}).validate()
    assert PORTS_MAX <= DESCRIPTORS_MAX


# The configuration's keys


def test_the_defaults_are_the_bridge_where_it_can_be_had_and_nothing_allowed():
    config = parse_config("", file="c.toml")
    assert (config.network, config.bridge_name, config.bridge_cidr) == ("auto", DEFAULT_BRIDGE, DEFAULT_CIDR)
    assert (config.tap_pool_size, config.allow_networks, config.allow_host_ports) == (4, (), ())
    assert config.allow_guests is False


def test_good_values_of_every_key_are_taken():
    config = parse_config(
        """
        network = "bridge"
        bridge_name = "br-banger7"
        bridge_cidr = "192.168.77.1/28"
        tap_pool_size = 64
        allow_networks = ["192.168.1.0/24", "10.0.0.7/32"]
        allow_host_ports = [1, 5432, 65535]
        allow_guests = true
        """,
        file="c.toml",
    )
    assert config.network == "bridge"
    assert (config.bridge_name, config.bridge_cidr) == ("br-banger7", "192.168.77.1/28")
    assert config.tap_pool_size == 64
    assert config.allow_networks == ("192.168.1.0/24", "10.0.0.7/32")
    assert (config.allow_host_ports, config.allow_guests) == ((1, 5432, 65535), True)


@pytest.mark.parametrize("value", ["auto", "bridge", "user"])
def test_every_mode_can_be_asked_for(value):
    assert parse_config(f'network = "{value}"', file="c.toml").network == value


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ('\nnetwork = "tap"', "c.toml:2: network:", '"auto", "bridge" or "user"'),
        ("network = true", "c.toml:1: network:", '"auto"'),
        ('\n\nbridge_name = "br0"', "c.toml:3: bridge_name: 'br0' is not a bridge", "at most six"),
        ('bridge_name = "docker0"', "c.toml:1: bridge_name:", "br-banger"),
        ('bridge_cidr = "10.209.0.1"', "c.toml:1: bridge_cidr: '10.209.0.1'", DEFAULT_CIDR),
        ('bridge_cidr = "10.209.0.0/24"', "c.toml:1: bridge_cidr: 10.209.0.0 is no", "10.209.0.1/24"),
        ('bridge_cidr = "8.8.8.8/24"', "c.toml:1: bridge_cidr: 8.8.8.0/24 is not private", "10.0.0.0/8"),
        ("bridge_cidr = 10", "c.toml:1: bridge_cidr:", DEFAULT_CIDR),
        ("tap_pool_size = -1", "c.toml:1: tap_pool_size:", "tap_pool_size = 4"),
        ("tap_pool_size = 65", "c.toml:1: tap_pool_size:", "tap_pool_size = 4"),
        ('tap_pool_size = "4"', "c.toml:1: tap_pool_size:", "tap_pool_size = 4"),
        (
            '\nallow_networks = ["192.168.1.1/24"]',
            "c.toml:2: allow_networks: '192.168.1.1/24'",
            "192.168.1.0",
        ),
        ('\nallow_networks = ["lan"]', "c.toml:2: allow_networks: 'lan'", "192.168.1.0/24"),
        ('\nallow_networks = "192.168.1.0/24"', "c.toml:2: allow_networks:", '["192.168.1.0/24"]'),
        ("\nallow_networks = [1]", "c.toml:2: allow_networks:", '["192.168.1.0/24"]'),
        ("\n\nallow_host_ports = [0]", "c.toml:3: allow_host_ports:", "[5432]"),
        ("\nallow_host_ports = [22, 65536]", "c.toml:2: allow_host_ports:", "[5432]"),
        ('\nallow_host_ports = ["ssh"]', "c.toml:2: allow_host_ports:", "[5432]"),
        ("allow_host_ports = 22", "c.toml:1: allow_host_ports:", "[5432]"),
        ("\nallow_guests = 1", "c.toml:2: allow_guests:", "allow_guests = true"),
        ("\nallow_network = []", "c.toml:2: allow_network: is no key", "allow_networks"),
    ],
)
def test_bad_values_name_file_line_and_key_and_show_a_good_one(text, where, hint):
    with pytest.raises(Problem) as caught:
        parse_config(text, file="c.toml")
    assert caught.value.brief.startswith(where)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.brief + caught.value.hint
