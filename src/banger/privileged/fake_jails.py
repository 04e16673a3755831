"""Jails of VMMs on an invented host: plain data, for tests to set and to look at.

Nobody lives in one unless a test has somebody: `spawn` says who is launched, by default a pid that no process can
have. The directory of sockets is a real one, so that a test may listen in it; it goes with its jail.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from banger.privileged.contract.machines import (
    SNAPSHOT,
    EnterJail,
    Jail,
    Jails,
    Launched,
    LaunchVmm,
    RemoveJail,
    SettleVmm,
)
from banger.privileged.helper.jail_place import uid_of
from banger.privileged.helper.jail_stage import verify_launch
from banger.privileged.helper.processes import PID_MAX
from banger.privileged.helper.refusals import (
    jail_inhabited,
    jail_missing,
    jail_uid_taken,
    snapshot_missing,
)

Spawn = Callable[[LaunchVmm, Path], tuple[int, int]]


class FakeJail:
    """`pid` is 0 when nobody lives in it (any more). `tap` is what it was settled with."""

    def __init__(self, request: LaunchVmm, directory: Path) -> None:
        self.request = request
        self.directory = directory
        self.pid = self.start_time = 0
        self.settled = False
        self.tap = ""
        self.remove_directory = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)


class FakeJails:
    """`jails` by VM. `spawn` is given the request and the directory of sockets, and tells pid and start time; `end` is
    called with the pid of whoever is in a jail that is removed."""

    def __init__(self) -> None:
        self.jails: dict[str, FakeJail] = {}
        self._pids = count(PID_MAX + 1)
        self.spawn: Spawn = lambda _request, _directory: (next(self._pids), 1)
        self.end: Callable[[int], None] = lambda _pid: None

    def die(self, vm: str) -> None:
        """As when its VMM was killed from outside; the jail is left."""
        self.jails[vm].pid = self.jails[vm].start_time = 0

    def launch(
        self, request: LaunchVmm, descriptors: Sequence[int], *, has_snapshot: bool
    ) -> tuple[Launched, int]:
        """The descriptor is the caller's."""
        verify_launch(request, descriptors, os.getuid())
        self._refuse_taken(request.vm)
        if SNAPSHOT in request.disks and not has_snapshot:
            raise snapshot_missing(request.vm)
        self.remove(RemoveJail(vm=request.vm))
        jail = FakeJail(request, Path(tempfile.mkdtemp(prefix="bj-", dir="/tmp")))
        jail.pid, jail.start_time = self.spawn(request, jail.directory)
        self.jails[request.vm] = jail
        launched = Launched(pid=jail.pid, start_time=jail.start_time, uid=uid_of(request.vm))
        return launched, _open(jail)

    def settle(self, request: SettleVmm) -> None:
        jail = self.jails.get(request.vm)
        if jail is None or jail.pid == 0:
            raise jail_missing(request.vm)
        jail.settled, jail.tap = True, request.tap

    def enter(self, request: EnterJail) -> tuple[Jail, int]:
        """The descriptor is the caller's."""
        if request.vm not in self.jails:
            raise jail_missing(request.vm)
        return self._describe(request.vm), _open(self.jails[request.vm])

    def remove(self, request: RemoveJail) -> None:
        if (jail := self.jails.pop(request.vm, None)) is not None:
            if jail.pid:
                self.end(jail.pid)
            jail.remove_directory()

    def list(self) -> Jails:
        return Jails(jails=tuple(self._describe(vm) for vm in sorted(self.jails)))

    def _refuse_taken(self, vm: str) -> None:
        for other in self.jails:
            if other != vm and uid_of(other) == uid_of(vm):
                raise jail_uid_taken(vm, other)
        if vm in self.jails and self.jails[vm].pid:
            raise jail_inhabited(vm, self.jails[vm].pid)

    def _describe(self, vm: str) -> Jail:
        jail = self.jails[vm]
        return Jail(vm=vm, pid=jail.pid, start_time=jail.start_time, uid=uid_of(vm))


def _open(jail: FakeJail) -> int:
    return os.open(jail.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
