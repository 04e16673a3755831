"""Does the daemon run? The doctor looks without one, too: then these are the findings that a start would meet."""

import os
import re
from pathlib import Path

import banger
from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned
from banger.services.checks.records import find_install_record

_NAME = "daemon"


async def check(around: CheckSurroundings) -> Finding:
    if around.serving_since is not None:
        text = f"version {banger.__version__}, pid {os.getpid()}, socket {around.paths.socket}"
        if (installed := _read_version()) != banger.__version__:
            return warned(_NAME, f"{text}; {installed} has been installed since", around.start_anew)
        return passed(_NAME, text)
    record = find_install_record(around.places.install_record)
    if record is None or record.uid != os.getuid():
        return passed(_NAME, "does not run; it starts when a command needs it")
    start = "systemctl start banger" if around.places.systemd.is_dir() else "banger system restart"
    return failed(_NAME, "the daemon that the system runs for you is down", f"sudo {start}")


def _read_version() -> str:
    """Of the files that this daemon was started from, as they are now: an upgrade replaces them under it."""
    found = re.search(r'^__version__ = "([^"]+)"', Path(banger.__file__).read_text("utf-8"), re.MULTILINE)
    return found[1] if found else banger.__version__
