"""`df`."""

from __future__ import annotations

import sys

from banger.cli.output import print_json
from banger.cli.render.disk import render_usage
from banger.client.blocking import open_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.parser import Arguments


def usage(arguments: Arguments) -> int:
    with open_connection() as connection:
        result = connection.call("disk.usage")
    if arguments.has("json"):
        print_json(result)
    else:
        sys.stdout.write(render_usage(result))
    return 0
