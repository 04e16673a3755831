"""`tooling plan` and `tooling install`; and what `vm run PATH` does about tools, before and after its VM is made."""

from __future__ import annotations

import os
import sys

from banger.cli.output import note, print_json
from banger.cli.render.tooling import render_installed, render_plan, render_warning
from banger.cli.values import refuse
from banger.cli.work import perform, run_operation
from banger.client.blocking import open_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection


def plan(arguments: Arguments) -> int:
    """Of the directory that is named, or of this one."""
    path = os.path.abspath(arguments.get("path") or ".")
    with open_connection() as connection:
        planned = connection.call("tooling.plan", {"path": path})
    if arguments.has("json"):
        print_json(planned)
        return 0
    sys.stdout.write(render_plan(planned))
    _tell_warnings(planned)
    if not planned["tools"]:
        note(f"no file in {planned['root']} names a tool")
    return 0


def install(arguments: Arguments) -> int:
    with open_connection() as connection:
        installed = perform(arguments, connection, "tooling.install", arguments.params())
    if installed is None:
        return 0
    if arguments.has("json"):
        print_json(installed)
        return 0
    sys.stdout.write(render_installed(installed))
    _tell_warnings(installed)
    return 0


def check_flags(arguments: Arguments) -> None:
    """Of `vm run`: refuses, before anything is made, what could only fail afterwards."""
    timeout_s = arguments.values.get("timeout_s")
    given = "--no-bootstrap" if arguments.has("no_bootstrap") else "--bootstrap-timeout"
    if not arguments.has("no_bootstrap") and timeout_s is None:
        return
    if arguments.get("path") is None:
        raise refuse(f"{given} is about a repository, and none is named", hint="banger vm run ./repo")
    if arguments.has("no_bootstrap") and timeout_s is not None:
        raise refuse(
            "--no-bootstrap and --bootstrap-timeout contradict each other", hint="leave one of them out"
        )
    if timeout_s is not None and not 1 <= timeout_s <= 86400:
        raise refuse("--bootstrap-timeout takes 1s to 24h", hint="for example --bootstrap-timeout 30m")


def require(connection: Connection, path: str, *, nat: bool, bootstrap: bool) -> bool:
    """Whether the tools of a repository are to be installed in a VM that is about to be made for it. Raises Failure,
    while there is nothing to undo, when they cannot be: they come by the network."""
    if not bootstrap:
        return False
    planned = connection.call("tooling.plan", {"path": os.path.abspath(path)})
    if not planned["enabled"] or not planned["tools"]:
        return False
    if not nat:
        names = ", ".join(f"{tool['name']} {tool['version']}" for tool in planned["tools"])
        raise Failure(
            "bad_request",
            f"the repository wants {names}, and the VM would have no network to install them from",
            hint="--nat gives it one; --no-bootstrap installs nothing (banger tooling plan says which files ask)",
        )
    return True


def bootstrap(connection: Connection, vm: str, *, timeout_s: float | None, quiet: bool) -> dict[str, Any]:
    """Installs what the VM's workspace wants, with progress; tells what was not taken from its files."""
    params: dict[str, Any] = {"vm": vm}
    if timeout_s is not None:
        params["timeout_s"] = timeout_s
    installed = run_operation(connection, "tooling.install", params, quiet=quiet)
    _tell_warnings(installed)
    return installed


def _tell_warnings(result: dict[str, Any]) -> None:
    for warning in result.get("warnings", ()):
        note(f"banger: {render_warning(warning)}")
