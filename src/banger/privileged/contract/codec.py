"""The contract's dataclasses as JSON and back, strictly. Standard library only.

A message is one datagram of a SOCK_SEQPACKET Unix socket, so there is no framing to get wrong. A request is
`{"v", "op", "method", "params"}`, an answer `{"op", "result"}` or `{"op", "error": {"code", "message", "hint"}}`.
Every field must be there, of its type, and no other; numbers are no booleans.
"""

import json
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from banger.privileged.contract.base import MESSAGE_BYTES_MAX, VERSION, Reply, Request
from banger.privileged.contract.requests import REQUESTS
from banger.privileged.contract.values import Refusal, refuse

T = TypeVar("T")
OP_CHARACTERS_MAX = 64
TEXT_CHARACTERS_MAX = 2000  # of a refusal, which may quote its request


def encode_request(request: Request[Any], op: str) -> bytes:
    """Raises Refusal when it would not fit into one message."""
    return _encode({"v": VERSION, "op": op, "method": request.method, "params": _plain(request)})


def decode_request(message: bytes, descriptor_count: int) -> tuple[Request[Any], str]:
    """The validated request and its operation id. Raises Refusal."""
    data = _load(message)
    if not isinstance(data, dict) or set(data) != {"v", "op", "method", "params"}:
        raise refuse("a message has v, op, method and params, and nothing else")
    if data["v"] != VERSION or isinstance(data["v"], bool):
        raise Refusal(
            "bad_version",
            f"the helper speaks version {VERSION} of its contract, not {data['v']!r}",
            "sudo banger system install",
        )
    if not isinstance(data["method"], str) or (kind := REQUESTS.get(data["method"])) is None:
        raise Refusal("unknown_method", f"there is no method {_shorten(data['method'])}")
    request: Request[Any] = from_data(kind, data["params"])
    if descriptor_count not in kind.descriptors:
        raise refuse(f"{kind.method} does not take {descriptor_count} descriptors")
    request.validate()
    return request, op_of(data)


def find_op(message: bytes) -> str:
    """The operation id of a message that may be anything, for the log; empty when it has none."""
    try:
        return op_of(_load(message))
    except Refusal:
        return ""


def op_of(data: Any) -> str:
    op = data.get("op") if isinstance(data, dict) else None
    return op[:OP_CHARACTERS_MAX] if isinstance(op, str) and op.isascii() and op.isprintable() else ""


def encode_result(op: str, result: object) -> bytes:
    return _encode({"op": op, "result": _plain(result)})


def encode_refusal(op: str, refusal: Refusal) -> bytes:
    """Fits into one message, whatever was refused."""
    message, hint = (text[:TEXT_CHARACTERS_MAX] for text in (refusal.message, refusal.hint))
    error = {"code": refusal.code, "message": message, "hint": hint}
    return _encode({"op": op, "error": error})


def decode_answer(request: Request[Any], message: bytes, descriptors: tuple[int, ...]) -> Reply[Any]:
    """Raises the Refusal that the answer is, or an `internal` one that says that it is no answer."""
    try:
        data = _load(message)
        error = data.get("error") if isinstance(data, dict) else None
        if not isinstance(error, dict):
            result = data.get("result") if isinstance(data, dict) else None
            return Reply(from_data(request.result, result), descriptors)
    except Refusal as wrong:
        raise Refusal("internal", f"the helper's answer is not understood: {wrong.message}") from None
    raise Refusal(*(str(error.get(key, "")) for key in ("code", "message", "hint")))


def from_data(kind: type[T], data: Any) -> T:
    """The dataclass out of plain data. Raises Refusal with the field that is wrong."""
    if not isinstance(data, dict):
        raise refuse(f"{kind.__name__} is an object, not {_shorten(data)}")
    hints = _hints(kind)  # type: ignore[arg-type]
    if set(data) != set(hints):
        wrong = sorted({str(key) for key in data} ^ set(hints))
        raise refuse(
            f"{kind.__name__} has the fields {', '.join(hints)}; wrong: {_shorten(', '.join(wrong))}"
        )
    return kind(**{name: _value(hint, data[name], f"{kind.__name__}.{name}") for name, hint in hints.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise refuse(f"{where} is a list, not {_shorten(value)}")
        item = get_args(hint)[0]
        return tuple(_value(item, each, where) for each in value)
    if is_dataclass(hint):
        return from_data(hint, value)  # type: ignore[arg-type]
    if type(value) is not hint:
        raise refuse(f"{where} is {hint.__name__}, not {_shorten(value)}")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _plain(value: Any) -> dict[str, Any]:
    assert is_dataclass(value)
    assert not isinstance(value, type)
    return asdict(value)


def _encode(data: dict[str, Any]) -> bytes:
    message = json.dumps(data, separators=(",", ":")).encode()
    if len(message) > MESSAGE_BYTES_MAX:
        raise refuse(f"a message of {len(message)} bytes is too long")
    return message


def _load(message: bytes) -> Any:
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise refuse("the message is not JSON") from None


def _shorten(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
