"""`vm run --agent`: an agent as a session, on our terminal or, with -d, in the background on its port.

What it needs in secret is read here, with the caller's rights, and goes to the guest with the session's start: on no
command line, and through no operation.
"""

from __future__ import annotations

import os

from banger.cli.env_files import read_env_file
from banger.cli.output import note
from banger.cli.terminal import find_size, is_terminal
from banger.cli.values import refuse
from banger.cli.work import run_operation
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection

_WITHOUT_NAT = "{0} reaches no network without --nat, neither a model's nor any other"


class AgentRun:
    """An agent as it is going to be started, planned before there is a VM."""

    def __init__(
        self, agent: dict[str, Any], params: dict[str, Any], *, background: bool, serves: bool
    ) -> None:
        self.agent = agent
        self.params = params
        self.background = background
        self.serves = serves

    @property
    def name(self) -> str:
        return str(self.agent["name"])


def plan_agent(arguments: Arguments, connection: Connection, environment: list[str]) -> AgentRun:
    """`environment` is what the caller names on top of what the configuration does. Raises Failure, and nothing has
    been begun."""
    name = arguments.get("agent")
    for flag in ("pty", "stdin"):
        if arguments.has(flag):
            raise refuse(
                f"--agent and --{'tty' if flag == 'pty' else 'interactive'} contradict each other",
                hint="an agent has a terminal when you have one",
            )
    agent = connection.call("agent.show", {"agent": name})
    background = arguments.has("detach")
    serves = background and not arguments.rest and bool(agent["serve"])
    interactive = is_terminal(0) and is_terminal(1)
    params = {key: arguments.get(key) for key in ("cwd", "user") if arguments.get(key) is not None}
    params["env"] = _collect(agent) + environment
    params["argv"] = agent["serve"] if serves else [*agent["command"], *arguments.rest]
    params["tags"] = {"agent": name}
    if not serves and (interactive or background):
        params["pty"] = True
        params["rows"], params["columns"] = find_size() if interactive else (24, 80)
        params["env"].insert(0, f"TERM={(interactive and os.environ.get('TERM')) or 'xterm-256color'}")
    elif not serves:
        params["stdin"] = True
    return AgentRun(agent, params, background=background, serves=serves)


def warn_of_network(agent: str, *, nat: bool) -> None:
    if not nat:
        note(_WITHOUT_NAT.format(agent))


def start_agent(
    run: AgentRun, connection: Connection, vm: str, *, quiet: bool, op: str | None = None
) -> dict[str, Any]:
    """The session, in a VM that runs. One that serves does so when this returns."""
    run_operation(connection, "agent.prepare", {"vm": vm, "agent": run.name}, quiet=quiet, op=op)
    session = _start_session(run, connection, vm)
    if run.background:
        if run.serves and run.agent.get("port"):
            waited = {"vm": vm, "agent": run.name, "session": session["id"]}
            run_operation(connection, "agent.wait", waited, quiet=quiet)
        _tell_background(run, connection, session)
    return session


def _start_session(run: AgentRun, connection: Connection, vm: str) -> dict[str, Any]:
    """Under the agent's name, unless another session has it."""
    try:
        return connection.call("session.start", {"vm": vm, **run.params, "name": run.name})
    except Failure as failure:
        if failure.code != "already_exists":
            raise
        return connection.call("session.start", {"vm": vm, **run.params})


def has_ended(connection: Connection, vm: str) -> bool:
    """Whether no session goes on in it."""
    return not connection.call("session.list", {"vm": vm, "running": True})["sessions"]


def _collect(agent: dict[str, Any]) -> list[str]:
    """What the configuration says it is to have: of a file, and of our own environment what there is."""
    entries = []
    if agent.get("env_file"):
        entries += read_env_file(os.path.expanduser(agent["env_file"]))
    return entries + [f"{name}={os.environ[name]}" for name in agent.get("env", ()) if name in os.environ]


def attach_agent(run: AgentRun, connection: Connection, session: dict[str, Any]) -> int:
    """Takes the connection over. The session goes on when we leave; returns its status when it has ended, else 0."""
    from banger.cli.detach_keys import DEFAULT, parse_detach_keys
    from banger.cli.session_attachment import Joined, join

    params: dict[str, Any] = {"session": session["id"]}
    if run.params.get("pty"):
        params["rows"], params["columns"] = find_size()
    return join(
        connection, Joined("session.attach", params, keys=parse_detach_keys(DEFAULT), shown_keys=DEFAULT)
    )


def _tell_background(run: AgentRun, connection: Connection, session: dict[str, Any]) -> None:
    name = f"{session['vm']}/{session['name']}"
    if run.serves and (port := run.agent.get("port")):
        note(f"{run.name} listens on port {port} of {session['vm']}: {_find_way(connection, session, port)}")
    elif not run.serves:
        note(f"{run.name} is at work: banger session attach {name}")
    note(f"banger session logs -f {name}, banger session stop {name}")


def _find_way(connection: Connection, session: dict[str, Any], port: int) -> str:
    """How this host reaches the port."""
    vm = connection.call("vm.show", {"vm": session["vm_id"]})["vm"]
    for published in vm["spec"].get("publish") or ():
        if published["guest_port"] == port and published.get("protocol", "tcp") == "tcp":
            return f"http://{published['host_address']}:{published['host_port']}"
    if (vm.get("runtime") or {}).get("network_mode") == "bridge":
        return f"http://{vm['name']}.vm:{port}"
    return f"banger vm publish {vm['name']} {port}:{port} leads there"
