"""`vm list`, alone in its module: the command whose start-up time is measured (PERFORMANCE P7)."""

from __future__ import annotations

import sys

from banger.cli.render.tables import render_age, render_size, render_table
from banger.client.blocking import open_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments

_HEADERS = ("NAME", "ID", "STATE", "IMAGE", "VCPUS", "MEMORY", "ADDRESS", "AGE")


def show_list(arguments: Arguments) -> int:
    result = open_connection().call("vm.list", arguments.params())
    if arguments.has("json"):
        from banger.cli.output import print_json

        print_json(result)
    else:
        sys.stdout.write(render_table(_HEADERS, [_row(vm) for vm in result["vms"]]))
    return 0


def _row(vm: dict[str, Any]) -> tuple[str, ...]:
    return (
        vm["name"],
        vm["id"],
        vm["state"],
        vm["image"],
        str(vm["vcpus"]),
        render_size(vm["memory_mib"] * 1024 * 1024),
        vm["address"] or "-",
        render_age(vm["created_at"]),
    )
