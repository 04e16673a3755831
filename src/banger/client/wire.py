"""The daemon's protocol as bytes: lines of JSON, then frames (docs/reference/rpc.md). No sockets here.

Every command of the CLI pays for what this module imports, so it uses the C halves of `json` directly and
falls back to the package where an interpreter has none (docs/adr/0004-cli-start-up.md).
"""

from __future__ import annotations

from banger.client.statuses import EXIT_STATUS, MAX_LINE_BYTES, MAX_PAYLOAD_BYTES, PROTOCOL_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HEADER_BYTES = 5
_ROOM_BYTES = 4 * (HEADER_BYTES + MAX_PAYLOAD_BYTES)


class Failure(Exception):
    """What a person gets to see when a command fails: one line, its hint, and whether a retry is safe.

    `code` is one of docs/reference/exit-status.md; `status` overrides the code's exit status.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        detail: str | None = None,
        outcome: str = "not_started",
        op: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.detail = detail
        self.outcome = outcome
        self.op = op
        self.status = status

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS.get(self.code, EXIT_STATUS["internal"]) if self.status is None else self.status

    def as_data(self) -> dict[str, Any]:
        """The failure in the form that errors have on the wire, for `--json`."""
        data = {"code": self.code, "message": self.message, "outcome": self.outcome}
        optional = {"hint": self.hint, "detail": self.detail, "op": self.op}
        return data | {name: text for name, text in optional.items() if text}


class RemoteProblem(Failure):
    """A failure that the daemon reported."""

    @classmethod
    def from_reply(cls, reply: dict[str, Any]) -> RemoteProblem:
        """From a reply, or an END frame, that has an `error`."""
        error = reply["error"]
        return cls(
            str(error.get("code", "internal")),
            str(error.get("message", "the daemon failed without a message")),
            hint=error.get("hint"),
            detail=error.get("detail"),
            outcome=str(error.get("outcome", "failed")),
            op=error.get("op") or reply.get("op"),
            status=error.get("exit_status"),
        )


def _make_codec() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """JSON both ways, from the interpreter's C scanner and encoder if it has them in the known shape."""
    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner

        class Settings:
            strict = True
            object_hook = object_pairs_hook = None
            parse_float, parse_int, parse_constant = float, int, float
            memo: dict[str, Any] = {}

        scan = make_scanner(Settings())  # type: ignore[arg-type]
        chunks = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
        if "".join(chunks({"a": [1]}, 0)) != '{"a":[1]}':
            raise TypeError("an encoder of another shape")
    except (ImportError, TypeError):
        import json

        return json.dumps, json.loads

    def decode(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except StopIteration:
            raise ValueError("not JSON") from None
        if text[end:].strip():
            raise ValueError("more than one JSON value")
        return value

    return lambda value: "".join(chunks(value, 0)), decode


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


encode_json, decode_json = _make_codec()


def encode_request(
    method: str, params: dict[str, Any], *, op: str | None = None, detach: bool = False
) -> bytes:
    """One request as a line. Refuses what the daemon would refuse for its length."""
    request: dict[str, Any] = {"v": PROTOCOL_VERSION, "method": method, "params": params}
    if op:
        request["op"] = op
    if detach:
        request["detach"] = True
    line = encode_json(request).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise Failure(
            "bad_request", f"the request has {len(line)} bytes, at most {MAX_LINE_BYTES} are possible"
        )
    return line


def decode_line(line: bytes | bytearray) -> dict[str, Any]:
    """One reply or event. A daemon that talks nonsense is a Failure like any other."""
    try:
        value = decode_json(line.decode())
    except ValueError as error:
        raise _not_understood(line) from error
    if not isinstance(value, dict):
        raise _not_understood(line)
    return value


def _not_understood(line: bytes | bytearray) -> Failure:
    return Failure(
        "bad_version",
        f"the daemon's answer is not understood: {bytes(line[:60])!r}",
        hint="banger daemon stop, then try again",
        outcome="unknown",
    )


def encode_header(kind: int, length: int) -> bytes:
    return bytes((kind,)) + length.to_bytes(4, "big")


class FrameBuffer:
    """Received bytes cut into frames without copying.

    Invariant: payloads handed out by `take_frames` stay valid until the next call of `room`, so a reader that
    writes them away before it receives again holds at most this one buffer.
    """

    def __init__(self, received: bytes | bytearray = b"") -> None:
        self._view = memoryview(bytearray(max(_ROOM_BYTES, len(received) + HEADER_BYTES + MAX_PAYLOAD_BYTES)))
        self._view[: len(received)] = received
        self._start = 0
        self._end = len(received)

    def room(self) -> memoryview:
        """Where to receive next; never empty, because a whole frame fits."""
        rest = self._end - self._start
        if self._start:
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def add(self, count: int) -> None:
        """`count` bytes have been written to `room()`."""
        self._end += count

    def take_frames(self) -> list[tuple[int, memoryview]]:
        """All complete frames as (kind, payload)."""
        frames = []
        while self._end - self._start >= HEADER_BYTES:
            body = self._start + HEADER_BYTES
            length = int.from_bytes(self._view[self._start + 1 : body], "big")
            if length > MAX_PAYLOAD_BYTES:
                raise Failure("internal", f"the daemon sent a frame of {length} bytes", outcome="unknown")
            if self._end - body < length:
                break
            frames.append((self._view[self._start], self._view[body : body + length]))
            self._start = body + length
        return frames
