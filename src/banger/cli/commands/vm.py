"""`vm create`, `start`, `stop`, `restart`, `kill`, `delete`, `set`, `show`, `publish`, `logs` and `prune`."""

from __future__ import annotations

import sys

from banger.cli.output import defuse, note, print_json
from banger.cli.render.tables import render_size
from banger.cli.render.vm import render_details, render_port
from banger.cli.values import refuse
from banger.cli.work import change_each, run_operation
from banger.client.blocking import open_connection

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
        details = run_operation(connection, "vm.create", params, quiet=arguments.has("quiet"))
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
    """Asks on a terminal, because stopped VMs may hold somebody's work."""
    with open_connection() as connection:
        if not arguments.has("dry_run") and not arguments.has("yes") and sys.stdin.isatty():
            doomed = connection.call("vm.prune", {"dry_run": True})["vms"]
            if doomed and not _agrees(f"delete {', '.join(doomed)}?"):
                return 0
        pruned = connection.call("vm.prune", arguments.params())
    if arguments.has("json"):
        print_json(pruned)
        return 0
    for name in pruned["vms"]:
        print(name)
    verb = "would be freed" if pruned["dry_run"] else "freed"
    note(f"{render_size(pruned['freed_bytes'])} {verb}")
    return 0


def _agrees(question: str) -> bool:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
