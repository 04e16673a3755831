"""The one part of banger that is root: its socket closed to everybody else, its file root's alone.

Who can write to the file or to a directory above it decides what root runs; who can rename the socket decides
whom the daemon asks.
"""

import os
import pwd
import stat
from pathlib import Path

from banger.api.system import Finding
from banger.base.groups import list_members
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned

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
            "sudo banger system install --owner USER",
        )
    users = " and ".join(dict.fromkeys((_say_user(os.getuid()), "root")))
    return passed(_NAME, f"{around.root_socket} is closed to all but {users}")


def _judge_program(program: Path, root_uid: int) -> Finding | None:
    """The installed file and all directories above it."""
    if not os.path.lexists(program):
        return None
    for path in (program, *program.parents):
        if (wrong := _judge(path, owners=(0, root_uid))) is not None:
            return wrong
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
        return failed(_NAME, f"{socket} is no socket of {_say_user(os.getuid())}", f"ls -l {socket}")
    if stat.S_IMODE(found.st_mode) & ~0o600:
        wrong = stat.S_IMODE(found.st_mode)
        return failed(_NAME, f"{socket} has mode {wrong:04o}", f"sudo chmod 0600 {socket}")
    return _judge(socket.parent, owners=(0, os.getuid()))


def _judge(path: Path, owners: tuple[int, int]) -> Finding | None:
    """A sticky directory is no danger: what is in it belongs to an owner, too, and is renamed by that one only."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return failed(_NAME, f"{path} is a symbolic link", f"ls -l {path}")
    if found.st_uid not in owners:
        return failed(
            _NAME, f"{path} belongs to {_say_user(found.st_uid)}, not to root", f"sudo chown root:root {path}"
        )
    if found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return failed(_NAME, f"everybody may write to {path}", f"sudo chmod o-w {path}")
    if found.st_mode & stat.S_IWGRP and (members := list_members(found.st_gid)):
        return failed(
            _NAME, f"{members[0]} may write to {path} as a member of its group", f"sudo chmod g-w {path}"
        )
    return None


def _say_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
