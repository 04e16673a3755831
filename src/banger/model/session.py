"""A session as a record: a long command in a guest that outlives whoever started it. Pure."""

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

import msgspec

from banger.base.problem import Code, Outcome, Problem, bad_request, not_found

ID_PREFIX = "s-"
ID_DIGITS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class SessionState(Enum):
    """`failed` never began; `stopped` was asked to end; `lost` went with its guest, and nobody knows how it ended."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


OPEN = frozenset({SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING})


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the store. `name` is the id where nobody gave one; `boot_id` is the guest's boot in which it runs, or
    ran. Of its environment only the names are kept: values may be secrets."""

    id: str
    vm_id: str
    name: str
    state: SessionState
    created_at: str
    argv: tuple[str, ...]
    boot_id: str = ""
    cwd: str | None = None
    user: str | None = None
    env_names: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    pty: bool = False
    stdin: bool = False
    pid: int = 0
    status: int | None = None
    signal: int | None = None
    started_at: str = ""
    ended_at: str = ""
    error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self.state in OPEN


class Candidate(NamedTuple):
    """A session as references mean it."""

    id: str
    name: str
    vm_id: str
    vm_name: str

    @property
    def shown(self) -> str:
        return f"{self.vm_name}/{self.name}"


def validate_session_name(untrusted_name: str) -> str:
    """One that is neither a path nor an option nor an id. Raises `bad_request`."""
    if not _NAME.fullmatch(untrusted_name):
        raise bad_request(
            f"{untrusted_name[:80]!r} is not a session's name",
            hint="use letters, digits, dots, dashes and underscores, at most 63, for example build",
        )
    if untrusted_name.startswith(ID_PREFIX):
        raise bad_request(
            f"{untrusted_name!r} looks like a session's id", hint=f"names do not begin with {ID_PREFIX}"
        )
    return untrusted_name


def resolve_session(untrusted_reference: str, known: Iterable[Candidate]) -> str:
    """The id that VM/NAME, VM/ID, an id or a prefix of one, or a name that only one VM's session has, means. The VM is
    given by its name or id.

    Raises `not_found`, or `ambiguous` with the candidates listed.
    """
    vm, slash, name = untrusted_reference.rpartition("/")
    among = [each for each in known if not slash or vm in (each.vm_name, each.vm_id)]
    for each in among:
        if each.id == name:
            return each.id
    found = [each for each in among if each.name == name]
    if not found and name.startswith(ID_PREFIX) and len(name) > len(ID_PREFIX):
        found = [each for each in among if each.id.startswith(name)]
    if not found:
        raise not_found(f"there is no session {untrusted_reference!r}", hint="banger session list")
    if len(found) > 1:
        listed = ", ".join(f"{each.shown} ({each.id})" for each in found)
        raise Problem(
            Code.AMBIGUOUS,
            f"{untrusted_reference!r} fits {len(found)} sessions: {listed}",
            hint=f"say which: {found[0].shown}",
            outcome=Outcome.NOT_STARTED,
        )
    return found[0].id
