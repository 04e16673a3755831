"""`vm create`, `start`, `stop`, `restart`, `kill`, `delete`, `set`, `rename`, `show`, `publish`, `logs`, `prune`."""

from __future__ import annotations

import sys

from banger.cli.output import defuse, note, print_json, warn
from banger.cli.render.tables import render_size
from banger.cli.render.vm import render_details, render_port, render_verdicts
from banger.cli.values import refuse
from banger.cli.work import change_each, perform
from banger.client.blocking import open_connection
from banger.client.statuses import EXIT_STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.parser import Arguments


def create(arguments: Arguments) -> int:
    """Prints the new VM's name."""
    params = arguments.params()
    if arguments.has("no_start") and arguments.has("wait_ssh"):
        raise refuse("--no-start and --wait-ssh contradict each other", hint="leave one of them out")
    if arguments.has("no_start"):
        params["start"] = False
    if arguments.has("named"):
        if "name" in params:
            raise refuse("the name is given twice", hint="write it once: as --name or alone")
        params["name"] = arguments.get("named")
    with open_connection() as connection:
        details = perform(arguments, connection, "vm.create", params)
    if details is None:
        return 0
    warn(details)
    if arguments.has("json"):
        print_json(details)
    else:
        print(details["vm"]["name"])
    return 0


def change(arguments: Arguments) -> int:
    """What is done to several VMs, images or kernels in turn; prints each reference that it was done to."""
    return change_each(arguments)


def show(arguments: Arguments) -> int:
    with open_connection() as connection:
        details = connection.call("vm.show", arguments.params())
    if arguments.has("json"):
        print_json(details)
    else:
        sys.stdout.write(render_details(details))
    return 0


def rename(arguments: Arguments) -> int:
    """Prints the new name."""
    with open_connection() as connection:
        details = connection.call("vm.rename", arguments.params())
    if arguments.has("json"):
        print_json(details)
    else:
        print(details["vm"]["name"])
    return 0


def publish(arguments: Arguments) -> int:
    """`vm publish` and `vm unpublish`; prints what is published then, one port a line."""
    with open_connection() as connection:
        details = connection.call(arguments.command.method, arguments.params())
    if arguments.has("json"):
        print_json(details)
    for port in () if arguments.has("json") else details["vm"]["spec"].get("publish") or ():
        print(render_port(port))
    return 0


def logs(arguments: Arguments) -> int:
    with open_connection() as connection:
        log = connection.call("vm.logs", arguments.params())
    if arguments.has("json"):
        print_json(log)
        return 0
    if log["truncated"]:
        note("banger: the log is longer; this is its end")
    text = defuse(log["text"]) if sys.stdout.isatty() else log["text"]
    sys.stdout.write(text if text.endswith("\n") or not text else text + "\n")
    return 0


def prune(arguments: Arguments) -> int:
    """Asks, because stopped VMs may hold somebody's work, and refuses where nobody can answer. One that cannot be
    removed fails the command when the others are gone."""
    if not (arguments.has("dry_run") or arguments.has("yes") or sys.stdin.isatty()):
        raise refuse("there is no terminal to ask on", hint="banger vm prune --yes, or --dry-run")
    with open_connection() as connection:
        if not arguments.has("dry_run") and not arguments.has("yes"):
            doomed = connection.call("vm.prune", {**arguments.params(), "dry_run": True})["vms"]
            if doomed and not _agrees(f"delete {', '.join(doomed)}?"):
                return 0
        pruned = connection.call("vm.prune", arguments.params())
    left = [verdict for verdict in pruned.get("verdicts", ()) if verdict.get("failed")]
    status = EXIT_STATUS["operation_failed"] if left else 0
    if arguments.has("json"):
        print_json(pruned)
        return status
    if pruned["dry_run"] and pruned.get("verdicts"):
        sys.stdout.write(render_verdicts(pruned["verdicts"]))
    else:
        for name in pruned["vms"]:
            print(name)
    if pruned["vms"]:
        verb = "would be freed" if pruned["dry_run"] else "freed"
        note(f"{render_size(pruned['freed_bytes'])} {verb}")
    elif not left:
        note("no VM to delete")
    for verdict in left:
        note(f"banger: {verdict['name']} {verdict['why']}")
    return status


def _agrees(question: str) -> bool:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
