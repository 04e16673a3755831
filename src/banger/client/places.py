"""Where the daemon's socket and log are, without the price of `banger.base.paths`.

That module imports `typing`, which alone costs more than a whole `banger vm list` may take. A test holds the
two together.
"""

from __future__ import annotations

import os
from stat import S_ISDIR

SYSTEM_RUNTIME = "/run/banger"  # of a system installation; belongs to its owner


def runtime_directory() -> str:
    """The directory of the socket, of this user."""
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
    return S_ISDIR(found.st_mode) and found.st_uid == uid


def socket_path() -> str:
    return runtime_directory() + "/daemon.sock"


def log_path() -> str:
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = (os.environ.get("HOME") or "/") + "/.local/state"
    return base + "/banger/daemon.log"


def config_directory() -> str:
    named = os.environ.get("BANGER_CONFIG_DIR")
    if named:
        return named
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):
        base = (os.environ.get("HOME") or "/") + "/.config"
    return base + "/banger"
