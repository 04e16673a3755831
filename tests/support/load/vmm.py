"""VMMs whose processes belong to the fake host: they outlive the daemon, and are adopted by pid and start time.

Own no process. `PlainVmm` stands for QEMU (user mode or a tap, disks of its own), `JailedVmm` for Firecracker in its
jail: the same calls of root's in the same order, and no API between them. Watching is the product's.
"""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from tests.support.load.guest import REBOOT
from tests.support.load.link import AGENT, HOST, HostLink

from banger.base.problem import Code, Outcome, Problem
from banger.model.machine import (
    Disk,
    DiskFormat,
    Machine,
    PortForward,
    TapNetwork,
    UserNetwork,
    validate_machine,
)
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.machines import (
    FILE,
    READ_ONLY,
    SNAPSHOT,
    EnterJail,
    LaunchVmm,
    RemoveJail,
    SettleVmm,
)
from banger.vmm.boot_files import verify_disk, verify_initramfs, verify_kernel
from banger.vmm.contract import Capability, Exit, GuestView, Handle, Liveness, Place
from banger.vmm.exits import KILLED, POWER_OFF
from banger.vmm.identity import find_process, open_pidfd
from banger.vmm.watching import GuestTable, WatchedProcess

_EXITS = {0: Exit(clean=True, reason=POWER_OFF), REBOOT: Exit(clean=True, reason="reboot")}


class _Guest(WatchedProcess):
    """`directory` is where the agent's socket is."""

    def __init__(self, host: HostLink, handle: Handle, pidfd: int, directory: Path) -> None:
        super().__init__(handle, pidfd, None)
        self.directory = directory
        self._host = host

    async def _conclude(self, status: int | None) -> Exit:
        handle = self.handle
        found = self._host.order("find_end", pid=handle.pid, start_time=handle.start_time)["status"]
        await self._clear()
        if found in _EXITS:
            return _EXITS[found]
        return Exit(clean=False, reason=KILLED if self._killed else f"ended by signal {-(found or 0)}")

    async def _clear(self) -> None:
        (self.directory / AGENT).unlink(missing_ok=True)


class _Vmm:
    """What both have in common."""

    name = ""
    _title = ""

    def __init__(self, **_: Any) -> None:
        self._link: HostLink | None = None
        self._guests: GuestTable[Any] = GuestTable(self._title, self._watch)

    @property
    def _host(self) -> HostLink:
        """Connected when first needed: wiring makes VMMs before there is a loop, and some are never used."""
        if self._link is None:
            self._link = HostLink(os.environ[HOST])
        return self._link

    async def probe(self) -> SimpleNamespace:
        """A verdict of either real one's."""
        return SimpleNamespace(
            qemu="/fake",
            qemu_version="0",
            firecracker="/fake",
            firecracker_version="0",
            kvm=True,
            kvm_reason="",
        )

    def view_guest(self, machine: Machine) -> GuestView:
        return GuestView(channels=("vsock:1024",), disks={disk.serial: disk.serial for disk in machine.disks})

    async def wait_exit(self, handle: Handle) -> Exit:
        return await self._guests.wait_exit(handle)

    async def stop(self, handle: Handle, *, deadline_s: float) -> Exit:
        return await self._guests.stop(handle, deadline_s=deadline_s)

    async def kill(self, handle: Handle) -> Exit:
        return await self._guests.kill(handle)

    async def adopt(self, handle: Handle) -> Liveness:
        return Liveness.GONE if await self._guests.find(handle) is None else Liveness.RUNNING

    async def pause(self, handle: Handle) -> None:
        await self._guests.get(handle)

    async def resume(self, handle: Handle) -> None:
        await self._guests.get(handle)

    async def connect_agent(self, handle: Handle) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        guest = await self._guests.get(handle)
        try:
            return await asyncio.open_unix_connection(str(guest.directory / AGENT))
        except OSError as error:
            raise self._guests.not_running(handle) from error

    async def close(self) -> None:
        await self._guests.close()
        if self._link is not None:
            self._link.close()

    async def _watch(self, handle: Handle) -> _Guest | None:
        raise NotImplementedError


