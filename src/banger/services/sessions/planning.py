"""A call for a session as what its guest is asked for and what is written down of it. Pure."""

import signal

from banger.api.sessions import SessionStart
from banger.base.problem import bad_request
from banger.guest.command import ExecRequest, parse_environment, plan_exec
from banger.guest.session_records import DEFAULT_SCROLLBACK_BYTES, StartSession
from banger.model.names import validate_labels
from banger.model.session import SessionRow, SessionState, validate_session_name
from banger.model.vm import VmRecord

_MAX_SIGNAL = 64


def plan_command(request: SessionStart) -> ExecRequest:
    """Raises `bad_request` for what no guest could run."""
    if any(not command or "\0" in command for command in request.require):
        raise bad_request("the name of a required command is empty or has a NUL", hint="--require make")
    command = ExecRequest(
        argv=tuple(request.argv),
        env=parse_environment(request.env),
        cwd=request.cwd,
        user=request.user,
        pty=request.pty,
        stdin=request.stdin or request.pty,
        rows=request.rows,
        columns=request.columns,
    )
    plan_exec(command)
    return command


def plan_row(request: SessionStart, vm: VmRecord, session_id: str, boot_id: str, now: str) -> SessionRow:
    """As it is written down before the guest hears of it; of the environment only the names."""
    name = session_id if request.name is None else validate_session_name(request.name)
    return SessionRow(
        id=session_id,
        vm_id=vm.id,
        name=name,
        state=SessionState.STARTING,
        created_at=now,
        argv=tuple(request.argv),
        boot_id=boot_id,
        cwd=request.cwd,
        user=request.user,
        env_names=tuple(entry.partition("=")[0] for entry in request.env),
        tags=validate_labels(request.tags),
        pty=request.pty,
        stdin=request.stdin or request.pty,
    )


def plan_start(request: SessionStart, row: SessionRow, arranged: ExecRequest) -> StartSession:
    return StartSession(
        id=row.id,
        request=arranged,
        required=tuple(request.require),
        tags=tuple(row.tags.items()),
        scrollback_bytes=request.scrollback_bytes or DEFAULT_SCROLLBACK_BYTES,
    )


def parse_signal(untrusted_signal: str) -> int:
    """The number of `15`, `TERM` or `SIGTERM`. Raises `bad_request`."""
    word = untrusted_signal.upper()
    if word.isascii() and word.isdigit() and 1 <= int(word) <= _MAX_SIGNAL:
        return int(word)
    try:
        return int(signal.Signals[word if word.startswith("SIG") else f"SIG{word}"])
    except KeyError:
        raise bad_request(
            f"{untrusted_signal[:40]!r} is not a signal", hint="--signal INT, TERM, HUP, USR1 or a number"
        ) from None
