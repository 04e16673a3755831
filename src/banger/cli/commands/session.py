"""`session start`, `list`, `show`, `logs`, `attach`, `send` and `resize`; the others are changes like those of VMs."""

from __future__ import annotations

import os
import sys

from banger.cli.detach_keys import DEFAULT, parse_detach_keys
from banger.cli.env_files import collect_environment
from banger.cli.output import note, print_json
from banger.cli.render.session import render_session, render_sessions
from banger.cli.terminal import find_size, is_terminal
from banger.cli.values import refuse
from banger.client.blocking import open_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection


def start(arguments: Arguments) -> int:
    """Prints VM/NAME, or joins it at once."""
    attaches = arguments.has("attach")
    if attaches and arguments.has("json"):
        raise refuse("--attach and --json contradict each other", hint="leave one of them out")
    if arguments.has("detach_keys") and not attaches:
        raise refuse("--detach-keys is for who attaches", hint="banger session start --attach …")
    if attaches and arguments.has("pty") and not is_terminal(0):
        raise refuse("the input is no terminal", hint="leave out --attach, then: banger session send")
    keys = _read_keys(arguments)
    params = arguments.params() | {"argv": arguments.rest, "env": collect_environment(arguments)}
    if params.get("pty"):
        params["rows"], params["columns"] = find_size()
        params["env"] = [f"TERM={os.environ.get('TERM') or 'xterm'}", *params["env"]]
    with open_connection() as connection:
        session = connection.call("session.start", params)
        name = f"{session['vm']}/{session['name']}"
        if attaches:
            return _attach(connection, {"session": session["id"]}, keys)
    if arguments.has("json"):
        print_json(session)
        return 0
    print(name)
    if is_terminal(2):
        verb = "attach" if session.get("stdin") else "logs -f"
        note(f"it goes on by itself: banger session {verb} {name}, banger session stop {name}")
    return 0


def show_list(arguments: Arguments) -> int:
    with open_connection() as connection:
        found = connection.call("session.list", arguments.params())
    if arguments.has("json"):
        print_json(found)
    else:
        sys.stdout.write(render_sessions(found["sessions"]))
    return 0


def show(arguments: Arguments) -> int:
    with open_connection() as connection:
        return _print(arguments, connection.call("session.show", arguments.params()))


def resize(arguments: Arguments) -> int:
    with open_connection() as connection:
        return _print(arguments, connection.call("session.resize", arguments.params()))


def attach(arguments: Arguments) -> int:
    keys = _read_keys(arguments)
    if arguments.has("read_only") and arguments.has("steal"):
        raise refuse("--read-only and --steal contradict each other", hint="leave one of them out")
    with open_connection() as connection:
        return _attach(connection, arguments.params(), keys)


def logs(arguments: Arguments) -> int:
    from banger.cli.session_attachment import Joined, join

    params = arguments.params()
    chosen = [name for name in ("stdout", "stderr") if arguments.has(name)]
    if len(chosen) == 1:
        params["stream"] = chosen[0]
    with open_connection() as connection:
        return join(connection, Joined("session.logs", params, keys=b"\0", shown_keys=""))


def send(arguments: Arguments) -> int:
    from banger.cli.session_sending import send_input

    text = arguments.get("text")
    if text is None and is_terminal(0):
        raise refuse(
            "there is nothing to send", hint="banger session send SESSION 'make test', or pipe it in"
        )
    with open_connection() as connection:
        command = connection.stream("session.send", arguments.params())
        return send_input(command, text, enter=arguments.has("enter"))


def _print(arguments: Arguments, session: dict[str, Any]) -> int:
    if arguments.has("json"):
        print_json(session)
    else:
        sys.stdout.write(render_session(session))
    return 0


def _read_keys(arguments: Arguments) -> tuple[bytes, str]:
    shown = str(arguments.get("detach_keys") or DEFAULT)
    return parse_detach_keys(shown), shown


def _attach(connection: Connection, params: dict[str, Any], keys: tuple[bytes, str]) -> int:
    from banger.cli.session_attachment import Joined, join

    if is_terminal(0):
        params["rows"], params["columns"] = find_size()
    return join(connection, Joined("session.attach", params, keys=keys[0], shown_keys=keys[1]))
