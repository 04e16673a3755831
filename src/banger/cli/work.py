"""Operations with their progress; and one change applied to several references."""

from __future__ import annotations

from banger.cli.main import report
from banger.cli.output import print_json
from banger.cli.progress import start_progress
from banger.client.blocking import open_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection


def run_operation(
    connection: Connection, method: str, params: dict[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """The result of a method, with its stages shown while it runs."""
    progress = start_progress(quiet=quiet)
    failed = True
    try:
        result = connection.call(method, params, on_event=progress.event, on_idle=progress.idle)
        failed = False
        return result
    finally:
        progress.end(failed=failed)


def change_each(arguments: Arguments) -> int:
    """The command's method on each reference in the order given. Each fails alone; the first failure's status."""
    command = arguments.command
    outcomes: list[dict[str, Any]] = []
    status = 0
    for reference in arguments.references:
        outcome: dict[str, Any] = {"reference": reference}
        try:
            outcome["result"] = _change(arguments, command.reference, reference)
            if not arguments.has("json"):
                print(reference, flush=True)
        except Failure as failure:
            report(failure)
            outcome["error"] = failure.as_data()
            status = status or failure.exit_status
        outcomes.append(outcome)
    if arguments.has("json"):
        print_json({"results": outcomes})
    return status


def _change(arguments: Arguments, name: str, reference: str) -> dict[str, Any]:
    """On a connection of its own: one that broke must not fail the others."""
    params = {name: reference, **arguments.params()}
    with open_connection() as connection:
        return run_operation(connection, arguments.command.method, params, quiet=arguments.has("quiet"))
