"""Whether somebody else's firewall lets our bridge through, by its own rules. Pure; works on what `nft -j` lists.

No simulation: it looks for what people write (`DOCKER-USER -i br-banger -j ACCEPT`, a zone of firewalld's), rules whose
only condition is our bridge, on the way from the chain that drops.
"""

from collections.abc import Iterator
from typing import Any

from banger.privileged.contract.values import BRIDGE_PATTERN

Rule = list[dict[str, Any]]  # its expressions
_NO_CONDITIONS = (
    "accept",
    "counter",
    "goto",
    "jump",
    "log",
)  # anything else may be one, matches of iptables' (xt) too


def lets_bridge_pass(items: list[dict[str, Any]], chain: str) -> bool:
    """Of a table's objects and the base chain that drops: what comes from our bridge is accepted, and so is what goes
    there, at least as an answer."""
    rules: dict[str, list[Rule]] = {}
    for rule in (item["rule"] for item in items if "rule" in item):
        rules.setdefault(rule["chain"], []).append(rule.get("expr", []))
    accepted = [_list_conditions(rule) for rule in _walk(rules, chain) if _accepts(rules, rule)]
    return any(_is_ours(each, "iifname") for each in accepted) and any(
        _is_ours(each, "oifname") or _is_answer(each) for each in accepted
    )


def _walk(rules: dict[str, list[Rule]], start: str) -> Iterator[Rule]:
    """Every rule that can be reached."""
    seen, waiting = {start}, [start]
    while waiting:
        for rule in rules.get(waiting.pop(), []):
            yield rule
            for target in _list_targets(rule):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)


def _list_targets(rule: Rule) -> list[str]:
    return [each[verb]["target"] for each in rule for verb in ("jump", "goto") if verb in each]


def _list_conditions(rule: Rule) -> Rule:
    return [each for each in rule if not any(word in each for word in _NO_CONDITIONS)]


def _accepts(rules: dict[str, list[Rule]], rule: Rule) -> bool:
    """Itself, or in the chain that it leads to, without another condition."""
    if any("accept" in each for each in rule):
        return True
    return any(
        any("accept" in each for each in inner) and not _list_conditions(inner)
        for target in _list_targets(rule)
        for inner in rules.get(target, [])
    )


def _is_ours(conditions: Rule, key: str) -> bool:
    match conditions:
        case [{"match": {"op": "==", "left": {"meta": {"key": found}}, "right": str(name)}}]:
            return found == key and BRIDGE_PATTERN.fullmatch(name) is not None
    return False


def _is_answer(conditions: Rule) -> bool:
    """`ct state established`, for everybody. The right side is one word, a list of flags, or a set."""
    match conditions:
        case [
            {"match": {"op": "==" | "in", "left": {"ct": {"key": "state"}}, "right": {"set": list(states)}}}
        ]:
            return "established" in states
        case [
            {
                "match": {
                    "op": "==" | "in",
                    "left": {"ct": {"key": "state"}},
                    "right": str() | list() as states,
                }
            }
        ]:
            return "established" in states
    return False
