"""Which Python runs what: the system's own for the helper, the installation's for the daemon.

The helper is root, so nobody but root may be able to change its interpreter. The daemon is its owner, so nobody
but root and the owner may be able to change what it runs from, and the owner must be able to run it.
"""

import os
import re
import stat
from pathlib import Path

from banger.client.wire import Failure
from banger.installation.host import Host
from banger.installation.owner import Owner
from banger.installation.programs import Argv, run
from banger.installation.units import validate_program

_OLDEST = (3, 11)
_NAME = re.compile(r"python3\.(\d+)")
_TIMEOUT_S = 30.0
_HOPS_MAX = 16


def find_helper_python(host: Host) -> str:
    """The absolute path as the host sees it. Raises Failure with the package to install."""
    directory = Path(host.at(host.system_programs))
    versioned = [
        (int(match[1]), entry.name) for entry in directory.iterdir() if (match := _NAME.fullmatch(entry.name))
    ]
    for name in ("python3", *(name for _, name in sorted(versioned, reverse=True))):
        program = directory / name
        if belongs_to(program, {host.root_uid, 0}) and _find_version(str(program)) >= _OLDEST:
            return f"{host.system_programs}/{name}"
    raise Failure(
        "unavailable",
        f"there is no Python 3.11 or later of the system's own in {host.system_programs}, as root needs it",
        hint="sudo apt-get install python3",
    )


def get_daemon_argv(host: Host, owner: Owner) -> Argv:
    """How the daemon is executed, tried as its owner. Raises Failure when they cannot, or should not."""
    validate_program(host.python)
    trusted = {0, host.root_uid, owner.uid}
    for path in (Path(host.python), host.package):
        if not belongs_to(path, trusted, groups={owner.gid}):
            raise Failure(
                "unauthorized",
                f"{path} could be changed by others than {owner.name} and root",
                hint=f"ls -ld {path}; or install banger as {owner.name}, in a virtual environment of theirs",
            )
    argv = (host.python, "-P", "-c", "import banger.daemon.main")
    tried = run(argv, timeout_s=_TIMEOUT_S, check=False, extra_env=owner.environment, **owner.credentials)
    if tried.status != 0:
        raise Failure(
            "unavailable",
            f"{owner.name} cannot run the daemon from {host.package.parent}",
            detail="\n".join(tried.stderr.strip().splitlines()[-3:]),
            hint="install banger where they may read it, for example below /opt",
        )
    return (host.python, "-P", "-m", "banger.daemon")


def belongs_to(path: Path, uids: set[int], *, groups: set[int] = frozenset()) -> bool:  # type: ignore[assignment]
    """Whether nobody but these can change what the path leads to: each link, each directory above, the file itself.

    A group that may write is no matter when it is root's or one of `groups`.
    """
    for _ in range(_HOPS_MAX):
        above = Path(os.path.realpath(path.parent))
        try:
            found = (above / path.name).lstat()
            if not all(_is_safe(each.lstat(), uids, groups) for each in (above, *above.parents)):
                return False
            if not stat.S_ISLNK(found.st_mode):
                return _is_safe(found, uids, groups)
            path = above / (above / path.name).readlink()
        except OSError:
            return False
    return False


def _is_safe(found: os.stat_result, uids: set[int], groups: set[int]) -> bool:
    if found.st_uid not in uids:
        return False
    if found.st_mode & stat.S_ISVTX or stat.S_ISLNK(found.st_mode):
        return True
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in {0, *groups}
    return not (found.st_mode & stat.S_IWOTH or by_group)


def _find_version(program: str) -> tuple[int, int]:
    try:
        said = run(
            (program, "-IS", "-c", "import sys; print(*sys.version_info[:2])"), timeout_s=_TIMEOUT_S
        ).stdout
        major, minor = said.split()
        return int(major), int(minor)
    except (Failure, ValueError):
        return 0, 0
