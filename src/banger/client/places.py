"""Where the daemon's socket and log are, without the price of `banger.base.paths`.

That module imports `typing`, which alone costs more than a whole `banger vm list` may take. A test holds the
two together.
"""

from __future__ import annotations

import os


def runtime_directory() -> str:
    """The directory of the socket, of this user."""
    named = os.environ.get("BANGER_RUNTIME_DIR")
    if named:
        return named
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/"):
        return base + "/banger"
    uid = os.getuid()
    return "/run/banger" if uid == 0 else f"/tmp/banger-{uid}"  # noqa: S108 (verified before use)


def socket_path() -> str:
    return runtime_directory() + "/daemon.sock"


def log_path() -> str:
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = (os.environ.get("HOME") or "/") + "/.local/state"
    return base + "/banger/daemon.log"
