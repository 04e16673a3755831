"""QEMU behind the contract: starts, watches, adopts and ends microvm guests.

Owns the table of watched guests. A start spawns one process and never sleeps: sockets and memory exist
before QEMU does, its greeting says that the machine is built, and the pidfd says when it has ended.
"""

import asyncio
import os
import re
import subprocess
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from banger.base.problem import Code, Outcome, Problem, conflict
from banger.base.process import Argv, spawn_detached
from banger.model.machine import Machine, PortForward, validate_machine
from banger.vmm.boot_files import verify_disk, verify_initramfs, verify_kernel
from banger.vmm.contract import Capability, Exit, GuestView, Handle, Liveness, Place
from banger.vmm.identity import find_process, find_start_time
from banger.vmm.logs import open_log, render_tail, rotate_log
from banger.vmm.qemu.argv import Accelerator, Descriptors, render_argv
from banger.vmm.qemu.guest import WatchedGuest
from banger.vmm.qemu.monitor import Monitor
from banger.vmm.qemu.probe import Verdict, probe_host
from banger.vmm.qemu.resources import agent_socket_path, control_socket_path, open_descriptors, remove_sockets
from banger.vmm.qemu.tsc import TscClock
from banger.vmm.watching import GuestTable, destroy

_GREETING_S = 30.0  # building the machine takes 50 ms; a loaded host may take its time
_ADOPT_S = 5.0
_EVICT_S = 5.0
_ENDING_S = 2.0
_STREAM_LIMIT_BYTES = 256 * 1024
_PORT_TAKEN = re.compile(r"[Cc]ould not set up host forwarding rule '(?P<rule>[^']*)'")


