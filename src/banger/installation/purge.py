"""What the owner's VMs are made of on disk: whether any runs, how much it is, and its removal.

Everything in the owner's home is done by a process that is the owner. shutil.rmtree follows no symbolic link.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from banger.client.wire import Failure
from banger.installation import places
from banger.installation.answers import count_running_vms
from banger.installation.host import Host
from banger.installation.owner import Owner, call_as


class Doomed(NamedTuple):
    path: str
    size_bytes: int


def refuse_running_vms(host: Host, owner: Owner) -> None:
    """By the daemon's word, and where it is silent by the processes."""
    try:
        running = count_running_vms(host.at(places.DAEMON_SOCKET), owner.uid)
    except Failure as failure:
        if failure.code == "bad_version":
            raise
        running = 0
    running = running or len(find_vmms(owner)) + len(find_jailed_vmms(host))
    if running:
        raise Failure(
            "conflict",
            f"{running} of {owner.name}'s VMs {'runs' if running == 1 else 'run'}",
            hint=f"as {owner.name}: banger vm list, then banger vm stop NAME",
        )


def find_vmms(owner: Owner) -> list[int]:
    """Pids of processes of the owner's with a path below their VMs in the command line."""
    mark = f"{owner.state}/vms/".encode()
    return [pid for pid, line in _read_command_lines(owner.uid) if mark in line]


def find_jailed_vmms(host: Host) -> list[int]:
    """Pids in control groups of jails. Such a process has a uid of its own, and names no directory of the owner's."""
    found = []
    for group in Path(host.at(places.CGROUPS)).glob("*/cgroup.procs"):
        with suppress(OSError):
            found += [int(pid) for pid in group.read_text("ascii").split()]
    return found


def measure(owner: Owner) -> list[Doomed]:
    """State, data and cache, as far as they are there."""
    found: list[list[Any]] = call_as(
        owner, lambda: [[path, _measure_tree(path)] for path in _directories(owner) if _is_directory(path)]
    )
    return [Doomed(path, size_bytes) for path, size_bytes in found]


def remove(owner: Owner) -> None:
    """All of it. Raises Failure with what could not be removed."""
    left = call_as(
        owner, lambda: [str(error) for path in _directories(owner) for error in _remove_tree(path)]
    )
    if left:
        raise Failure(
            "operation_failed",
            f"{len(left)} files of {owner.name}'s could not be removed",
            detail="\n".join(left[:5]),
            hint=f"sudo ls -l {owner.state} {owner.data} {owner.cache}",
            outcome="failed",
        )


def empty_runtime(host: Host, owner: Owner) -> None:
    """Sockets and locks in the daemon's runtime directory; the directory itself is root's to remove."""
    runtime = host.at(places.RUNTIME)

    def clear() -> None:
        if not _is_directory(runtime) or Path(runtime).stat().st_uid != owner.uid:
            return
        for entry in os.scandir(runtime):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()

    call_as(owner, clear)


def _directories(owner: Owner) -> tuple[str, str, str]:
    return owner.state, owner.data, owner.cache


def _is_directory(path: str) -> bool:
    return Path(path).is_dir() and not Path(path).is_symlink()


def _measure_tree(path: str) -> int:
    """Allocated bytes."""
    total = 0
    for directory, _, names in os.walk(path):
        total += sum(Path(directory, name).lstat().st_blocks * 512 for name in names)
    return total


def _remove_tree(path: str) -> list[OSError]:
    errors: list[OSError] = []
    if Path(path).is_symlink():
        return [OSError(f"{path} is a symbolic link")]
    if Path(path).exists():
        shutil.rmtree(path, onerror=lambda _, name, info: errors.append(OSError(f"{name}: {info[1]}")))
    return errors


def _read_command_lines(uid: int) -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == uid:
                yield int(entry.name), (entry / "cmdline").read_bytes()
        except OSError:
            continue
