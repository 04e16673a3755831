"""`workspace prepare`, `plan` and `status`."""

from __future__ import annotations

import sys

from banger.cli.output import print_json
from banger.cli.render.workspace import render_plan, render_prepared, render_state
from banger.cli.values import refuse
from banger.cli.work import perform
from banger.cli.workspaces import make_absolute, read_params, tell_warnings
from banger.client.blocking import open_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments


def prepare(arguments: Arguments) -> int:
    params = read_params(arguments)
    if arguments.has("dry_run"):
        return _plan_for(arguments, params)
    if arguments.has("force"):
        params["force"] = True
    with open_connection() as connection:
        prepared = perform(arguments, connection, "workspace.prepare", {"vm": arguments.get("vm"), **params})
    if prepared is None:
        return 0
    tell_warnings(prepared)
    if arguments.has("json"):
        print_json(prepared)
    else:
        sys.stdout.write(render_prepared(prepared))
    return 0


def plan(arguments: Arguments) -> int:
    params = arguments.params()
    if "path" in params or "vm" not in params:
        params["path"] = make_absolute(params.get("path", "."))
    return _show_plan(arguments, params)


def status(arguments: Arguments) -> int:
    with open_connection() as connection:
        state = connection.call("workspace.status", arguments.params())
    if arguments.has("json"):
        print_json(state)
    else:
        sys.stdout.write(render_state(state))
    return 0


def _plan_for(arguments: Arguments, params: dict[str, Any]) -> int:
    if arguments.has("detach") or arguments.get("op"):
        raise refuse("--dry-run begins no operation", hint="leave out --detach and --op")
    params.pop("read_only", None)
    return _show_plan(arguments, {"vm": arguments.get("vm"), **params})


def _show_plan(arguments: Arguments, params: dict[str, Any]) -> int:
    with open_connection() as connection:
        found = connection.call("workspace.plan", params)
    tell_warnings(found)
    if arguments.has("json"):
        print_json(found)
    else:
        sys.stdout.write(render_plan(found))
    return 0
