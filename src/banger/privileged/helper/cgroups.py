"""The cgroups of VMMs: version 2, `banger/VM` below the root, with limits of memory and processes.

Owns `/sys/fs/cgroup/banger` and what is in it, and removes it with the last VM. Remembers nothing. Whoever is in such
a cgroup was put there by root and cannot leave it, so that it tells who lives in a VM's jail.
"""

import errno
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from banger.privileged.contract.values import VM_PATTERN, Refusal
from banger.privileged.helper.managed import Root, list_names, open_below, read_below
from banger.privileged.helper.refusals import UNIFIED_HINT, cgroups_missing

ROOT = "/sys/fs/cgroup"
PARENT = "banger"
CONTROLLERS = ("memory", "pids")
VMM_OVERHEAD_MIB = 128  # Firecracker's own memory, and some page cache for its disks
PROCESSES_MAX = 64  # threads count: one for each vCPU, and a few
_MEMBERSHIP = re.compile(f"0::/{PARENT}/({VM_PATTERN.pattern})")  # cgroups(7)
_MIB = 1024 * 1024
_MODE = 0o755
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 64 * 1024
_CONTAINER_HINT = (
    "set jailer_enabled = false, or give the container a cgroup tree of its own that it may write"
)


def find_vm_of(pid: int) -> str | None:
    """The VM in whose cgroup this process is, by root's doing."""
    try:
        lines = read_below(Root.PROCESSES, (str(pid), "cgroup")).splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((found[1] for line in lines if (found := _MEMBERSHIP.fullmatch(line))), None)


class Cgroups:
    """The unified tree at `root`."""

    def __init__(self, root: str = ROOT) -> None:
        self._root = root

    def find_obstacle(self) -> Refusal | None:
        """Why there can be no cgroup for a VMM. Looks, and changes nothing."""
        if not Path(self._root, "cgroup.controllers").exists():
            return _explain_version(self._root)
        missing = set(CONTROLLERS) - set(self._read("cgroup.controllers").split())
        if missing:
            what = f"the cgroups of this host have no controller for {' and '.join(sorted(missing))}"
            return cgroups_missing(what, _CONTAINER_HINT)
        if not os.access(f"{self._root}/cgroup.subtree_control", os.W_OK):
            return cgroups_missing(f"the root helper cannot write to {self._root}", _CONTAINER_HINT)
        disabled = set(CONTROLLERS) - set(self._read("cgroup.subtree_control").split())
        if disabled and Path(self._root, "cgroup.type").exists() and self._read("cgroup.procs"):
            return cgroups_missing(_BUSY, _CONTAINER_HINT)
        return None

    def render_arguments(self, memory_mib: int) -> tuple[str, ...]:
        """jailer's, which writes the limits before it becomes Firecracker."""
        limits = (f"memory.max={(memory_mib + VMM_OVERHEAD_MIB) * _MIB}", f"pids.max={PROCESSES_MAX}")
        given = (word for limit in limits for word in ("--cgroup", limit))
        return ("--cgroup-version", "2", "--parent-cgroup", PARENT, *given)

    def prepare(self, vm: str) -> None:
        """The VM's cgroup, empty, below parents that have the controllers. Raises Refusal."""
        if (obstacle := self.find_obstacle()) is not None:
            raise obstacle
        self._enable(())
        self._make((PARENT,))
        self._enable((PARENT,))
        self._make((PARENT, vm))

    def add(self, vm: str, pid: int) -> None:
        self._write((PARENT, vm, "cgroup.procs"), str(pid))

    def find_processes(self, vm: str) -> list[int]:
        """Those that live. A zombie is in no cgroup any more."""
        try:
            return [int(line) for line in self._read(PARENT, vm, "cgroup.procs").split()]
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):  # the latter: it was removed while it was read
                return []
            raise

    def list_vms(self) -> set[str]:
        with suppress(FileNotFoundError), self._open(PARENT) as directory:
            return {name for name in list_names(directory) if VM_PATTERN.fullmatch(name)}
        return set()

    def kill(self, vm: str, deadline: float) -> bool:
        """Whether all who were in it have ended before `deadline` (of the monotonic clock)."""
        if not self.find_processes(vm):
            return True
        try:
            self._write((PARENT, vm, "cgroup.kill"), "1")
        except FileNotFoundError:  # before Linux 5.14; nobody in there has children
            for pid in self.find_processes(vm):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return self._wait_empty(vm, deadline)

    def remove(self, vm: str) -> None:
        """Empty. The parent goes with its last VM."""
        with suppress(FileNotFoundError), self._open(PARENT) as parent:
            os.rmdir(vm, dir_fd=parent)
        with suppress(OSError), self._open() as root:
            os.rmdir(PARENT, dir_fd=root)

    def _wait_empty(self, vm: str, deadline: float) -> bool:
        """The kernel tells of changes of this file as priority data (cgroup-v2.rst)."""
        try:
            with self._open() as root:
                events = open_below(root, (PARENT, vm, "cgroup.events"), os.O_RDONLY)
        except FileNotFoundError:
            return True
        try:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while b"populated 1" in os.pread(events, _READ_BYTES, 0):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                poll.poll(left_s * 1000)
        finally:
            os.close(events)
        return True

    def _enable(self, parts: tuple[str, ...]) -> None:
        enabled = self._read(*parts, "cgroup.subtree_control").split()
        missing = [f"+{name}" for name in CONTROLLERS if name not in enabled]
        if not missing:
            return
        try:
            self._write((*parts, "cgroup.subtree_control"), " ".join(missing))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise cgroups_missing(_BUSY, _CONTAINER_HINT) from error
            raise

    def _make(self, parts: tuple[str, ...]) -> None:
        """The owner, who is not root, reads there what a VMM uses."""
        with self._open(*parts[:-1]) as directory:
            with suppress(FileExistsError):
                os.mkdir(parts[-1], _MODE, dir_fd=directory)
            os.chmod(parts[-1], _MODE, dir_fd=directory)  # whatever the umask says

    def _read(self, *parts: str) -> str:
        with self._open() as root:
            file = open_below(root, parts, os.O_RDONLY)
        try:
            return os.read(file, _READ_BYTES).decode("ascii", "replace")
        finally:
            os.close(file)

    def _write(self, parts: tuple[str, ...], text: str) -> None:
        with self._open() as root:
            file = open_below(root, parts, os.O_WRONLY)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)

    @contextmanager
    def _open(self, *parts: str) -> Iterator[int]:
        directory = os.open(self._root, _DIRECTORY)
        try:
            if parts:
                inner = open_below(directory, parts, _DIRECTORY)
                os.close(directory)
                directory = inner
            yield directory
        finally:
            os.close(directory)


_BUSY = "processes are in the root of this host's cgroups, as in a container: no limits can be set below it"


def _explain_version(root: str) -> Refusal:
    if Path(root).is_dir() and any(Path(root).iterdir()):
        return cgroups_missing("this host has cgroups of version 1 only", UNIFIED_HINT)
    return cgroups_missing(f"this host has no cgroups at {root}", f"sudo mount -t cgroup2 none {root}")