class QemuVmm:
    """The `Vmm` of QEMU. One per daemon; belongs to the event loop it is first used in."""

    name = "qemu"

    def __init__(
        self, *, cache: Path | None = None, qemu: str | None = None, accelerator: Accelerator | None = None
    ) -> None:
        """`cache` is the file that remembers the probe, `qemu` a configured program; naming an accelerator
        overrules the probe."""
        self._cache = cache
        self._configured = qemu
        self._accelerator = accelerator
        self._verdict: Verdict | None = None
        self._probing = asyncio.Lock()
        self._clock = TscClock()
        self._guests = GuestTable("QEMU", _watch)

    async def capabilities(self) -> frozenset[Capability]:
        verdict = await self.probe()
        found = {
            Capability.PAUSE,
            Capability.USER_NETWORK,
            Capability.POWER_OFF,
            Capability.QCOW2_DISKS,
        }
        if self._choose_accelerator(verdict) is Accelerator.KVM:
            found.add(Capability.HARDWARE)
        return frozenset(found)

    async def probe(self) -> Verdict:
        """The verdict on this host with its reasons, for `doctor`. Raises `unavailable`."""
        async with self._probing:
            if self._verdict is None:
                self._verdict = await probe_host(self._configured, self._cache)
                if self._choose_accelerator(self._verdict) is Accelerator.TCG:
                    await asyncio.to_thread(self._clock.khz)
            return self._verdict

    def _choose_accelerator(self, verdict: Verdict) -> Accelerator:
        return self._accelerator or (Accelerator.KVM if verdict.kvm else Accelerator.TCG)

    def view_guest(self, machine: Machine) -> GuestView:
        return GuestView(
            channels=(f"virtio-serial:{machine.agent_channel}",),
            disks={disk.serial: disk.serial for disk in machine.disks},
        )

    async def start(self, machine: Machine, place: Place, tap: int | None = None) -> Handle:
        """Raises `conflict` when the port of a forward is taken: choose another and start again."""
        validate_machine(machine)
        verdict = await self.probe()
        verify_kernel(Path(machine.kernel))
        verify_initramfs(Path(machine.initramfs))
        for disk in machine.disks:
            verify_disk(Path(disk.path), read_only=disk.read_only)
        async with AsyncExitStack() as undo:
            guest = self._spawn(machine, place, tap, verdict, undo)
            guest.monitor = await self._greet(guest, place)
            self._guests.add(guest)
            undo.pop_all()
        return guest.handle

    def _spawn(
        self, machine: Machine, place: Place, tap: int | None, verdict: Verdict, undo: AsyncExitStack
    ) -> WatchedGuest:
        accelerator = self._choose_accelerator(verdict)
        serial_log, vmm_log = Path(place.state) / "serial.log", Path(place.state) / "vmm.log"
        rotate_log(serial_log)
        rotate_log(vmm_log)
        undo.callback(remove_sockets, (agent_socket_path(place), control_socket_path(place)))
        with open_descriptors(place, machine.memory_mib, tap) as (descriptors, memory):
            argv = render_argv(
                machine,
                qemu=verdict.qemu,
                accelerator=accelerator,
                tsc_khz=self._clock.khz() if accelerator is Accelerator.TCG else None,
                descriptors=descriptors,
                serial_log=str(serial_log),
            )
            process = _spawn_qemu(argv, descriptors, place, vmm_log)
        pidfd = os.pidfd_open(process.pid)  # ours until it is reaped, even if it has ended already
        start_time = find_start_time(process.pid)
        handle = Handle(
            backend=self.name,
            pid=process.pid,
            start_time=start_time or 0,  # already gone: the greeting will say so
            agent_socket=agent_socket_path(place),
            control_socket=control_socket_path(place),
            accelerator=accelerator.value,
            memory=memory,
            serial_log=str(serial_log),
        )
        guest = WatchedGuest(handle, pidfd, process)
        undo.push_async_callback(destroy, guest)
        return guest

    async def _greet(self, guest: WatchedGuest, place: Place) -> Monitor:
        try:
            async with asyncio.timeout(_GREETING_S):
                return await Monitor.connect(guest.handle.control_socket)
        except (ConnectionError, TimeoutError) as error:
            raise _explain_failure(place, gone=not isinstance(error, TimeoutError)) from error

    async def wait_exit(self, handle: Handle) -> Exit:
        return await self._guests.wait_exit(handle)

    async def stop(self, handle: Handle, *, deadline_s: float) -> Exit:
        return await self._guests.stop(handle, deadline_s=deadline_s)

    async def kill(self, handle: Handle) -> Exit:
        return await self._guests.kill(handle)

    async def evict(self, place: Place) -> None:
        """By its monitor: the socket's name follows from the place."""
        sockets = (agent_socket_path(place), control_socket_path(place))
        with suppress(OSError, TimeoutError, Problem):
            async with asyncio.timeout(_EVICT_S):
                monitor = await Monitor.connect(sockets[1])
                try:
                    await monitor.execute("quit")
                    await monitor.wait_end_reason()  # QEMU closes its disks before it closes this
                finally:
                    await monitor.close()
        remove_sockets(sockets)

    async def adopt(self, handle: Handle) -> Liveness:
        guest = await self._guests.find(handle)
        if guest is None:
            remove_sockets((handle.agent_socket, handle.control_socket))
            return Liveness.GONE
        try:
            async with asyncio.timeout(_ADOPT_S):
                if guest.monitor is None:
                    guest.monitor = await Monitor.connect(handle.control_socket)
                status = await guest.monitor.execute("query-status")
        except (ConnectionError, TimeoutError, Problem) as error:
            await asyncio.wait((guest.gone,), timeout=_ENDING_S)  # it may be on its way out
            if guest.gone.done():
                return Liveness.GONE
            raise Problem(
                Code.UNAVAILABLE,
                f"QEMU (pid {handle.pid}) is alive and does not answer on {handle.control_socket}",
                outcome=Outcome.UNKNOWN,
            ) from error
        return Liveness.RUNNING if status["running"] else Liveness.PAUSED

    async def pause(self, handle: Handle) -> None:
        await (await self._get_monitor(handle)).execute("stop")

    async def resume(self, handle: Handle) -> None:
        await (await self._get_monitor(handle)).execute("cont")

    async def add_forward(self, handle: Handle, forward: PortForward) -> None:
        said = await self._forward(
            handle, f"hostfwd_add net0 {_render_host_end(forward)}-:{forward.guest_port}"
        )
        if said:  # "could not set up host forwarding rule", whatever the reason
            raise conflict(
                f"port {forward.host_address}:{forward.host_port} of the host is taken",
                hint=f"ss -lnp sport = :{forward.host_port}",
            )

    async def remove_forward(self, handle: Handle, forward: PortForward) -> None:
        await self._forward(handle, f"hostfwd_remove net0 {_render_host_end(forward)}")

    async def _forward(self, handle: Handle, line: str) -> str:
        """QMP has no command for it, only the monitor for people has."""
        monitor = await self._get_monitor(handle)
        said = await monitor.execute("human-monitor-command", {"command-line": line})
        assert isinstance(said, str)
        return said.strip()

    async def connect_agent(self, handle: Handle) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(handle.agent_socket, limit=_STREAM_LIMIT_BYTES)
        except OSError as error:
            raise self._guests.not_running(handle) from error

    async def close(self) -> None:
        await self._guests.close()

    async def _get_monitor(self, handle: Handle) -> Monitor:
        if await self.adopt(handle) is Liveness.GONE:
            raise self._guests.not_running(handle)
        monitor = (await self._guests.get(handle)).monitor
        assert monitor is not None
        return monitor


async def _watch(handle: Handle) -> WatchedGuest | None:
    pidfd = find_process(handle.pid, handle.start_time)
    return None if pidfd is None else WatchedGuest(handle, pidfd, None)


def _render_host_end(forward: PortForward) -> str:
    return f"{forward.protocol}:{forward.host_address}:{forward.host_port}"


def _spawn_qemu(argv: Argv, descriptors: Descriptors, place: Place, log: Path) -> "subprocess.Popen[bytes]":
    output = open_log(log)
    try:
        return spawn_detached(argv, cwd=Path(place.state), output=output, pass_fds=descriptors.inherited)
    finally:
        os.close(output)


def _explain_failure(place: Place, *, gone: bool) -> Problem:
    """Why there was no greeting, in QEMU's own last words."""
    state = Path(place.state)
    words = [render_tail(state / name, 8) for name in ("vmm.log", "serial.log")]
    detail = "\n".join(word for word in words if word) or None
    if detail is not None and (taken := _PORT_TAKEN.search(detail)):
        return Problem(
            Code.CONFLICT,
            f"the host port of {taken['rule']} is taken",
            detail=detail,
            outcome=Outcome.NOT_STARTED,
        )
    what = "ended before the guest began" if gone else f"did not answer within {_GREETING_S:.0f} s"
    return Problem(Code.OPERATION_FAILED, f"QEMU {what}", detail=detail, hint=f"less {state}/vmm.log")
