"""Other firewalls that have been told to let the bridge through, as `nft -j` lists them.

The rules are what Docker, ufw 0.36 and firewalld 1.3 write (iptables-nft 1.8.9, nftables 1.0.6), shortened.
"""

import pytest

from banger.privileged.helper.passage import lets_bridge_pass

COUNTER = {"counter": {"packets": 7, "bytes": 468}}
ACCEPT, DROP, RETURN = {"accept": None}, {"drop": None}, {"return": None}
CONNTRACK = {"xt": {"type": "match", "name": "conntrack"}}  # iptables' own matches are not told


def link(key: str, name: str, op: str = "==") -> dict:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": name}}


def jump(target: str, verb: str = "jump") -> dict:
    return {verb: {"target": target}}


def table(*rules: tuple) -> list[dict]:
    """Each rule is its chain, then its expressions."""
    items: list[dict] = [{"metainfo": {"version": "1.0.6"}}, {"chain": {"name": "FORWARD"}}]
    return items + [{"rule": {"chain": chain, "expr": list(expr)}} for chain, *expr in rules]


IN, OUT = link("iifname", "br-banger"), link("oifname", "br-banger")
ESTABLISHED = {
    "match": {
        "op": "==",
        "left": {"ct": {"key": "state"}},
        "right": {"set": ["established", "related"]},
    }
}


def docker(*user: tuple) -> list[dict]:
    return table(
        *(("DOCKER-USER", *rule) for rule in user),
        ("DOCKER-USER", COUNTER, RETURN),
        ("FORWARD", COUNTER, jump("DOCKER-USER")),
        ("FORWARD", link("oifname", "docker0"), ESTABLISHED, COUNTER, ACCEPT),
        ("FORWARD", link("iifname", "docker0"), link("oifname", "docker0", "!="), COUNTER, ACCEPT),
    )


def ufw(*user: tuple) -> list[dict]:
    return table(
        ("FORWARD", COUNTER, jump("ufw-before-forward")),
        ("ufw-before-forward", CONNTRACK, COUNTER, ACCEPT),
        ("ufw-before-forward", COUNTER, jump("ufw-user-forward")),
        *(("ufw-user-forward", *rule) for rule in user),
    )


def firewalld(*zones: tuple) -> list[dict]:
    return table(
        ("FORWARD", ESTABLISHED, ACCEPT),
        ("FORWARD", link("iifname", "lo"), ACCEPT),
        ("FORWARD", jump("filter_FORWARD_ZONES")),
        ("FORWARD", {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}),
        *(("filter_FORWARD_ZONES", *rule) for rule in zones),
        ("filter_FORWARD_ZONES", jump("filter_FWD_public", "goto")),
        ("filter_FWD_trusted", jump("filter_FWD_trusted_pre")),
        ("filter_FWD_trusted", ACCEPT),
        ("filter_FWD_public", jump("filter_FWD_public_pre")),
        ("filter_FWD_public", {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}),
    )


TRUSTED, PUBLIC = jump("filter_FWD_trusted", "goto"), jump("filter_FWD_public", "goto")


@pytest.mark.parametrize(
    ("items", "passes"),
    [
        (docker(), False),
        (docker((IN, COUNTER, ACCEPT)), False),  # tried: the answers are dropped
        (docker((OUT, COUNTER, ACCEPT)), False),
        (docker((IN, COUNTER, ACCEPT), (OUT, COUNTER, ACCEPT)), True),
        (docker((IN, COUNTER, DROP), (OUT, COUNTER, ACCEPT)), False),
        (docker((IN, CONNTRACK, COUNTER, ACCEPT), (OUT, COUNTER, ACCEPT)), False),
        (docker((link("iifname", "br-lan"), ACCEPT), (link("oifname", "br-lan"), ACCEPT)), False),
        (docker((link("iifname", "br-banger", "!="), ACCEPT), (OUT, ACCEPT)), False),
        (docker((link("iifname", "br-banger2"), ACCEPT), (link("oifname", "br-banger2"), ACCEPT)), True),
        (docker((link("iifname", "br-banger-x"), ACCEPT), (OUT, ACCEPT)), False),
        (ufw(), False),
        (ufw((IN, COUNTER, ACCEPT)), False),  # would do for NAT, not for published ports
        (ufw((IN, COUNTER, ACCEPT), (OUT, COUNTER, ACCEPT)), True),
        (firewalld(), False),
        (firewalld((IN, TRUSTED)), True),
        (firewalld((IN, PUBLIC)), False),
        (firewalld((link("iifname", "eth0"), TRUSTED)), False),
    ],
)
def test_a_bridge_is_let_through_where_both_directions_are(items, passes):
    assert lets_bridge_pass(items, "FORWARD") is passes


def test_rules_that_the_dropping_chain_does_not_lead_to_count_for_nothing():
    rules = [("INPUT", IN, ACCEPT), ("DOCKER-USER", IN, ACCEPT), ("DOCKER-USER", OUT, ACCEPT)]
    assert lets_bridge_pass(table(*rules), "FORWARD") is False


@pytest.mark.parametrize("right", ["established", ["established", "related"], {"set": ["established"]}])
def test_a_state_is_told_in_three_ways(right):
    answer = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": right}}
    assert lets_bridge_pass(table(("FORWARD", IN, ACCEPT), ("FORWARD", answer, ACCEPT)), "FORWARD") is True


def test_chains_that_lead_in_a_circle_come_to_an_end():
    rules = [("FORWARD", jump("a")), ("a", jump("b")), ("b", jump("a"))]
    assert lets_bridge_pass(table(*rules), "FORWARD") is False
