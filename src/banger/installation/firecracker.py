"""`setup firecracker`: the pinned Firecracker and jailer where banger looks for them.

Root's are for the jail: the helper runs what only root can change. A user's own run as that user, without one.
Nothing is put in place but what has the pinned digests. No daemon takes part: the first one may need what is fetched.
"""

import os
from pathlib import Path
from typing import NamedTuple

from banger.base.files import ensure_private_directory
from banger.base.paths import find_paths
from banger.client.wire import Failure
from banger.installation import places
from banger.installation.host import Host
from banger.installation.record import find_record
from banger.installation.tree import Tree
from banger.installation.watching import Watch, failing, run_watched
from banger.vmm.firecracker.obtain import (
    Programs,
    are_whole,
    fetch_programs,
    get_programs,
    install_programs,
    matches,
)
from banger.vmm.firecracker.programs import VERSION, managed_program

_MODE = 0o755


class SetUp(NamedTuple):
    """`fetched` is whether anything had to be; `system` whether it is root's."""

    version: str
    directory: str
    fetched: bool
    system: bool


def set_up_firecracker(host: Host, watch: Watch, *, brought: Path | None = None) -> SetUp:
    """For root or for the user, whoever asks. Downloaded where nothing was `brought`. Raises Failure."""
    with failing():
        if os.geteuid() == host.root_uid:
            return _set_up_for_root(Tree(host.root, uid=host.root_uid), watch, brought)
        return _set_up_for_user(watch, brought)


def plan_next(host: Host, done: SetUp) -> tuple[str, ...]:
    """What to do now, for people."""
    if not done.system:
        return (
            "it runs as you, without a jail, and only with jailer_enabled = false; for the jail: "
            "sudo banger setup firecracker",
            "next: banger doctor",
        )
    if find_record(Tree(host.root, uid=host.root_uid)) is None:
        return ("next: sudo banger system install, then banger doctor",)
    return ("next: sudo banger system restart (running VMs are not touched), then banger doctor",)


def find_roots_firecracker(tree: Tree) -> str | None:
    """The pinned version, if it is where the helper looks and may be trusted. Its digest is not looked at."""
    try:
        found = [tree.find(_roots_path(name)) for name in Programs._fields]
    except Failure:
        return None
    return VERSION if all(file is not None and file.mode & 0o111 for file in found) else None


def _set_up_for_root(tree: Tree, watch: Watch, brought: Path | None) -> SetUp:
    """Every directory on the way is verified by `Tree`, and made root's where it is missing."""
    done = SetUp(VERSION, str(Path(_roots_path("firecracker")).parent), fetched=False, system=True)
    if all(_is_in_place(tree, name) for name in Programs._fields):
        return done
    for name, content in _fetch(watch, brought).items():
        tree.write(_roots_path(name), content, mode=_MODE)
    return done._replace(fetched=True)


def _set_up_for_user(watch: Watch, brought: Path | None) -> SetUp:
    data = Path(find_paths().data)
    programs = get_programs(data / "firecracker")
    done = SetUp(VERSION, str(programs.firecracker.parent), fetched=False, system=False)
    if are_whole(programs):
        return done
    found = _fetch(watch, brought)
    try:
        ensure_private_directory(data)
        install_programs(programs, found)
    except OSError as error:
        raise Failure(
            "unavailable",
            f"{programs.firecracker.parent} cannot be written: {error.strerror}",
            hint=f"ls -ld {data}",
            outcome="failed",
        ) from error
    return done._replace(fetched=True)


def _roots_path(name: str) -> str:
    return str(managed_program(Path(places.FIRECRACKER), name))


def _is_in_place(tree: Tree, name: str) -> bool:
    found = tree.find(_roots_path(name))
    return found is not None and (found.mode, found.uid) == (_MODE, tree.uid) and matches(name, found.content)


def _fetch(watch: Watch, brought: Path | None) -> dict[str, bytes]:
    return run_watched(watch, lambda progress: fetch_programs(progress, brought=brought))
