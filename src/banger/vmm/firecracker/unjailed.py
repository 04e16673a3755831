"""Firecrackers outside of a jail: children of the daemon's with its own rights, in the VM's runtime directory."""

import os
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

from banger.base.process import Argv, spawn_detached
from banger.model.machine import Machine
from banger.vmm.contract import Handle, Place
from banger.vmm.firecracker.agent_stream import Knock
from banger.vmm.firecracker.argv import render_argv
from banger.vmm.firecracker.bodies import plan_links
from banger.vmm.firecracker.failure import SERIAL_LOG
from banger.vmm.firecracker.guest import WatchedGuest
from banger.vmm.firecracker.place import clear_place, prepare_place, sockets_directory
from banger.vmm.firecracker.sockets import AGENT_SOCKET, API_SOCKET, VMM_LOG, Sockets
from banger.vmm.firecracker.strays import end_strays
from banger.vmm.firecracker.surroundings import BACKEND
from banger.vmm.firecracker.tap import reclaim_tap, share_tap
from banger.vmm.identity import find_process, find_start_time, kill_process
from banger.vmm.logs import open_log, rotate_log
from banger.vmm.watching import destroy

_KNOCK_MODE = 0o600


class RuntimeDirectory:
    """The `Home` of one: a VM's runtime directory while Firecracker works in it."""

    def __init__(self, runtime: Path, pid: int, sockets: Sockets) -> None:
        self.sockets = sockets
        self._runtime = runtime
        self._pid = pid

    @property
    def uid(self) -> int:
        return os.geteuid()

    async def kill(self, pidfd: int) -> None:
        kill_process(pidfd)

    async def settle(self, pidfd: int, tap: int | None, name: str) -> None:
        if tap is not None:
            share_tap(tap, name, self._pid, pidfd)

    def keep_log(self, log: Path) -> None:
        """It is written to where it is kept."""

    async def clear(self) -> None:
        clear_place(str(self._runtime))


class Unjailed:
    """The `Surroundings` without root."""

    def __init__(self, program: str = "") -> None:
        """Without a program nothing can be begun."""
        self._program = program

    async def begin(self, machine: Machine, place: Place, undo: AsyncExitStack) -> WatchedGuest:
        undo.callback(clear_place, place.runtime)
        prepare_place(place, plan_links(machine))
        serial_log, vmm_log = Path(place.state) / SERIAL_LOG, Path(place.state) / VMM_LOG
        rotate_log(serial_log)
        rotate_log(vmm_log)
        os.close(open_log(vmm_log))  # or Firecracker makes one that others may read
        sockets = Sockets.find(sockets_directory(place))
        undo.callback(sockets.close)
        knock = Knock(sockets, mode=_KNOCK_MODE)
        undo.callback(knock.close)
        process = _spawn(render_argv(machine, program=self._program), place, serial_log)
        pidfd = os.pidfd_open(process.pid)  # ours until it is reaped, even if it has ended already
        handle = Handle(
            backend=BACKEND,
            pid=process.pid,
            start_time=find_start_time(process.pid) or 0,  # already gone: the wait for its socket will say so
            agent_socket=str(sockets_directory(place) / AGENT_SOCKET),
            control_socket=str(sockets_directory(place) / API_SOCKET),
            accelerator="kvm",
            serial_log=str(serial_log),
        )
        home = RuntimeDirectory(Path(place.runtime), process.pid, sockets)
        guest = WatchedGuest(handle, pidfd, home, process, knock)
        undo.push_async_callback(destroy, guest)
        return guest

    async def reclaim_tap(self, tap: int, name: str) -> None:
        await reclaim_tap(tap, name)

    async def find(self, handle: Handle) -> WatchedGuest | None:
        directory = Path(handle.control_socket).parent
        pidfd = find_process(handle.pid, handle.start_time)
        if pidfd is None:
            return None
        home = RuntimeDirectory(directory.parent, handle.pid, Sockets.find(directory))
        return WatchedGuest(handle, pidfd, home)

    async def evict(self, place: Place) -> None:
        await end_strays(place.runtime)
        clear_place(place.runtime)


def _spawn(argv: Argv, place: Place, serial_log: Path) -> "subprocess.Popen[bytes]":
    """Its standard output is the guest's console."""
    output = open_log(serial_log)
    try:
        return spawn_detached(argv, cwd=Path(place.runtime), output=output)
    finally:
        os.close(output)
