"""Requests that are nearly right, for the fuzz run. Deterministic for a seed."""

import copy
import json
import random
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 9, 53, 80, 65535, 65536, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**300, 0.0, 1.5, -0.0,
    1e308, "", " ", "\0", ".", "..", "/", "../../etc/shadow", "/etc/passwd", "/dev/sda", "br0", "eth0", "docker0", "lo",
    "br-banger", "br-banger/../eth0", "br-bangerzz\n", "bng-00000000", "bng-*", "bng-\u0660\u0660", "$(id)", "`id`", "; id",
    "} flush ruleset", "a" * 300, "\ud800", "\U0001f600", "0.0.0.0", "255.255.255.255", "127.0.0.1", "10.209.0.1",
    "10.209.0.2", "10.209.0.2/32", "0.0.0.0/0", "10.0.0.0/8", "1.2.3", "0x7f.1", "010.0.0.1", "::1", "10.209.0.1/24",
    "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", "tcp", "udp", "sctp", "vm", "-", "hello", "ensure_bridge", "__class__", [], {},
    [[]], [{}], [None], {"": ""}, {"bridge": "br-banger"}, [0] * 2000, ["bng-00000000"] * 2000,
)  # fmt: skip


class Mutator:
    """Changes one to three things: a value, a field, some bytes."""

    def __init__(self, seed: int, corpus: list[dict[str, Any]]) -> None:
        self._random = random.Random(seed)
        self._corpus = corpus

    def next_message(self) -> bytes:
        message = copy.deepcopy(self._random.choice(self._corpus))
        way = self._random.random()
        if way < 0.75:
            for _ in range(self._random.randint(1, 3)):
                self._change_value(message)
        text = json.dumps(message).encode()
        return self._change_bytes(text) if way > 0.6 else text

    def _change_value(self, message: dict[str, Any]) -> None:
        places = (
            [(message, key) for key in message] + list(_places(message["params"]))
            if "params" in message
            else []
        )
        if not places:
            message["params"] = self._nasty()
            return
        holder, key = self._random.choice(places)
        action = self._random.random()
        if action < 0.75:
            holder[key] = self._nasty()
        elif action < 0.85 and isinstance(holder, dict):
            del holder[key]
        elif isinstance(holder, dict):
            holder[self._random.choice(("op", "uid", "path", "bridge", "", "__proto__"))] = self._nasty()
        else:
            holder.append(self._nasty())

    def _nasty(self) -> Any:
        return copy.deepcopy(self._random.choice(NASTY))

    def _change_bytes(self, text: bytes) -> bytes:
        changed = bytearray(text)
        for _ in range(self._random.randint(1, 4)):
            position = self._random.randrange(len(changed) + 1)
            action = self._random.randrange(4)
            if action == 0:
                changed[position : position + 1] = bytes((self._random.randrange(256),))
            elif action == 1:
                del changed[position : position + self._random.randint(1, 20)]
            elif action == 2:
                changed[position:position] = self._random.randbytes(self._random.randint(1, 8))
            else:
                changed[position:position] = changed[: self._random.randint(1, 40)]
        return bytes(changed) or b"\0"


def _places(value: Any) -> Any:
    """Every (holder, key) below a value."""
    if isinstance(value, dict):
        items: Any = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, inner in items:
        yield value, key
        yield from _places(inner)
