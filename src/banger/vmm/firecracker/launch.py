"""The launch of one Firecracker: spawned, its API reached, its machine described, its guest started.

Owns the order and the undoing of it. Waits for events only; who launches keeps the guest.
"""

import asyncio
import os
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

from banger.base.problem import Code, Outcome, Problem
from banger.base.process import Argv, spawn_detached
from banger.model.machine import Machine, TapNetwork
from banger.vmm.boot_files import verify_disk, verify_initramfs, verify_kernel
from banger.vmm.contract import Handle, Place
from banger.vmm.firecracker.agent_stream import Knock
from banger.vmm.firecracker.argv import render_argv
from banger.vmm.firecracker.arrival import Arrivals, watch_arrivals
from banger.vmm.firecracker.bodies import START, plan_calls, plan_links
from banger.vmm.firecracker.configure import configure
from banger.vmm.firecracker.guest import VMM_LOG, WatchedGuest
from banger.vmm.firecracker.place import (
    API_SOCKET,
    KNOCK_SOCKET,
    agent_socket_path,
    api_socket_path,
    clear_place,
    prepare_place,
)
from banger.vmm.firecracker.tap import reclaim_tap
from banger.vmm.identity import find_start_time
from banger.vmm.logs import render_tail, rotate_log

BACKEND = "firecracker"
_SOCKET_S = 10.0  # it appears after 5 ms; a loaded host may take its time
_CONNECT_TRIES = 100
_CONNECT_PAUSE_S = 0.001
_ENDING_S = 2.0


async def launch(program: str, machine: Machine, place: Place, tap: int | None) -> WatchedGuest:
    """A guest that runs. Cancelled or failed: no process, and nothing left at the place."""
    async with AsyncExitStack() as undo:
        undo.callback(clear_place, place.runtime)
        prepare_place(place, plan_links(machine))
        network = machine.network if isinstance(machine.network, TapNetwork) else None
        if network is not None and tap is not None:
            undo.push_async_callback(_give_back, tap, network.tap)
        with watch_arrivals(Path(place.runtime)) as arrivals:
            guest = _spawn(program, machine, place, undo)
            await _wait_socket(guest, arrivals, place)
        try:
            await configure(guest, plan_calls(machine), network, tap)
            await guest.api.call(START)
        except Problem as problem:
            raise await _explain_end(guest, place, problem) from problem
        undo.pop_all()
    return guest


def verify_files(machine: Machine) -> None:
    """Raises Problem for what Firecracker would take for something else, or report by a name of ours."""
    verify_kernel(Path(machine.kernel))
    _verify_elf(Path(machine.kernel))
    verify_initramfs(Path(machine.initramfs))
    for disk in machine.disks:
        verify_disk(Path(disk.path), read_only=disk.read_only)


def _spawn(program: str, machine: Machine, place: Place, undo: AsyncExitStack) -> WatchedGuest:
    serial_log, vmm_log = Path(place.state) / "serial.log", Path(place.state) / VMM_LOG
    rotate_log(serial_log)
    rotate_log(vmm_log)
    knock = Knock(Path(place.runtime) / KNOCK_SOCKET)
    undo.callback(knock.close)
    argv = render_argv(machine, program=program, log=str(vmm_log))
    process = _spawn_firecracker(argv, place, serial_log, vmm_log)
    pidfd = os.pidfd_open(process.pid)  # ours until it is reaped, even if it has ended already
    handle = Handle(
        backend=BACKEND,
        pid=process.pid,
        start_time=find_start_time(process.pid) or 0,  # already gone: the wait for its socket will say so
        agent_socket=agent_socket_path(place),
        control_socket=api_socket_path(place),
        accelerator="kvm",
        serial_log=str(serial_log),
    )
    guest = WatchedGuest(handle, pidfd, process, knock)
    undo.push_async_callback(_destroy, guest)
    return guest


def _spawn_firecracker(
    argv: Argv, place: Place, serial_log: Path, vmm_log: Path
) -> "subprocess.Popen[bytes]":
    """Its standard output is the guest's console. Its log must be there, or it makes one that others may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    os.close(os.open(vmm_log, flags, 0o600))
    output = os.open(serial_log, flags, 0o600)
    try:
        return spawn_detached(argv, cwd=Path(place.runtime), output=output)
    finally:
        os.close(output)


async def _wait_socket(guest: WatchedGuest, arrivals: Arrivals, place: Place) -> None:
    """Until its API answers. A process that ends before it does ends the wait."""
    arriving = asyncio.ensure_future(arrivals.wait_for(API_SOCKET))
    try:
        await asyncio.wait((arriving, guest.gone), timeout=_SOCKET_S, return_when=asyncio.FIRST_COMPLETED)
        if not arriving.done() or guest.gone.done():
            raise _explain_failure(place, gone=guest.gone.done())
        arriving.result()
    finally:
        arriving.cancel()
        await asyncio.wait((arriving,))
    for attempt in range(1, _CONNECT_TRIES + 1):
        try:
            await guest.api.get("/")
            return
        except Problem as problem:  # between its bind and its listen
            if problem.outcome is not Outcome.NOT_STARTED or attempt == _CONNECT_TRIES:
                raise await _explain_end(guest, place, problem) from problem
        await asyncio.sleep(_CONNECT_PAUSE_S)


async def _give_back(tap: int, name: str) -> None:
    await asyncio.shield(reclaim_tap(tap, name))


async def _destroy(guest: WatchedGuest) -> None:
    """Undoes a start; goes on to the end when the caller is cancelled once more."""
    guest.kill()
    await asyncio.shield(guest.wait_exit())


async def _explain_end(guest: WatchedGuest, place: Place, problem: Problem) -> Problem:
    """A request failed: because Firecracker ended, or for the reason that it gave itself."""
    if problem.code is not Code.NOT_RUNNING:
        return problem
    await asyncio.wait((guest.gone,), timeout=_ENDING_S)
    return _explain_failure(place, gone=guest.gone.done())


def _explain_failure(place: Place, *, gone: bool) -> Problem:
    """Why there is no guest, in Firecracker's own last words."""
    state = Path(place.state)
    words = [render_tail(state / name, 8) for name in (VMM_LOG, "serial.log")]
    detail = "\n".join(word for word in words if word) or None
    what = "ended before the guest began" if gone else f"did not answer within {_SOCKET_S:.0f} s"
    return Problem(
        Code.OPERATION_FAILED, f"Firecracker {what}", detail=detail, hint=f"less {state}/{VMM_LOG}"
    )


def _verify_elf(kernel: Path) -> None:
    """`verify_kernel` has seen a whole one of either kind; Firecracker unpacks none."""
    with kernel.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            raise Problem(
                Code.OPERATION_FAILED,
                f"the kernel {kernel} is a bzImage, and Firecracker boots ELF images only",
                hint="banger kernel pull --force",
                outcome=Outcome.NOT_STARTED,
            )
