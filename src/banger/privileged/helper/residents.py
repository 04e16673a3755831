"""Who lives in jails where there are no cgroups of version 2: whoever has the VM's uid.

The same questions and acts as `Cgroups`, without limits, for tests on hosts of version 1. Owns nothing.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from banger.privileged.helper.jail_place import uid_of
from banger.privileged.helper.processes import find_identity


class Residents:
    def render_arguments(self, _memory_mib: int) -> tuple[str, ...]:
        return ()

    def prepare(self, vm: str) -> None:
        pass

    def add(self, vm: str, pid: int) -> None:
        pass

    def find_processes(self, vm: str) -> list[int]:
        uid = uid_of(vm)
        return [pid for pid in _list_pids() if _lives(pid, uid)]

    def list_vms(self) -> set[str]:
        return set()

    def kill(self, vm: str, deadline: float) -> bool:
        uid = uid_of(vm)
        for pid in self.find_processes(vm):
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    if _lives(pid, uid):  # still, and so the descriptor is its
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        _wait_end(pidfd, deadline)
                finally:
                    os.close(pidfd)
        return not self.find_processes(vm)

    def remove(self, vm: str) -> None:
        pass


def _list_pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _lives(pid: int, uid: int) -> bool:
    identity = find_identity(pid)
    return identity is not None and identity.uid == uid and identity.alive


def _wait_end(pidfd: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(max(deadline - time.monotonic(), 0) * 1000)
