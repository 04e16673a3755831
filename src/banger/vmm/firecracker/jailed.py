"""Firecrackers in jails: begun, entered and removed by root, configured and watched by the daemon.

Owns nothing that lives longer than a guest: what a jail is made of follows from the VM's id, which root knows. The
daemon has a jail's directory of sockets by a descriptor, and files go the other way as descriptors, so neither side
names a path to the other.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

from banger.base.files import write_atomic
from banger.base.problem import Code, Outcome, Problem
from banger.model.machine import Disk, DiskFormat, Machine
from banger.privileged.contract.base import Privileged, Reply
from banger.privileged.contract.machines import (
    FILE,
    READ_ONLY,
    SNAPSHOT,
    EnterJail,
    Jail,
    Launched,
    LaunchVmm,
    RemoveJail,
    SettleVmm,
)
from banger.privileged.contract.network import DeleteTaps
from banger.privileged.contract.processes import SignalVmm
from banger.privileged.contract.values import VM_PATTERN
from banger.vmm.contract import Handle, Place
from banger.vmm.firecracker.agent_stream import Knock
from banger.vmm.firecracker.failure import SERIAL_LOG, explain_end
from banger.vmm.firecracker.guest import WatchedGuest
from banger.vmm.firecracker.sockets import AGENT_SOCKET, API_SOCKET, VMM_LOG, Sockets
from banger.vmm.firecracker.surroundings import BACKEND
from banger.vmm.firecracker.tap import reclaim_tap
from banger.vmm.identity import kill_process, open_pidfd
from banger.vmm.logs import open_log, rotate_log
from banger.vmm.watching import destroy

_log = logging.getLogger(__name__)
_KNOCK_MODE = 0o777  # nobody but the VMM and we get as far as the directory
_LOG_MAX_BYTES = 256 * 1024
_SIGKILL = 9


class VmmJail:
    """The `Home` of one. Owns what root has made for this VM."""

    def __init__(self, root: Privileged, vm: str, launched: Launched, sockets: Sockets) -> None:
        self.sockets = sockets
        self._root = root
        self._vm = vm
        self._launched = launched

    @property
    def uid(self) -> int:
        return self._launched.uid

    async def kill(self, pidfd: int) -> None:
        try:
            kill_process(pidfd)
        except PermissionError:  # we are not root, and it has a uid of its own
            await self._kill_by_root()

    async def _kill_by_root(self) -> None:
        """By its identity, which does not keep root waiting for the end. A process that root does not take for one of
        ours has ended meanwhile, or it has changed its jail: then whoever lives in there is ended."""
        pid, start_time = self._launched.pid, self._launched.start_time
        try:
            await self._root.call(SignalVmm(pid=pid, start_time=start_time, signal=_SIGKILL))
        except Problem as problem:
            if problem.code is not Code.UNAUTHORIZED:
                raise
            await self._root.call(RemoveJail(vm=self._vm))

    async def settle(self, pidfd: int, tap: int | None, name: str) -> None:
        reply = await self._root.call(SettleVmm(vm=self._vm, tap="" if tap is None else name))
        for shared in reply.descriptors:
            assert tap is not None
            try:
                os.dup2(shared, tap, inheritable=False)
            finally:
                os.close(shared)

    def keep_log(self, log: Path) -> None:
        """The end of it: the VMM may write without end."""
        with suppress(OSError):
            write_atomic(log, self.sockets.read_end(VMM_LOG, _LOG_MAX_BYTES))

    async def clear(self) -> None:
        await _remove_jail(self._root, self._vm)


class Jailed:
    """The `Surroundings` by way of root."""

    def __init__(self, root: Privileged) -> None:
        self._root = root

    async def begin(self, machine: Machine, place: Place, undo: AsyncExitStack) -> WatchedGuest:
        rotate_log(Path(place.state) / SERIAL_LOG)
        rotate_log(Path(place.state) / VMM_LOG)
        reply = await self._launch(machine, Path(place.state) / SERIAL_LOG)
        launched = reply.result
        home = VmmJail(self._root, machine.id, launched, Sockets(reply.descriptors[0], launched.uid))
        undo.callback(home.sockets.close)
        undo.push_async_callback(_clear, home)
        pidfd = open_pidfd(launched.pid)
        if pidfd is None:
            home.keep_log(Path(place.state) / VMM_LOG)
            raise explain_end(place)
        handle = Handle(
            backend=BACKEND,
            pid=launched.pid,
            start_time=launched.start_time,
            agent_socket=AGENT_SOCKET,
            control_socket=API_SOCKET,
            accelerator="kvm",
            serial_log=str(Path(place.state) / SERIAL_LOG),
            jail=machine.id,
        )
        guest = WatchedGuest(handle, pidfd, home)
        undo.push_async_callback(destroy, guest)
        guest.knock = Knock(home.sockets, mode=_KNOCK_MODE)
        return guest

    async def _launch(self, machine: Machine, console: Path) -> Reply[Launched]:
        """A call that was interrupted may have done all of it, and then root has it undone."""
        disks = tuple(_kind_of(disk) for disk in machine.disks)
        request = LaunchVmm(vm=machine.id, memory_mib=machine.memory_mib, disks=disks)
        with _open_files(machine, console) as descriptors:
            try:
                return await self._root.call(request, descriptors)
            except asyncio.CancelledError:
                await asyncio.shield(_remove_jail(self._root, machine.id))
                raise
            except Problem as problem:
                if problem.outcome is Outcome.UNKNOWN:
                    await asyncio.shield(_remove_jail(self._root, machine.id))
                raise

    async def reclaim_tap(self, tap: int, name: str) -> None:
        """One that was lent to the VM's uid is not ours to attach to. Without it the caller's number is what it is for
        a tap that has died."""
        if not await reclaim_tap(tap, name):
            try:
                await self._root.call(DeleteTaps(taps=(name,)))
            except Problem as problem:
                _log.warning("a tap is left over", extra={"tap": name, "why": problem.brief})

    async def find(self, handle: Handle) -> WatchedGuest | None:
        """The pidfd is opened before root is asked: if the process it names were another, root would say so."""
        pidfd = open_pidfd(handle.pid)
        guest = None
        try:
            guest = await self._find(handle, pidfd)
        finally:
            if guest is None and pidfd is not None:
                os.close(pidfd)
        return guest

    async def _find(self, handle: Handle, pidfd: int | None) -> WatchedGuest | None:
        try:
            reply = await self._root.call(EnterJail(vm=handle.jail))
        except Problem as problem:
            if problem.code is Code.NOT_FOUND:
                return None
            raise
        jail = reply.result
        launched = Launched(pid=jail.pid, start_time=jail.start_time, uid=jail.uid)
        home = VmmJail(self._root, handle.jail, launched, Sockets(reply.descriptors[0], jail.uid))
        if pidfd is not None and (jail.pid, jail.start_time) == (handle.pid, handle.start_time):
            return WatchedGuest(handle, pidfd, home)
        if not _is_inhabited(jail):
            home.keep_log(Path(handle.serial_log).with_name(VMM_LOG))
            await home.clear()
        home.sockets.close()
        return None

    async def evict(self, place: Place) -> None:
        """A place has no id, but a VM's runtime directory has the VM's id for a name. Any other never had a jail."""
        vm = Path(place.runtime).name
        if VM_PATTERN.fullmatch(vm):
            await self._root.call(RemoveJail(vm=vm))


def _is_inhabited(jail: Jail) -> bool:
    return jail.pid != 0


async def _clear(home: VmmJail) -> None:
    await asyncio.shield(home.clear())


async def _remove_jail(root: Privileged, vm: str) -> None:
    """What cannot be removed now is found by its VM's id at the next start."""
    try:
        await root.call(RemoveJail(vm=vm))
    except Problem as problem:
        _log.warning("a jail is left over", extra={"vm": vm, "why": problem.brief})


def _kind_of(disk: Disk) -> str:
    if disk.format is DiskFormat.SNAPSHOT:
        return SNAPSHOT
    return READ_ONLY if disk.read_only else FILE


@contextmanager
def _open_files(machine: Machine, console: Path) -> Iterator[list[int]]:
    """What `LaunchVmm` wants, in its order. Raises Problem for a file that went away since it was looked at."""
    opened: list[int] = []
    try:
        for path in (machine.kernel, machine.initramfs):
            opened.append(_open(path, os.O_RDONLY))
        opened.append(open_log(console))
        for disk in machine.disks:
            if disk.format is not DiskFormat.SNAPSHOT:
                opened.append(_open(disk.path, os.O_RDONLY if disk.read_only else os.O_RDWR))
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise Problem(
            Code.OPERATION_FAILED,
            f"{path} cannot be opened: {error.strerror}",
            hint=f"ls -l {path}",
            outcome=Outcome.NOT_STARTED,
        ) from error
