"""`operation list`, `show`, `watch` and `cancel`."""

from __future__ import annotations

import sys

from banger.cli.output import print_json
from banger.cli.render.tables import render_age, render_duration, render_fields, render_table
from banger.cli.work import run_operation
from banger.client.blocking import open_connection
from banger.client.statuses import EXIT_STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments


def show_list(arguments: Arguments) -> int:
    with open_connection() as connection:
        result = connection.call("operation.list")
    if arguments.has("json"):
        print_json(result)
        return 0
    rows = [
        (
            each["id"],
            each["kind"],
            each["subject"] or "-",
            each["state"],
            each.get("stage") or "-",
            render_age(each["started_at"]),
        )
        for each in result["operations"]
    ]
    sys.stdout.write(render_table(("OPERATION", "KIND", "SUBJECT", "STATE", "STAGE", "AGE"), rows))
    return 0


def show(arguments: Arguments) -> int:
    with open_connection() as connection:
        return _print(connection.call("operation.show", arguments.params()), arguments)


def watch(arguments: Arguments) -> int:
    """Exits as the operation does. Leaving does not cancel it."""
    with open_connection() as connection:
        operation = run_operation(
            connection, "operation.watch", arguments.params(), quiet=arguments.has("quiet")
        )
    _print(operation, arguments)
    if operation["state"] == "succeeded":
        return 0
    code = (operation.get("error") or {}).get("code", operation["state"])
    return EXIT_STATUS.get(code, EXIT_STATUS["operation_failed"])


def cancel(arguments: Arguments) -> int:
    with open_connection() as connection:
        return _print(connection.call("operation.cancel", arguments.params()), arguments)


def _print(operation: dict[str, Any], arguments: Arguments) -> int:
    if arguments.has("json"):
        print_json(operation)
    else:
        sys.stdout.write(_render(operation))
    return 0


def _render(operation: dict[str, Any]) -> str:
    stages = [
        f"{stage['name']} {render_duration(stage['duration_ms'] / 1000)}"
        for stage in operation.get("stages") or ()
    ]
    if operation.get("stage"):
        stages.append(f"{operation['stage']} …")
    return render_fields(
        [
            ("operation", operation["id"]),
            ("kind", operation["kind"]),
            ("subject", operation["subject"]),
            ("state", operation["state"]),
            ("stages", "\n".join(stages)),
            ("detail", operation.get("detail") or ""),
            ("error", (operation.get("error") or {}).get("message", "")),
            ("hint", (operation.get("error") or {}).get("hint", "")),
            ("started", operation["started_at"]),
            ("finished", operation.get("finished_at") or ""),
        ]
    )
