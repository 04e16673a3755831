"""`operation list`, `show`, `watch` and `cancel`."""

from __future__ import annotations

import sys

from banger.cli.output import note, print_json
from banger.cli.render.tables import render_age, render_duration, render_fields, render_table
from banger.cli.values import refuse
from banger.cli.work import run_operation
from banger.client.blocking import open_connection
from banger.client.statuses import EXIT_STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments


def show_list(arguments: Arguments) -> int:
    if arguments.has("all") and "limit" in arguments.values:
        raise refuse("--all and --limit contradict each other", hint="leave one of them out")
    with open_connection() as connection:
        result = connection.call("operation.list", arguments.params())
    if arguments.has("json"):
        print_json(result)
        return 0
    rows = [
        (
            each["id"],
            each["kind"],
            each["subject"] or "-",
            _state(each),
            each.get("stage") or "-",
            render_age(each["started_at"]),
        )
        for each in result["operations"]
    ]
    sys.stdout.write(render_table(("OPERATION", "KIND", "SUBJECT", "STATE", "STAGE", "AGE"), rows))
    return 0


def show(arguments: Arguments) -> int:
    with open_connection() as connection:
        _print(connection.call("operation.show", arguments.params()), arguments)
    return 0


def watch(arguments: Arguments) -> int:
    """Exits as the operation does. Leaving does not cancel it."""
    with open_connection() as connection:
        operation = run_operation(
            connection, "operation.watch", arguments.params(), quiet=arguments.has("quiet")
        )
    _print(operation, arguments)
    return _exit_status(operation)


def cancel(arguments: Arguments) -> int:
    """With --wait it exits with 0 when all is undone, and else as the operation ended."""
    with open_connection() as connection:
        operation = connection.call("operation.cancel", arguments.params())
    _print(operation, arguments)
    if not arguments.has("wait"):
        note(f"banger operation watch {operation['id']} follows its undoing")
        return 0
    if operation["state"] == "succeeded":
        note("banger: it had succeeded before it could be cancelled")
        return EXIT_STATUS["conflict"]
    return 0 if operation["state"] == "cancelled" else _exit_status(operation)


def _exit_status(operation: dict[str, Any]) -> int:
    if operation["state"] == "succeeded":
        return 0
    code = (operation.get("error") or {}).get("code", operation["state"])
    return EXIT_STATUS.get(code, EXIT_STATUS["operation_failed"])


def _print(operation: dict[str, Any], arguments: Arguments) -> None:
    if arguments.has("json"):
        print_json(operation)
    else:
        sys.stdout.write(_render(operation))


def _state(operation: dict[str, Any]) -> str:
    return "cancelling" if operation.get("cancelling") else str(operation["state"])


def _render(operation: dict[str, Any]) -> str:
    error = operation.get("error") or {}
    return render_fields(
        [
            ("operation", operation["id"]),
            ("kind", operation["kind"]),
            ("subject", operation["subject"]),
            ("object", operation.get("object_id") or ""),
            ("state", _state(operation)),
            ("known by", operation.get("resolved") or ""),
            ("stages", "\n".join(_render_stages(operation))),
            ("detail", operation.get("detail") or ""),
            ("error", error.get("message", "")),
            ("hint", error.get("hint", "")),
            ("started", f"{operation['started_at']} ({render_age(operation['started_at'])} ago)"),
            ("finished", operation.get("finished_at") or ""),
        ]
    )


def _render_stages(operation: dict[str, Any]) -> list[str]:
    """Each with the time it took; the last one is under way, or is where the daemon died."""
    done = operation.get("stages") or ()
    width = max((len(stage["name"]) for stage in done), default=0)
    lines = [f"{stage['name']:<{width}}  {render_duration(stage['duration_ms'] / 1000)}" for stage in done]
    if operation.get("stage"):
        lines.append(f"{operation['stage']:<{width}}  …")
    return lines
