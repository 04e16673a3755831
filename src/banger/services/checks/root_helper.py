"""The one part of banger that is root: its socket closed to everybody else, its file root's alone.

Who can write to the file or to a directory above it decides what root runs; who can rename the socket decides
whom the daemon asks.
"""

import os
import stat
from pathlib import Path

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned
from banger.services.checks.trust import judge_roots, judge_roots_file, say_user

_NAME = "root helper"


async def check(around: CheckSurroundings) -> Finding:
    if (wrong := _judge_program(around.root_program, around.root_uid)) is not None:
        return wrong
    if (wrong := _judge_socket(around.root_socket)) is not None:
        return wrong
    if around.config.network == "user":
        return passed(_NAME, "not used: the configuration says user mode")
    bridge = around.networks.bridge
    if bridge is None:
        return passed(_NAME, "none: nothing of banger's runs as root")
    if bridge.privileged.kind == "in-process":
        return warned(
            _NAME,
            "the daemon is root and its own helper, which is for development and containers",
            "sudo banger system install",
        )
    users = " and ".join(dict.fromkeys((say_user(os.getuid()), "root")))
    return passed(_NAME, f"{around.root_socket} is closed to all but {users}")


def _judge_program(program: Path, root_uid: int) -> Finding | None:
    """The installed file and all directories above it."""
    if not os.path.lexists(program):
        return None
    if (wrong := judge_roots_file(program, owners=(0, root_uid))) is not None:
        return failed(_NAME, *wrong)
    if not stat.S_ISREG(program.lstat().st_mode):
        return failed(_NAME, f"{program} is no file", "sudo banger system install")
    return None


def _judge_socket(socket: Path) -> Finding | None:
    """Ours or root's, mode 0600, in a directory that only root changes. One of our own is development's: nobody gains
    by it."""
    try:
        found = socket.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in (0, os.getuid()):
        return failed(_NAME, f"{socket} is no socket of {say_user(os.getuid())}", f"ls -l {socket}")
    if stat.S_IMODE(found.st_mode) & ~0o600:
        wrong = stat.S_IMODE(found.st_mode)
        return failed(_NAME, f"{socket} has mode {wrong:04o}", f"sudo chmod 0600 {socket}")
    distrust = judge_roots(socket.parent, owners=(0, os.getuid()))
    return None if distrust is None else failed(_NAME, *distrust)
