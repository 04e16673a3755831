"""Methods on sessions: long commands in guests that outlive whoever started them (docs/reference/sessions.md)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from banger.api.method import Effect, Kind, Nothing, Request, VmReference, declare, field
from banger.api.vm import Cells, Natural
from banger.model.session import SessionState

SessionReference = Annotated[
    str, field("VM/NAME, an id or its prefix, or a name that is unique", positional=True, metavar="SESSION")
]
Grace = Annotated[float, Meta(ge=0, le=3600)]
_STEAL = "take the input over from whoever has it"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One session as it is now. `begin` and `end` are the sequence numbers of what of its output is kept; both absent
    where the guest cannot be asked. `status` or `signal` say how it ended; `error` why it never began or is lost."""

    id: str
    name: str
    vm: str
    vm_id: str
    state: SessionState
    argv: list[str]
    created_at: str
    cwd: str | None = None
    user: str | None = None
    env_names: list[str] = []
    tags: dict[str, str] = {}
    pty: bool = False
    stdin: bool = False
    pid: int = 0
    status: int | None = None
    signal: int | None = None
    started_at: str = ""
    ended_at: str = ""
    error: str = ""
    begin: int | None = None
    end: int | None = None
    rows: int | None = None
    columns: int | None = None
    has_writer: bool = False
    readers: int = 0


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    sessions: list[Session]


@declare("session.start", effect=Effect.CHANGE)
class SessionStart(Request[Session]):
    """Starts a command in a running VM that goes on by itself, whoever comes and goes."""

    vm: VmReference
    argv: Annotated[list[str], field("the command", positional=True, metavar="CMD")]
    name: Annotated[
        str | None, field("a name of its own in its VM; its id when absent", unit="session", metavar="NAME")
    ] = None
    env: Annotated[list[str], field("KEY=VALUE, repeatable", short="e")] = []
    cwd: Annotated[
        str | None,
        field("working directory; default the workspace, or the user's home", flag="workdir", short="w"),
    ] = None
    user: Annotated[str | None, field("user name or uid[:gid]; default root", short="u")] = None
    pty: Annotated[bool, field("give it a terminal", flag="tty", short="t")] = False
    stdin: Annotated[
        bool, field("give it an input that can be written to", flag="interactive", short="i")
    ] = False
    rows: Annotated[Cells | None, field("terminal height", hidden=True)] = None
    columns: Annotated[Cells | None, field("terminal width", hidden=True)] = None
    tags: Annotated[dict[str, str], field("KEY=VALUE, repeatable", flag="tag")] = {}
    require: Annotated[
        list[str], field("refuse to start unless the guest has this command, repeatable", metavar="CMD")
    ] = []
    scrollback_bytes: Annotated[
        Annotated[int, Meta(ge=4096, le=16 << 20)] | None,
        field(
            "how much of its output the guest keeps (default 1M, at most 16M)",
            flag="scrollback",
            unit="bytes",
        ),
    ] = None


@declare("session.list")
class SessionList(Request[Sessions]):
    """Lists the sessions of all VMs, or of one."""

    vm: Annotated[str | None, field("only those of this VM", positional=True, metavar="VM")] = None
    running: Annotated[bool, field("only those that have not ended", short="r")] = False
    tags: Annotated[dict[str, str], field("KEY=VALUE: only those with this tag, repeatable", flag="tag")] = {}


@declare("session.show")
class SessionShow(Request[Session]):
    """Everything known about one session."""

    session: SessionReference


@declare("session.attach", effect=Effect.CHANGE, kind=Kind.STREAM)
class SessionAttach(Request[Nothing]):
    """Joins a session's output, and its input unless told not to. Leaving does not end it."""

    session: SessionReference
    read_only: Annotated[bool, field("only look; its input stays free", flag="read-only")] = False
    steal: Annotated[bool, field(_STEAL)] = False
    since: Annotated[
        Natural | None, field("begin at this sequence number; default all that is kept", metavar="N")
    ] = None
    rows: Annotated[Cells | None, field("terminal height", hidden=True)] = None
    columns: Annotated[Cells | None, field("terminal width", hidden=True)] = None


@declare("session.logs", kind=Kind.STREAM)
class SessionLogs(Request[Nothing]):
    """What a session has written, as far as it is kept."""

    session: SessionReference
    stream: Annotated[
        Literal["both", "stdout", "stderr"],
        field("stdout, stderr or both", choices=["both", "stdout", "stderr"], hidden=True),
    ] = "both"
    tail_lines: Annotated[
        Natural | None, field("only the last N lines", flag="tail", short="n", metavar="N")
    ] = None
    follow: Annotated[bool, field("go on with what it writes, until it ends", short="f")] = False
    since: Annotated[Natural | None, field("begin at this sequence number", metavar="N")] = None


@declare("session.send", effect=Effect.CHANGE, kind=Kind.STREAM)
class SessionSend(Request[Nothing]):
    """Writes to a session's input: a text, or stdin up to its end."""

    session: SessionReference
    eof: Annotated[bool, field("then end its input; on a terminal, type Ctrl-D")] = False
    steal: Annotated[bool, field(_STEAL)] = False


@declare("session.resize", effect=Effect.CHANGE)
class SessionResize(Request[Session]):
    """Changes the size of a session's terminal."""

    session: SessionReference
    rows: Annotated[Cells, field("lines", positional=True, metavar="ROWS")]
    columns: Annotated[Cells, field("characters in a line", positional=True, metavar="COLUMNS")]


@declare("session.stop", effect=Effect.CHANGE)
class SessionStop(Request[Session]):
    """Asks a session's processes to end, kills them when the grace is over, and waits for that."""

    session: SessionReference
    grace_s: Annotated[Grace, field("how long they may take", flag="grace", unit="seconds")] = 10.0


@declare("session.kill", effect=Effect.DESTROY)
class SessionKill(Request[Session]):
    """Sends a signal to a session's processes, KILL unless another is named."""

    session: SessionReference
    signal: Annotated[str, field("a name or a number, for example INT", short="s", metavar="SIGNAL")] = "KILL"


@declare("session.remove", effect=Effect.DESTROY)
class SessionRemove(Request[Nothing]):
    """Forgets a session that has ended, and what is kept of its output."""

    session: SessionReference
    force: Annotated[bool, field("kill it first, if it has not ended", short="f")] = False
