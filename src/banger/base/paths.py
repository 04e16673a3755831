"""Where banger keeps things: the XDG directories, computed once, passed on as a value.

Knows names only; making and checking directories is for who uses them. Stays cheap to import: the CLI
needs the socket's path for every command.
"""

import os
import stat
from typing import NamedTuple

# Of a system installation:
SYSTEM_RUNTIME = "/run/banger"  # belongs to its owner
ROOT_SOCKET = "/run/banger-root/root.sock"  # the root helper's
ROOT_PROGRAM = "/usr/local/lib/banger/banger-root"  # what runs as root
ROOT_FIRECRACKER = "/usr/local/lib/banger/firecracker"  # what root runs, by version
SYSTEM_CONFIG = "/etc/banger"
INSTALL_RECORD = SYSTEM_CONFIG + "/install.json"


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
    def state_lock(self) -> str:
        return self.state + "/daemon.lock"

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

    `BANGER_RUNTIME_DIR` moves the sockets, `BANGER_CONFIG_DIR` the configuration. Who owns a system installation
    finds the sockets in /run/banger; without XDG_RUNTIME_DIR they live in /run/banger-0 for root and in
    /tmp/banger-UID for others, where the owner and mode are verified before use.
    """
    home = os.environ.get("HOME") or "/"

    def xdg(variable: str, fallback: str) -> str:
        value = os.environ.get(variable, "")
        return (value if value.startswith("/") else f"{home}/{fallback}") + "/banger"

    return Paths(
        config=os.environ.get("BANGER_CONFIG_DIR") or xdg("XDG_CONFIG_HOME", ".config"),
        state=xdg("XDG_STATE_HOME", ".local/state"),
        data=xdg("XDG_DATA_HOME", ".local/share"),
        cache=xdg("XDG_CACHE_HOME", ".cache"),
        runtime=_runtime_directory(),
    )


def _runtime_directory() -> str:
    named = os.environ.get("BANGER_RUNTIME_DIR")
    if named:
        return named
    uid = os.getuid()
    if uid != 0 and _is_system_runtime_of(uid):
        return SYSTEM_RUNTIME
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/"):
        return base + "/banger"
    return "/run/banger-0" if uid == 0 else f"/tmp/banger-{uid}"  # noqa: S108 (verified before use)


def _is_system_runtime_of(uid: int) -> bool:
    """Root owns no system installation: what is root's there is a leftover."""
    try:
        found = os.lstat(SYSTEM_RUNTIME)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid
