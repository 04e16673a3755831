"""The launch of one Firecracker: begun, its API reached, its machine described, its guest started.

Owns the order and the undoing of it. Waits for events only; who launches keeps the guest.
"""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from banger.base.problem import Code, Outcome, Problem
from banger.model.machine import DiskFormat, Machine, TapNetwork
from banger.vmm.boot_files import verify_disk, verify_initramfs, verify_kernel
from banger.vmm.contract import Place
from banger.vmm.firecracker.arrival import watch_arrivals
from banger.vmm.firecracker.bodies import START, plan_calls
from banger.vmm.firecracker.configure import configure
from banger.vmm.firecracker.consoles import Consoles
from banger.vmm.firecracker.failure import explain_end, explain_failure
from banger.vmm.firecracker.guest import WatchedGuest
from banger.vmm.firecracker.sockets import API_SOCKET
from banger.vmm.firecracker.surroundings import Surroundings

_SOCKET_S = 10.0  # it appears after 5 ms; a loaded host may take its time
_CONNECT_TRIES = 100
_CONNECT_PAUSE_S = 0.001
_ENDING_S = 2.0


async def launch(
    surroundings: Surroundings, machine: Machine, place: Place, tap: int | None, consoles: Consoles
) -> WatchedGuest:
    """A guest that runs. Cancelled or failed: no process, no jail, and nothing left at the place."""
    async with AsyncExitStack() as undo:
        network = machine.network if isinstance(machine.network, TapNetwork) else None
        if network is not None and tap is not None:
            undo.push_async_callback(_give_back, surroundings, tap, network.tap)
        guest = await surroundings.begin(machine, place, undo)
        await _wait_socket(guest, place)
        try:
            await configure(guest, plan_calls(machine), network, tap)
            guest.watch_console(consoles)
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
        if disk.format is DiskFormat.SNAPSHOT:
            continue  # root has it, or says that it does not
        verify_disk(Path(disk.path), read_only=disk.read_only)


async def _wait_socket(guest: WatchedGuest, place: Place) -> None:
    """Until its API answers. A process that ends before it does ends the wait."""
    with watch_arrivals(guest.home.sockets.directory) as arrivals:
        arriving = asyncio.ensure_future(arrivals.wait_for(API_SOCKET))
        try:
            await asyncio.wait((arriving, guest.gone), timeout=_SOCKET_S, return_when=asyncio.FIRST_COMPLETED)
            if not arriving.done() or guest.gone.done():
                raise _explain_silence(guest, place)
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


async def _give_back(surroundings: Surroundings, tap: int, name: str) -> None:
    await asyncio.shield(surroundings.reclaim_tap(tap, name))


async def _explain_end(guest: WatchedGuest, place: Place, problem: Problem) -> Problem:
    """A request failed: because Firecracker ended, or for the reason that it gave itself."""
    if problem.code is not Code.NOT_RUNNING:
        return problem
    await asyncio.wait((guest.gone,), timeout=_ENDING_S)
    return _explain_silence(guest, place)


def _explain_silence(guest: WatchedGuest, place: Place) -> Problem:
    guest.home.keep_log(guest.vmm_log)
    if guest.gone.done():
        return explain_end(place)
    return explain_failure(place, f"did not answer within {_SOCKET_S:.0f} s")


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
