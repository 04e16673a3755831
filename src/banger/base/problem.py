"""Problems: the one kind of failure that people and other programs get to see.

Owns the closed list of codes with their exit and HTTP statuses. Adapters translate foreign errors into a
`Problem` at their edge and keep the cause; impossible states raise AssertionError, never a Problem.
"""

from enum import Enum
from typing import Any, NamedTuple


class CodeInfo(NamedTuple):
    exit_status: int
    http_status: int
    meaning: str


class Code(Enum):
    """Every error code of the daemon's protocol. The value is the word on the wire."""

    BAD_VERSION = "bad_version"
    UNKNOWN_METHOD = "unknown_method"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    AMBIGUOUS = "ambiguous"
    ALREADY_EXISTS = "already_exists"
    NOT_RUNNING = "not_running"
    CONFLICT = "conflict"
    UNAUTHORIZED = "unauthorized"
    UNAVAILABLE = "unavailable"
    NO_SPACE = "no_space"
    CANCELLED = "cancelled"
    OPERATION_FAILED = "operation_failed"
    INTERNAL = "internal"

    @property
    def info(self) -> CodeInfo:
        return CODES[self]


CODES: dict[Code, CodeInfo] = {
    Code.BAD_VERSION: CodeInfo(70, 400, "client and daemon speak different protocol versions"),
    Code.UNKNOWN_METHOD: CodeInfo(70, 404, "the daemon does not know the method"),
    Code.BAD_REQUEST: CodeInfo(64, 400, "a flag, a name or a value is wrong"),
    Code.NOT_FOUND: CodeInfo(66, 404, "no such VM, image, kernel, operation or file"),
    Code.AMBIGUOUS: CodeInfo(66, 409, "an id prefix that fits several"),
    Code.ALREADY_EXISTS: CodeInfo(73, 409, "the name is taken"),
    Code.NOT_RUNNING: CodeInfo(69, 409, "the VM must be running for this"),
    Code.CONFLICT: CodeInfo(75, 409, "something else is using or changing it"),
    Code.UNAUTHORIZED: CodeInfo(77, 403, "the peer is not the owner"),
    Code.UNAVAILABLE: CodeInfo(69, 503, "a tool, a device or the daemon is missing"),
    Code.NO_SPACE: CodeInfo(74, 507, "not enough disk space or memory"),
    Code.CANCELLED: CodeInfo(130, 499, "cancelled"),
    Code.OPERATION_FAILED: CodeInfo(71, 500, "the work was begun and failed"),
    Code.INTERNAL: CodeInfo(70, 500, "a bug in banger"),
}


class Outcome(Enum):
    """What a failure says about the work: whether trying again is safe."""

    NOT_STARTED = "not_started"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Problem(Exception):
    """A failure for people: what is wrong with which value, and the command that fixes it.

    `brief` is one line in the present tense without a final period; `detail` may have several lines
    (the last lines of a tool's stderr); `hint` names a command the person can run. `exit_status` replaces
    the code's own where a convention asks for it: 127 for a command that is not found.
    """

    def __init__(
        self,
        code: Code,
        brief: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        outcome: Outcome = Outcome.FAILED,
        exit_status: int | None = None,
    ) -> None:
        super().__init__(brief)
        self.code = code
        self.brief = brief
        self.detail = detail
        self.hint = hint
        self.outcome = outcome
        self.exit_status = exit_status

    def as_data(self) -> dict[str, Any]:
        """The problem as it travels in a reply and is kept in an operation's record."""
        data: dict[str, Any] = {
            "code": self.code.value,
            "message": self.brief,
            "outcome": self.outcome.value,
        }
        if self.detail:
            data["detail"] = self.detail
        if self.hint:
            data["hint"] = self.hint
        if self.exit_status is not None:
            data["exit_status"] = self.exit_status
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Problem":
        return cls(
            Code(data["code"]),
            data["message"],
            detail=data.get("detail"),
            hint=data.get("hint"),
            outcome=Outcome(data.get("outcome", "failed")),
            exit_status=data.get("exit_status"),
        )


def bad_request(brief: str, *, hint: str | None = None) -> Problem:
    """Input that is refused before anything has been touched."""
    return Problem(Code.BAD_REQUEST, brief, hint=hint, outcome=Outcome.NOT_STARTED)


def not_found(brief: str, *, hint: str | None = None) -> Problem:
    return Problem(Code.NOT_FOUND, brief, hint=hint, outcome=Outcome.NOT_STARTED)


def unavailable(brief: str, *, hint: str | None = None, detail: str | None = None) -> Problem:
    """A tool, a device or another process that is needed and is not there."""
    return Problem(Code.UNAVAILABLE, brief, hint=hint, detail=detail, outcome=Outcome.NOT_STARTED)


def conflict(brief: str, *, hint: str | None = None) -> Problem:
    return Problem(Code.CONFLICT, brief, hint=hint, outcome=Outcome.NOT_STARTED)
