"""Who may change a file: the judgement on modes and owners that several checks share. Looks, follows no link."""

import os
import pwd
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from banger.base.groups import list_members


class Distrust(NamedTuple):
    text: str
    fix: str


def judge_roots(path: Path, *, owners: Collection[int]) -> Distrust | None:
    """Of what only root may change. Who can write to a directory decides what its names mean. A sticky directory is no
    danger: what is in it belongs to an owner, too, and is renamed by that one only."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return Distrust(f"{path} is a symbolic link", f"ls -l {path}")
    if found.st_uid not in owners:
        text = f"{path} belongs to {say_user(found.st_uid)}, not to root"
        return Distrust(text, f"sudo chown root:root {path}")
    if found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return Distrust(f"everybody may write to {path}", f"sudo chmod o-w {path}")
    if found.st_mode & stat.S_IWGRP and (members := list_members(found.st_gid)):
        text = f"{members[0]} may write to {path} as a member of its group"
        return Distrust(text, f"sudo chmod g-w {path}")
    return None


def judge_roots_file(path: Path, *, owners: Collection[int]) -> Distrust | None:
    """The file and every directory above it."""
    for each in (path, *path.parents):
        if (wrong := judge_roots(each, owners=owners)) is not None:
            return wrong
    return None


def judge_own(path: Path, mode: int, *, owners: Collection[int] = ()) -> Distrust | None:
    """Of what is ours, with no right beyond `mode`. What is not there is no danger."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return Distrust(f"{path} is a symbolic link", f"ls -l {path}")
    if found.st_uid not in (os.getuid(), *owners):
        text = f"{path} belongs to {say_user(found.st_uid)}, not to {say_user(os.getuid())}"
        return Distrust(text, f"sudo chown {os.getuid()} {path}")
    if (wrong := stat.S_IMODE(found.st_mode)) & ~mode:
        return Distrust(f"{path} has mode {wrong:04o}", f"chmod {mode:04o} {path}")
    return None


def say_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
