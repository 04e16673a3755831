"""Banger's own security: private directories, a private socket, no daemon of root's for someone else."""

import os
import stat
from pathlib import Path

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed


async def check(around: CheckSurroundings) -> Finding:
    for path, mode in (
        (around.paths.runtime, 0o700),
        (around.paths.state, 0o700),
        (around.paths.socket, 0o600),
    ):
        try:
            state = Path(path).lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(state.st_mode) or state.st_uid != os.getuid():
            return failed("own posture", f"{path} is a link or not yours", f"ls -ld {path}")
        if stat.S_IMODE(state.st_mode) & ~mode:
            wrong = stat.S_IMODE(state.st_mode)
            return failed("own posture", f"{path} has mode {wrong:04o}", f"chmod {mode:04o} {path}")
    return passed("own posture", f"directories and socket are private to uid {os.getuid()}")