class PlainVmm(_Vmm):
    name = "qemu"
    _title = "the fake QEMU"

    async def capabilities(self) -> frozenset[Capability]:
        return frozenset(
            {Capability.PAUSE, Capability.USER_NETWORK, Capability.POWER_OFF, Capability.QCOW2_DISKS}
        )

    async def start(self, machine: Machine, place: Place, tap: int | None = None) -> Handle:
        _verify(machine)
        network = machine.network
        forwards = network.forwards if isinstance(network, UserNetwork) else ()
        Path(place.state, "serial.log").write_text("a fake guest\n")
        begun = self._host.order(
            "start",
            *(() if tap is None else (tap,)),
            place=place.runtime,
            disks=[disk.path for disk in machine.disks if disk.format is not DiskFormat.SNAPSHOT],
            forwards=[_render(forward) for forward in forwards],
        )
        handle = Handle(
            backend=self.name,
            pid=begun["pid"],
            start_time=begun["start_time"],
            agent_socket=f"{place.runtime}/{AGENT}",
            control_socket=f"{place.runtime}/control.sock",
            accelerator="fake",
            memory="nowhere",
            serial_log=f"{place.state}/serial.log",
        )
        guest = await self._watch(handle)
        if guest is None:
            raise Problem(Code.OPERATION_FAILED, f"{self._title} ended before its guest was ready")
        self._guests.add(guest)
        return handle

    async def evict(self, place: Place) -> None:
        self._host.order("evict", place=place.runtime)

    async def adopt(self, handle: Handle) -> Liveness:
        found = await super().adopt(handle)
        if found is Liveness.GONE:
            Path(handle.agent_socket).unlink(missing_ok=True)
        return found

    async def add_forward(self, handle: Handle, forward: PortForward) -> None:
        await self._guests.get(handle)
        self._change_forwards(handle, add={_render(forward)})

    async def remove_forward(self, handle: Handle, forward: PortForward) -> None:
        await self._guests.get(handle)
        self._change_forwards(handle, remove={_render(forward)})

    def _change_forwards(
        self, handle: Handle, *, add: set[str] = frozenset(), remove: set[str] = frozenset()
    ) -> None:  # type: ignore[assignment]
        now = set(self._host.order("find_forwards", pid=handle.pid)["forwards"])
        self._host.order("forward", pid=handle.pid, forwards=sorted(now - remove | add))

    async def _watch(self, handle: Handle) -> _Guest | None:
        pidfd = find_process(handle.pid, handle.start_time)
        if pidfd is None:
            return None
        return _Guest(self._host, handle, pidfd, Path(handle.agent_socket).parent)


class _JailedGuest(_Guest):
    """Owns a descriptor of the directory of sockets, by which the agent is reached."""

    def __init__(self, host: HostLink, root: Privileged, handle: Handle, pidfd: int, sockets: int) -> None:
        super().__init__(host, handle, pidfd, Path(f"/proc/self/fd/{sockets}"))
        self._root = root
        self._sockets = sockets

    async def _clear(self) -> None:
        await _remove_jail(self._root, self.handle.jail)
        os.close(self._sockets)

    async def release(self) -> None:
        if self._conclusion is None:
            os.close(self._sockets)
        await super().release()


