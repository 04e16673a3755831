"""The guest's error numbers as Problems. Pure.

Owns the translation from errno (and the agent's own numbers above 1000) to codes and words.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from banger.base.problem import Code, Outcome, Problem
from banger.guest.channel import End
from banger.guest.frames import MalformedFrame

BAD_REQUEST = 1001
UNKNOWN_METHOD = 1002
TOO_MANY_CHANNELS = 1003
UNSAFE_PATH = 1004
UNKNOWN_USER = 1005
NO_SESSION = 1006
MISSING_COMMAND = 1007
TAKEN = 1008
TOO_MANY_SESSIONS = 1009

_OWN = {
    BAD_REQUEST: (Code.BAD_REQUEST, "the agent refuses the request"),
    UNKNOWN_METHOD: (Code.UNKNOWN_METHOD, "the agent does not know the method"),
    TOO_MANY_CHANNELS: (Code.CONFLICT, "too many commands and transfers are running"),
    UNSAFE_PATH: (Code.BAD_REQUEST, "an entry would leave the target directory"),
    UNKNOWN_USER: (Code.BAD_REQUEST, "no such user or group in the guest"),
    NO_SESSION: (Code.NOT_FOUND, "the guest knows no such session"),
    MISSING_COMMAND: (Code.NOT_FOUND, "a required command is missing in the guest"),
    TAKEN: (Code.CONFLICT, "somebody else writes to it"),
    TOO_MANY_SESSIONS: (Code.CONFLICT, "128 sessions are running in the guest"),
}
_CODES = {
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENOTDIR: Code.NOT_FOUND,
    errno.EEXIST: Code.ALREADY_EXISTS,
    errno.ENOTEMPTY: Code.ALREADY_EXISTS,
    errno.EACCES: Code.UNAUTHORIZED,
    errno.EPERM: Code.UNAUTHORIZED,
    errno.ENOSPC: Code.NO_SPACE,
    errno.EDQUOT: Code.NO_SPACE,
    errno.ENOMEM: Code.NO_SPACE,
    errno.EINVAL: Code.BAD_REQUEST,
    errno.EISDIR: Code.BAD_REQUEST,
    errno.ELOOP: Code.BAD_REQUEST,
    errno.ENAMETOOLONG: Code.BAD_REQUEST,
    errno.E2BIG: Code.BAD_REQUEST,
    errno.EBUSY: Code.CONFLICT,
    errno.ETXTBSY: Code.CONFLICT,
    errno.ETIMEDOUT: Code.UNAVAILABLE,
    errno.ESRCH: Code.NOT_RUNNING,
    errno.EPIPE: Code.CONFLICT,
}
_CANNOT_START = {
    errno.ENOENT: "command not found in the guest",
    errno.EACCES: "permission denied in the guest",
    errno.ENOEXEC: "not a program that the guest can run",
    errno.E2BIG: "too many or too long arguments for the guest",
}
_NOT_FOUND_STATUS = 127
_NOT_EXECUTABLE_STATUS = 126
_MAX_TEXT = 300


class GuestProblem(Problem):
    """A Problem that the guest told. `errno` is Linux's number there, or one of the agent's above 1000."""

    def __init__(
        self,
        number: int,
        brief: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        outcome: Outcome = Outcome.FAILED,
    ) -> None:
        super().__init__(problem_code(number), brief, detail=detail, hint=hint, outcome=outcome)
        self.errno = number


class CannotStart(GuestProblem):
    """A command that did not begin. `exit_status` is what a shell would exit with: 127 when the command
    was not found, else 126."""

    def __init__(self, number: int, brief: str, *, exit_status: int, detail: str | None = None) -> None:
        super().__init__(number, brief, detail=detail, outcome=Outcome.NOT_STARTED)
        self.exit_status = exit_status


def problem_code(number: int) -> Code:
    if number in _OWN:
        return _OWN[number][0]
    return _CODES.get(number, Code.OPERATION_FAILED)


def describe_error(number: int) -> str:
    """`no such file or directory`, in words, without the number where there are words."""
    if number in _OWN:
        return _OWN[number][1]
    if number not in errno.errorcode:
        return f"error {number}"  # and strerror raises for what is no C int
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


def render_end(end: End, subject: str) -> GuestProblem:
    """The problem of a channel that failed. `subject` is what it was about: a path, a method."""
    return GuestProblem(
        end.error, f"{subject}: {describe_error(end.error)}", detail=read_text(end), outcome=Outcome.FAILED
    )


def render_exec_end(end: End, program: str) -> CannotStart:
    """The problem of a command that ended without STARTED.

    The agent's text is `subject: reason`. The subject is the program, or what stood in its way: the
    directory to start in, the user. The reason only repeats the number in words, so it is no detail.
    """
    text = read_text(end)
    subject = (text or "").rpartition(": ")[0]
    detail = None if subject else text
    subject = subject or program
    if subject != program:
        why = describe_error(end.error)
        return CannotStart(end.error, f"{subject}: {why}", exit_status=_NOT_EXECUTABLE_STATUS, detail=detail)
    why = _CANNOT_START.get(end.error) or describe_error(end.error)
    status = _NOT_FOUND_STATUS if end.error == errno.ENOENT else _NOT_EXECUTABLE_STATUS
    return CannotStart(end.error, f"{program}: {why}", exit_status=status, detail=detail)


def read_text(end: End) -> str | None:
    """The agent's text, from a guest that is not trusted: printable, one line, not long."""
    text = end.fields.find(1)
    if not text:
        return None
    printable = "".join(c if c.isprintable() else "?" for c in text.decode("utf-8", "replace"))
    return printable[:_MAX_TEXT]


@contextmanager
def reading_answer() -> Iterator[None]:
    """An answer that lacks what it must have is the guest's fault, not a bug of ours."""
    try:
        yield
    except MalformedFrame as error:
        raise Problem(
            Code.UNAVAILABLE,
            "the guest agent's answer makes no sense",
            detail=str(error),
            outcome=Outcome.UNKNOWN,
        ) from error
