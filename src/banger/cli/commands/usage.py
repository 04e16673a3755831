"""`vm stats`, `top`, `vm ports` and `vm health`."""

from __future__ import annotations

import json
import sys
import time

from banger.cli.output import may_redraw, note, print_json
from banger.cli.render.usage import (
    list_port_hints,
    render_health,
    render_ports,
    render_usages,
    sort_by_cpu,
)
from banger.cli.values import refuse
from banger.client.blocking import open_connection
from banger.client.statuses import EXIT_STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.blocking import Connection

_INTERVAL_S = 2.0
_SHORTEST_S = 0.5
_UNHEALTHY = EXIT_STATUS["unavailable"]


def stats(arguments: Arguments) -> int:
    """Once, or with --watch until somebody leaves: in place on a terminal that is not dumb, else one table or one line
    of JSON after another."""
    interval_s = _read_interval(arguments)
    if arguments.has("interval") and not arguments.has("watch"):
        raise refuse("--interval says how often --watch looks", hint="banger vm stats --watch")
    with open_connection() as connection:
        if not arguments.has("watch"):
            usages = _ask(connection, arguments)
            if arguments.has("json"):
                print_json(usages)
            else:
                sys.stdout.write(render_usages(usages["vms"]))
            return 0
        if may_redraw(sys.stdout) and not arguments.has("json"):
            return _show(lambda: _ask(connection, arguments)["vms"], interval_s)
        while True:
            usages = _ask(connection, arguments)
            if arguments.has("json"):
                sys.stdout.write(json.dumps(usages, ensure_ascii=False) + "\n")
            else:
                sys.stdout.write(render_usages(usages["vms"]))
            sys.stdout.flush()
            time.sleep(interval_s)


def top(arguments: Arguments) -> int:
    """The busiest first. Where stdout is no terminal, or a dumb one: one table."""
    interval_s = _read_interval(arguments)
    with open_connection() as connection:

        def look() -> list[dict[str, Any]]:
            return sort_by_cpu(_ask(connection, arguments)["vms"])

        if not may_redraw(sys.stdout):
            sys.stdout.write(render_usages(look()))
            return 0
        return _show(look, interval_s)


def ports(arguments: Arguments) -> int:
    with open_connection() as connection:
        found = connection.call("vm.ports", arguments.params())
    if arguments.has("json"):
        print_json(found)
        return 0
    sys.stdout.write(render_ports(found["ports"]))
    for hint in list_port_hints(found["ports"]):
        note(f"hint: {hint}")
    return 0


def health(arguments: Arguments) -> int:
    """The status says it, too."""
    with open_connection() as connection:
        found = connection.call("vm.health", arguments.params())
    if arguments.has("json"):
        print_json(found)
    else:
        sys.stdout.write(render_health(found))
    return 0 if found["healthy"] else _UNHEALTHY


def _ask(connection: Connection, arguments: Arguments) -> dict[str, Any]:
    return connection.call("vm.stats", {"vms": arguments.references} if arguments.references else {})


def _read_interval(arguments: Arguments) -> float:
    interval_s = float(arguments.get("interval", _INTERVAL_S))
    if interval_s < _SHORTEST_S:
        raise refuse(
            f"an interval of {interval_s:g} s is too short", hint=f"--interval {_SHORTEST_S * 1000:g}ms"
        )
    return interval_s


def _show(look: Callable[[], list[dict[str, Any]]], interval_s: float) -> int:
    from banger.cli.screen import show
    from banger.cli.terminal import find_size

    show(lambda: render_usages(look(), columns=find_size()[1]), interval_s)
    return 0