class JailedVmm(_Vmm):
    name = "firecracker"
    _title = "the fake Firecracker"

    def __init__(self, *, jail: Privileged | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._root = jail

    async def capabilities(self) -> frozenset[Capability]:
        if self._root is None:
            raise Problem(Code.UNAVAILABLE, "no root helper is installed", outcome=Outcome.NOT_STARTED)
        return frozenset({Capability.HARDWARE, Capability.PAUSE, Capability.JAIL, Capability.SNAPSHOT_DISKS})

    async def start(self, machine: Machine, place: Place, tap: int | None = None) -> Handle:
        _verify(machine)
        assert self._root is not None
        handle, sockets = await self._launch(machine, place)
        pidfd = open_pidfd(handle.pid)
        try:
            if isinstance(machine.network, TapNetwork) and tap is not None:
                settled = await self._root.call(SettleVmm(vm=machine.id, tap=machine.network.tap))
                os.set_blocking(settled.descriptors[0], False)
                os.dup2(settled.descriptors[0], tap, inheritable=False)
                os.close(settled.descriptors[0])
            else:
                await self._root.call(SettleVmm(vm=machine.id, tap=""))
            if pidfd is None:
                raise Problem(Code.OPERATION_FAILED, f"{self._title} ended before its guest was ready")
        except BaseException:
            if pidfd is not None:
                os.close(pidfd)
            os.close(sockets)
            await asyncio.shield(_remove_jail(self._root, machine.id))
            raise
        self._guests.add(_JailedGuest(self._host, self._root, handle, pidfd, sockets))
        return handle

    async def _launch(self, machine: Machine, place: Place) -> tuple[Handle, int]:
        assert self._root is not None
        kinds = tuple(_kind_of(disk) for disk in machine.disks)
        request = LaunchVmm(vm=machine.id, memory_mib=machine.memory_mib, disks=kinds)
        serial = f"{place.state}/serial.log"
        files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (machine.kernel, machine.initramfs)]
        files.append(os.open(serial, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        files += [
            os.open(disk.path, os.O_CLOEXEC | (os.O_RDONLY if disk.read_only else os.O_RDWR))
            for disk in machine.disks
            if disk.format is not DiskFormat.SNAPSHOT
        ]
        try:
            reply = await self._root.call(request, files)
        except BaseException as error:
            if not (isinstance(error, Problem) and error.outcome is Outcome.NOT_STARTED):
                await asyncio.shield(_remove_jail(self._root, machine.id))
            raise
        finally:
            for file in files:
                os.close(file)
        handle = Handle(
            backend=self.name,
            pid=reply.result.pid,
            start_time=reply.result.start_time,
            agent_socket=AGENT,
            control_socket="api.sock",
            accelerator="kvm",
            serial_log=serial,
            jail=machine.id,
        )
        return handle, reply.descriptors[0]

    async def evict(self, place: Place) -> None:
        if self._root is not None:
            await self._root.call(RemoveJail(vm=Path(place.runtime).name))

    async def _watch(self, handle: Handle) -> _Guest | None:
        assert self._root is not None
        pidfd = find_process(handle.pid, handle.start_time)
        try:
            reply = await self._root.call(EnterJail(vm=handle.jail))
        except Problem as problem:
            if pidfd is not None:
                os.close(pidfd)
            if problem.code is Code.NOT_FOUND:
                return None
            raise
        if pidfd is None:
            os.close(reply.descriptors[0])
            await _remove_jail(self._root, handle.jail)
            return None
        return _JailedGuest(self._host, self._root, handle, pidfd, reply.descriptors[0])


async def _remove_jail(root: Privileged, vm: str) -> None:
    """What cannot be removed now is found by its VM's id."""
    try:
        await root.call(RemoveJail(vm=vm))
    except Problem:
        return


def _verify(machine: Machine) -> None:
    validate_machine(machine)
    verify_kernel(Path(machine.kernel))
    verify_initramfs(Path(machine.initramfs))
    for disk in machine.disks:
        if disk.format is not DiskFormat.SNAPSHOT:
            verify_disk(Path(disk.path), read_only=disk.read_only)


def _kind_of(disk: Disk) -> str:
    if disk.format is DiskFormat.SNAPSHOT:
        return SNAPSHOT
    return READ_ONLY if disk.read_only else FILE


def _render(forward: PortForward) -> str:
    return ":".join(str(field) for field in msgspec.structs.astuple(forward))
