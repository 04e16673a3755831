"""`image list`, `show` and `build`. Deleting is `commands.vm.change`, like every change to several things."""

from __future__ import annotations

import os
import sys

from banger.cli.output import print_json
from banger.cli.render.tables import render_age, render_fields, render_size, render_table
from banger.cli.work import perform
from banger.client.blocking import open_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments


def show_list(arguments: Arguments) -> int:
    with open_connection() as connection:
        result = connection.call("image.list")
    if arguments.has("json"):
        print_json(result)
        return 0
    rows = [
        (
            image["name"],
            (image.get("os_release") or {}).get("PRETTY_NAME", "-"),
            render_size(image["virtual_size_bytes"]),
            render_size(image["size_bytes"]),
            image.get("kernel") or "-",
            render_age(image["created_at"]),
        )
        for image in result["images"]
    ]
    sys.stdout.write(render_table(("NAME", "SYSTEM", "SIZE", "ON DISK", "KERNEL", "AGE"), rows))
    return 0


def show(arguments: Arguments) -> int:
    with open_connection() as connection:
        image = connection.call("image.show", arguments.params())
    if arguments.has("json"):
        print_json(image)
    else:
        sys.stdout.write(_render(image))
    return 0


def build(arguments: Arguments) -> int:
    """Prints the image's name. The archive's path is made absolute, for the daemon lives elsewhere."""
    params = arguments.params()
    if "from_tar" in params:
        params["from_tar"] = _get_readable_file(params["from_tar"])
    with open_connection() as connection:
        image = perform(arguments, connection, "image.build", params)
    if image is None:
        return 0
    if arguments.has("json"):
        print_json(image)
    else:
        print(image["name"])
    return 0


def _get_readable_file(path: str) -> str:
    absolute = os.path.abspath(path)
    if not os.path.isfile(absolute):
        raise Failure(
            "not_found", f"there is no file {absolute}", hint="--from-tar takes the path of a tar archive"
        )
    if not os.access(absolute, os.R_OK):
        raise Failure("unauthorized", f"{absolute} cannot be read", hint=f"ls -l {absolute}")
    return absolute


def _render(image: dict[str, Any]) -> str:
    return render_fields(
        [
            ("name", image["name"]),
            ("id", image["id"]),
            ("system", (image.get("os_release") or {}).get("PRETTY_NAME", "")),
            ("source", image["source"]),
            ("kernel", image.get("kernel") or ""),
            (
                "size",
                f"{render_size(image['virtual_size_bytes'])}, on disk {render_size(image['size_bytes'])}",
            ),
            ("work seed", image.get("work_seed") or "none"),
            ("recipe", image["recipe_digest"]),
            ("created", f"{image['created_at']} ({render_age(image['created_at'])} ago)"),
        ]
    )
