"""Operations with their progress; and one change applied to several references."""

from __future__ import annotations

from banger.cli.main import report
from banger.cli.output import print_json, warn
from banger.cli.progress import start_progress
from banger.cli.values import refuse
from banger.client.blocking import open_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection

_UNDONE = "what was made is being removed"
_AFTER_LEAVING = {
    "vm.create": _UNDONE,
    "image.build": _UNDONE,
    "kernel.pull": _UNDONE,
    "vm.start": "{0} is being stopped again",
    "vm.stop": "{0} may still stop",
    "vm.restart": "{0} may still stop",
    "vm.kill": "{0} may still stop",
    "vm.delete": "{0} may still be deleted",
    "image.delete": "{0} may still be deleted",
    "kernel.delete": "{0} may still be deleted",
    "tooling.install": "mise is being stopped; what it had finished stays",
    "workspace.pull": "the refs of {0} stay as they were, unless they were about to move",
    "operation.watch": "the operation goes on",
    "workspace.prepare": "what was there before stays, and what is half-done the next prepare completes",
    "agent.prepare": "it is being stopped",
}  # the first parameter is the reference


def run_operation(
    connection: Connection, method: str, params: dict[str, Any], *, quiet: bool, op: str | None = None
) -> dict[str, Any]:
    """The result of a method, with its stages shown while it runs."""
    progress = start_progress(quiet=quiet)
    failed = True
    try:
        result = connection.call(method, params, on_event=progress.event, on_idle=progress.idle, op=op)
        failed = False
        return result
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_render_interrupted(method, params, connection.op)) from None
    finally:
        progress.end(failed=failed)


def _render_interrupted(method: str, params: dict[str, Any], op: str) -> str:
    """What the daemon does when its caller leaves, and where that can be seen."""
    op = str(params.get("operation", op))
    words = _AFTER_LEAVING.get(method, "it may still be done").format(*params.values())
    hint = f"banger operation show {op}" if op else "banger operation list"
    return f"; {words} ({op})\nhint: {hint}" if op else f"; {words}\nhint: {hint}"


def perform(
    arguments: Arguments, connection: Connection, method: str, params: dict[str, Any]
) -> dict[str, Any] | None:
    """The result of a command's operation; None when it goes on alone (--detach), and its id has been printed."""
    op = arguments.get("op")
    if not arguments.has("detach"):
        return run_operation(connection, method, params, quiet=arguments.has("quiet"), op=op)
    operation = connection.call(method, params, op=op, detach=True)
    if arguments.has("json"):
        print_json(operation)
    else:
        print(operation["id"], flush=True)
    return None


def change_each(arguments: Arguments) -> int:
    """The command's method on each reference in the order given. Each fails alone; the first failure's status."""
    command = arguments.command
    if arguments.get("op") and len(arguments.references) > 1:
        raise refuse("--op names one operation, and each reference is one", hint="run the command for each")
    outcomes: list[dict[str, Any]] = []
    status = 0
    for reference in arguments.references:
        outcome: dict[str, Any] = {"reference": reference}
        try:
            kind, found = _change(arguments, command.reference, reference)
            outcome[kind] = found
            if not arguments.has("json"):
                print(found["id"] if kind == "operation" else reference, flush=True)
        except Failure as failure:
            report(failure)
            outcome["error"] = failure.as_data()
            status = status or failure.exit_status
        outcomes.append(outcome)
    if arguments.has("json"):
        print_json({"results": outcomes})
    return status


def _change(arguments: Arguments, name: str, reference: str) -> tuple[str, dict[str, Any]]:
    """`result` and the method's, or `operation` and the one begun. On a connection of its own: one that broke must
    not fail the others."""
    method, params, op = (
        arguments.command.method,
        {name: reference, **arguments.params()},
        arguments.get("op"),
    )
    with open_connection() as connection:
        if arguments.has("detach"):
            return "operation", connection.call(method, params, op=op, detach=True)
        try:
            result = run_operation(connection, method, params, quiet=arguments.has("quiet"), op=op)
        except Failure as failure:
            if method != "vm.start" or failure.code != "conflict" or len(params) > 1 or op:
                raise
            result = connection.call("vm.show", params)
            if result["vm"]["state"] != "running" or result["vm"].get("removing"):
                raise failure from None
            return "result", result  # as stop and kill are content with a VM that is stopped
        warn(result)
        return "result", result
