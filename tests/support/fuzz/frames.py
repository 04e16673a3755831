"""Requests that are almost right: valid ones of every method, and what can be done to them. Only a seed decides."""

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from banger.api.frames import CONTROL, END, MAX_PAYLOAD_BYTES, STDERR, STDIN, STDOUT
from banger.api.method import MAX_LINE_BYTES, Kind
from banger.api.registry import METHODS

_WRONG = (
    None,
    True,
    -1,
    0,
    2**63,
    -(2**64),
    0.5,
    "",
    "x",
    "\u0000",
    "\u202e",
    "🐂" * 40,
    [],
    {},
    [[]],
    {"": {}},
    [None] * 50,
)
_OPS = ("", "op-1", "op-1", "op-2", "x" * 64, "x" * 65, "a b", "../..", "\n", 7, None)
_LITERALS = (
    b"NaN",
    b"1e999",
    b"-0",
    b"1" * 400,
    b"0x1",
    b"\xff\xfe",
    b"'",
    b"\\ud800",
    b'"\\ud800"',
    b"{",
    b"]",
    b"\x00",
)
_PATCH = struct.Struct(">BI")


def render_valid_requests(random: Random) -> list[bytes]:
    """Several lines for each method, without their ends, each taken as valid by the daemon."""
    return [
        json.dumps({"v": 1, "method": method, "params": _compose_params(request, random)}).encode()
        for method, request in METHODS.items()
        for _ in range(4)
    ]


def _compose_params(request: type, random: Random) -> dict[str, Any]:
    info = msgspec.inspect.type_info(request)
    assert isinstance(info, msgspec.inspect.StructType)
    chosen = [field for field in info.fields if field.required or random.random() < 0.5]
    return {field.encode_name: _compose_value(field.type, random) for field in chosen}


def _compose_value(kind: Any, random: Random) -> Any:
    inspect = msgspec.inspect
    match kind:
        case inspect.Metadata(type=described):
            return _compose_value(described, random)
        case inspect.UnionType(types=types):
            return _compose_value(random.choice(types), random)
        case inspect.StrType():
            return random.choice(("web", "db", "0123456789ab"))
        case inspect.IntType(ge=least):
            return least or 1
        case inspect.FloatType():
            return 1.5
        case inspect.BoolType():
            return random.random() < 0.5
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return [_compose_value(item, random) for _ in range(2)]
        case inspect.DictType(key_type=key, value_type=value):
            return {_compose_value(key, random): _compose_value(value, random)}
        case inspect.LiteralType(values=values):
            return random.choice(values)
        case inspect.EnumType(cls=choices):
            return random.choice(list(choices)).value
        case inspect.NoneType():
            return None
    raise AssertionError(f"no value is known for {kind}")


# ---- lines


def mutate_line(line: bytes, random: Random) -> bytes:
    """One thing, or a few, done to a request; may hold line ends of its own. Without the last line end."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        line = random.choice(_MUTATIONS)(line, random)
    return line


def _flip_bits(line: bytes, random: Random) -> bytes:
    changed = bytearray(line or b" ")
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(line: bytes, random: Random) -> bytes:
    return line[: random.randint(0, len(line))]


def _insert(line: bytes, random: Random) -> bytes:
    at = random.randint(0, len(line))
    what = random.choice(_LITERALS) if random.random() < 0.5 else random.randbytes(random.randint(1, 16))
    return line[:at] + what + line[at:]


def _cut_out(line: bytes, random: Random) -> bytes:
    begin = random.randint(0, len(line))
    return line[:begin] + line[begin + random.randint(1, 12) :]


def _repeat(line: bytes, random: Random) -> bytes:
    begin = random.randint(0, len(line))
    piece = line[begin : begin + random.randint(1, 40)]
    return line[:begin] + piece * random.randint(2, 20) + line[begin:]


def _nest(line: bytes, random: Random) -> bytes:
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    depth = random.choice((2, 50, 1100, 5000))
    value = opening * depth + b"1" + closing * (depth if random.random() < 0.8 else 0)
    return _replace_value(line, value, random)


def _make_huge(line: bytes, random: Random) -> bytes:
    number = random.choice(
        (b"9" * 30, b"9" * 4000, b"1e308", b"1e309", b"-1e999", b"0." + b"0" * 400 + b"1", b"1E-999")
    )
    return _replace_value(line, number, random)


def _replace_value(line: bytes, value: bytes, random: Random) -> bytes:
    """In place of what stands behind one of the colons."""
    colons = [at for at, byte in enumerate(line) if byte == ord(":")]
    if not colons:
        return value
    begin = random.choice(colons) + 1
    ends = [at for at in (line.find(b",", begin), line.find(b"}", begin)) if at >= 0]
    return line[:begin] + value + line[min(ends, default=len(line)) :]


def _change_envelope(line: bytes, random: Random) -> bytes:
    """Wrong types, unknown fields, missing fields, odd ids, on a request that is still one."""
    try:
        request = json.loads(line)
        params = request["params"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return line
    if not isinstance(params, dict):
        return line
    target = random.choice((request, params))
    keys = [*target, "op", "detach", "vm", "\u0000"]
    match random.randrange(4):
        case 0:
            target[random.choice(keys)] = random.choice(_WRONG)
        case 1:
            target.pop(random.choice(keys), None)
        case 2:
            request["op"] = random.choice(_OPS)
        case 3:
            request["detach"] = random.choice((True, False, 1))
    return json.dumps(request).encode()


_MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip_bits, _truncate, _insert, _cut_out, _repeat, _nest, _make_huge, _change_envelope, _change_envelope, _change_envelope,
)  # fmt: skip


def make_oversized(line: bytes, random: Random) -> bytes:
    """Around the limit of a line, and well beyond it."""
    length = random.choice((MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES))
    return line[:-1] + b" " * (length - len(line)) + line[-1:]


# ---- frames of a stream


STREAM_REQUEST = b'{"v":1,"method":"vm.exec","params":{"vm":"web","argv":["cat"],"stdin":true}}\n'
assert METHODS["vm.exec"].kind is Kind.STREAM


def render_stream_frames(random: Random) -> list[bytes]:
    """Harmless ones, then one that is not. Small altogether: nobody reads while they are written."""
    return [*(_render_harmless(random) for _ in range(random.randint(0, 40))), _render_harmful(random)]


def _render_harmless(random: Random) -> bytes:
    if random.random() < 0.6:
        return _render(STDIN, random.randbytes(random.randint(1, 600)))
    size = {"rows": random.randint(1, 500), "columns": random.randint(1, 500)}
    return _render(CONTROL, json.dumps(random.choice((size, {"signal": random.randint(1, 64)}))).encode())


def _render_harmful(random: Random) -> bytes:
    control = json.dumps({random.choice(("rows", "signal", "", "x")): random.choice(_WRONG)}).encode()
    match random.randrange(6):
        case 0:
            return _render(random.choice((STDOUT, STDERR, END, 5, 127, 255)), random.randbytes(8))
        case 1:
            return _PATCH.pack(STDIN, random.choice((MAX_PAYLOAD_BYTES + 1, 2**31, 2**32 - 1))) + b"x"
        case 2:
            return _render(CONTROL, control)
        case 3:
            return _render(CONTROL, _flip_bits(b'{"rows": 24, "columns": 80}', random))
        case 4:
            return _render(CONTROL, b"[" * 5000)
        case _:
            return _render(STDIN, b"") + _render(STDIN, b"more")


def _render(kind: int, payload: bytes) -> bytes:
    return _PATCH.pack(kind, len(payload)) + payload
