"""The host that is installed on, as one value: where its root is, who is root there, which programs it has.

The real one comes from `find_host`; tests make one with a root of their own and themselves as its root.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import banger
from banger.base.process import find_tool
from banger.client.wire import Failure

Say = Callable[[str], None]


class Host(NamedTuple):
    """`systemctl` is None where systemd does not run. `python` and `package` are what the daemon runs from."""

    root: str = "/"
    root_uid: int = 0
    systemctl: str | None = None
    journalctl: str | None = None
    modprobe: str | None = None
    python: str = sys.executable
    package: Path = Path(banger.__file__).parent
    system_programs: str = "/usr/bin"

    def at(self, path: str) -> str:
        """Where a path of the host is for us."""
        return self.root.rstrip("/") + path


def find_host() -> Host:
    """This one. systemd runs where it says so (sd_booted(3)); being installed is not enough."""
    with_systemd = Path("/run/systemd/system").is_dir()
    return Host(
        systemctl=_find("systemctl") if with_systemd else None,
        journalctl=_find("journalctl") if with_systemd else None,
        modprobe=_find("modprobe"),
    )


def require_root(host: Host, command: str) -> None:
    if os.geteuid() != host.root_uid:
        raise Failure("unauthorized", f"system {command} needs root", hint=f"sudo banger system {command}")


def _find(name: str) -> str | None:
    found = find_tool(name)
    return None if found is None else str(found)
