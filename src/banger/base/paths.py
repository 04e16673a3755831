"""Where banger keeps things: the XDG directories, computed once, passed on as a value.

Knows names only; making and checking directories is for who uses them. Stays cheap to import: the CLI
needs the socket's path for every command.
"""

import os
from typing import NamedTuple


class Paths(NamedTuple):
    """Absolute directories. `runtime` holds sockets (short: sun_path ends at 107 bytes)."""

    config: str
    state: str
    data: str
    cache: str
    runtime: str

    @property
    def socket(self) -> str:
        return self.runtime + "/daemon.sock"

    @property
    def lock(self) -> str:
        return self.runtime + "/daemon.lock"

    @property
    def log(self) -> str:
        return self.state + "/daemon.log"

    @property
    def config_file(self) -> str:
        return self.config + "/config.toml"

    @property
    def database(self) -> str:
        return self.state + "/banger.db"


def find_paths() -> Paths:
    """The directories of the user this process runs as (XDG Base Directory Specification).

    `BANGER_RUNTIME_DIR` moves the sockets; without XDG_RUNTIME_DIR they live in /run/banger for root
    and in /tmp/banger-UID for others, where the owner and mode are verified before use.
    """
    home = os.environ.get("HOME") or "/"

    def xdg(variable: str, fallback: str) -> str:
        value = os.environ.get(variable, "")
        return (value if value.startswith("/") else f"{home}/{fallback}") + "/banger"

    return Paths(
        config=xdg("XDG_CONFIG_HOME", ".config"),
        state=xdg("XDG_STATE_HOME", ".local/state"),
        data=xdg("XDG_DATA_HOME", ".local/share"),
        cache=xdg("XDG_CACHE_HOME", ".cache"),
        runtime=_runtime_directory(),
    )


def _runtime_directory() -> str:
    named = os.environ.get("BANGER_RUNTIME_DIR")
    if named:
        return named
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/"):
        return base + "/banger"
    uid = os.getuid()
    return "/run/banger" if uid == 0 else f"/tmp/banger-{uid}"  # noqa: S108 (verified before use)
