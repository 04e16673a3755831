"""What both typed clients share: replies, results and problems in the types of the API. No I/O."""

from typing import Any, NamedTuple, TypeVar

import msgspec

from banger.api.events import Event
from banger.api.method import PROTOCOL_VERSION, Request
from banger.base.problem import Code, Outcome, Problem

R = TypeVar("R")


class Reply(msgspec.Struct):
    """One line from the daemon: exactly one of event, result, error and stream is there."""

    op: str = ""
    event: Event | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: dict[str, Any] | None = None
    stream: dict[str, Any] | None = None


class Ended(msgspec.Struct, frozen=True):
    """How a command ended: by a status, or by a signal."""

    status: int | None = None
    signal: int | None = None

    @property
    def exit_status(self) -> int:
        """As a shell gives it: 128 and the signal's number for a command that a signal ended."""
        return self.status if self.status is not None else 128 + (self.signal or 0)


class CompletedCommand(NamedTuple):
    status: int
    stdout: bytes
    stderr: bytes


def encode_request(request: Request[Any], *, op: str | None = None, detach: bool = False) -> bytes:
    envelope: dict[str, Any] = {"v": PROTOCOL_VERSION, "method": request.method, "params": request}
    if op is not None:
        envelope["op"] = op
    if detach:
        envelope["detach"] = True
    return msgspec.json.encode(envelope) + b"\n"


def decode_reply(line: bytes) -> Reply:
    try:
        return msgspec.json.decode(line, type=Reply)
    except ValueError as error:
        raise not_understood(error) from error


def decode_result(request: Request[R], content: Any) -> R:
    """The result in the type that the request's class names; content is JSON or already decoded."""
    try:
        if isinstance(content, msgspec.Raw | bytes):
            result: R = msgspec.json.decode(content, type=request.result_type)
        else:
            result = msgspec.convert(content, type=request.result_type)
    except ValueError as error:
        raise not_understood(error) from error
    return result


def name_problem(error: dict[str, Any]) -> Problem:
    """The daemon's error as a Problem; a code of a later daemon counts as internal."""
    codes = {code.value for code in Code}
    code = error.get("code")
    known = {**error, "code": code if code in codes else Code.INTERNAL.value}
    return Problem.from_data({"message": "the daemon failed without a message", **known})


def not_understood(error: Exception) -> Problem:
    return Problem(
        Code.BAD_VERSION,
        "the daemon's answer is not understood",
        detail=str(error),
        hint="banger daemon stop, then try again",
        outcome=Outcome.UNKNOWN,
    )


def lost_connection() -> Problem:
    return Problem(
        Code.UNAVAILABLE,
        "the daemon closed the connection before it answered",
        hint="banger operation list",
        outcome=Outcome.UNKNOWN,
    )
