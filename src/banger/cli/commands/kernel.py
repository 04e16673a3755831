"""`kernel list`, `show` and `pull`."""

from __future__ import annotations

import sys

from banger.cli.output import print_json
from banger.cli.render.tables import render_age, render_fields, render_size, render_table
from banger.cli.work import perform
from banger.client.blocking import open_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.parser import Arguments


def show_list(arguments: Arguments) -> int:
    with open_connection() as connection:
        result = connection.call("kernel.list", arguments.params())
    if arguments.has("json"):
        print_json(result)
        return 0
    rows = [
        (
            kernel["name"],
            kernel.get("release") or "-",
            render_size(kernel["size_bytes"]) if kernel.get("size_bytes") else "-",
            "yes" if kernel["pulled"] else "no",
            kernel["description"],
        )
        for kernel in result["kernels"]
    ]
    sys.stdout.write(render_table(("NAME", "RELEASE", "SIZE", "PULLED", "DESCRIPTION"), rows))
    return 0


def show(arguments: Arguments) -> int:
    with open_connection() as connection:
        kernel = connection.call("kernel.show", arguments.params())
    if arguments.has("json"):
        print_json(kernel)
        return 0
    fields = [
        ("name", kernel["name"]),
        ("release", kernel["release"]),
        ("architecture", kernel["architecture"]),
        ("source", kernel["source"]),
        ("modules", kernel.get("modules_image") or "built in"),
        ("boot modules", ", ".join(kernel.get("boot_modules") or ())),
        ("size", render_size(kernel.get("size_bytes", 0))),
        ("recipe", kernel["recipe_digest"]),
        ("created", f"{kernel['created_at']} ({render_age(kernel['created_at'])} ago)"),
    ]
    sys.stdout.write(render_fields(fields))
    return 0


def pull(arguments: Arguments) -> int:
    """Prints the kernel's name."""
    with open_connection() as connection:
        kernel = perform(arguments, connection, "kernel.pull", arguments.params())
    if kernel is None:
        return 0
    if arguments.has("json"):
        print_json(kernel)
    else:
        print(kernel["name"])
    return 0
