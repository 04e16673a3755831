"""`setup firecracker` and `setup tools`: local commands. They ask no daemon; `banger.installation` does their work."""

from __future__ import annotations

import os

from banger.cli.output import print_json
from banger.cli.progress import start_progress
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from banger.cli.parser import Arguments


def firecracker(arguments: Arguments) -> int:
    """Once more fetches nothing, and says so."""
    from banger.installation.firecracker import plan_next, set_up_firecracker
    from banger.installation.host import find_host

    brought = _find_brought(
        arguments.get("from"),
        "a release archive, the wheel, or a directory with firecracker and jailer in it",
    )
    host = find_host()
    progress = start_progress(quiet=arguments.has("quiet"))
    failed = True
    try:
        done = set_up_firecracker(host, progress, brought=brought)
        failed = False
    finally:
        progress.end(failed=failed)
    if arguments.has("json"):
        print_json(done._asdict())
        return 0
    print(f"Firecracker {done.version} {'is' if done.fetched else 'was already'} in {done.directory}")
    for line in plan_next(host, done):
        print(line)
    return 0


def tools(arguments: Arguments) -> int:
    """Once more fetches nothing, and says so."""
    from banger.installation.tools import set_up_tools

    brought = _find_brought(arguments.get("from"), "a release archive, an npm package, or the program itself")
    progress = start_progress(quiet=arguments.has("quiet"))
    failed = True
    try:
        done = set_up_tools(progress, name=arguments.get("program"), brought=brought)
        failed = False
    finally:
        progress.end(failed=failed)
    if arguments.has("json"):
        print_json({"tools": [each._asdict() for each in done]})
        return 0
    for each in done:
        print(f"{each.name} {each.version} {'is' if each.fetched else 'was already'} {each.path}")
    return 0


def _find_brought(named: str | None, takes: str) -> Path | None:
    if named is None:
        return None
    from pathlib import Path

    if not named or not os.path.exists(named):
        raise Failure(
            "not_found",
            f"there is no file or directory {named!r}",
            hint=f"--from takes {takes}",
        )
    return Path(os.path.abspath(named))
