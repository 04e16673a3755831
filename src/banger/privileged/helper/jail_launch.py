"""The start of a jailed VMM: jailer's command line, its process, and what is held for it until it has opened its disks.

jailer becomes Firecracker in place, so the process that is started stays the VMM's, and the helper's child, which the
helper reaps. The other place where a process begins is `programs.py`.
"""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress

from banger.privileged.helper.jail_place import SOCKETS, uid_of
from banger.privileged.helper.jail_stage import LOG, METRICS, retire_disk
from banger.privileged.helper.processes import find_identity
from banger.privileged.helper.vmm_programs import VmmPrograms

API_SOCKET = f"{SOCKETS}/api.sock"
DESCRIPTORS_MAX = 4096  # each connection of a guest's vsock is one


def plan_argv(programs: VmmPrograms, vm: str, base: str, limits: tuple[str, ...]) -> tuple[str, ...]:
    """Names behind the `--` are relative to the jail's root. Pure."""
    uid = str(uid_of(vm))
    return (
        programs.jailer,
        *("--id", vm, "--exec-file", programs.firecracker, "--uid", uid, "--gid", uid),
        *("--chroot-base-dir", base, *limits, "--resource-limit", f"no-file={DESCRIPTORS_MAX}"),
        "--",
        *("--api-sock", API_SOCKET),
        *("--log-path", f"{SOCKETS}/{LOG}", "--level", "Info"),  # a crash of the guest is told at this level
        *("--metrics-path", f"{SOCKETS}/{METRICS}"),
    )


class LaunchedVmm:
    """A child, and the descriptors of the devices that its jail has nodes of: its own once it has started. `close`
    lets go of it alive."""

    def __init__(self, argv: tuple[str, ...], console: int, devices: tuple[int, ...]) -> None:
        assert argv[0].startswith("/"), argv[0]
        self._devices = devices
        process = subprocess.Popen(
            argv,
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            umask=0,  # the owner uses the sockets that it makes
        )
        self.pid = process.pid
        process.returncode = 0  # reaped by `has_ended`, and not when Python collects this object
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(self.pid)
            identity = find_identity(self.pid)  # a zombie has one, too
            assert identity is not None, self.pid
            self.start_time = identity.start_time
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            if self._pidfd >= 0:
                os.close(self._pidfd)
            raise
        self._reaped = False

    @property
    def pidfd(self) -> int:
        return self._pidfd

    def has_ended(self) -> bool:
        """Reaps it then."""
        if not self._reaped:
            with suppress(ChildProcessError):
                pid, _ = os.waitpid(self.pid, os.WNOHANG)
                if pid == 0:
                    return False
            self._reaped = True
        return True

    def end(self, deadline: float) -> bool:
        """Killed, and whether it has ended before `deadline` (of the monotonic clock)."""
        if self.has_ended():
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(max(deadline - time.monotonic(), 0) * 1000)
        return self.has_ended()

    def release_devices(self) -> None:
        """They go with their last user, which is the VMM by now; their numbers may then be another's, so the nodes are
        of no use to it from here on. One that cannot be retired stays held."""
        while self._devices:
            device, *left = self._devices
            retire_disk(device)
            self._devices = tuple(left)
            os.close(device)

    def close(self) -> None:
        with suppress(OSError):
            self.release_devices()
        for device in self._devices:
            os.close(device)
        self._devices = ()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
