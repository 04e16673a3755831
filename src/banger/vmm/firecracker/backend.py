"""Firecracker behind the contract: starts, watches, adopts and ends microVMs.

Owns the table of watched guests. A start spawns one process and waits for events only: its socket appears (inotify),
its guest's agent knocks (`agent_stream`), its end is its pidfd's.
"""

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Any

from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.model.machine import Machine
from banger.vmm.contract import Capability, Exit, Handle, Liveness, Place
from banger.vmm.exits import UNKNOWN
from banger.vmm.firecracker.agent_stream import open_agent_stream
from banger.vmm.firecracker.bodies import PAUSE, RESUME, validate_for_firecracker
from banger.vmm.firecracker.guest import WatchedGuest
from banger.vmm.firecracker.launch import BACKEND, launch, verify_files
from banger.vmm.firecracker.metrics import read_metrics
from banger.vmm.firecracker.place import METRICS, clear_place
from banger.vmm.firecracker.probe import Verdict, probe_host
from banger.vmm.firecracker.strays import end_strays
from banger.vmm.identity import find_process

_ADOPT_S = 5.0
_ENDING_S = 2.0
_KILL_S = 10.0
_METRICS_S = 5.0
_REMEMBERED_EXITS = 256


class FirecrackerVmm:
    """The `Vmm` of Firecracker, outside of a jail. One per daemon; belongs to the event loop it is first used in."""

    name = BACKEND

    def __init__(
        self,
        *,
        program: str | None = None,
        directory: Path | None = None,
        cache: Path | None = None,
        any_kvm: bool = False,
    ) -> None:
        """`program` is a configured one and wins over the managed `directory`, `cache` the file that remembers the
        probe; `any_kvm` takes a KVM that runs the trial guest but may run no Linux."""
        self._program = program
        self._directory = directory
        self._cache = cache
        self._any_kvm = any_kvm
        self._verdict: Verdict | None = None
        self._probing = asyncio.Lock()
        self._guests: dict[tuple[int, int], WatchedGuest] = {}
        self._exits: OrderedDict[tuple[int, int], Exit] = OrderedDict()

    async def capabilities(self) -> frozenset[Capability]:
        await self._get_verdict()
        return frozenset({Capability.HARDWARE, Capability.PAUSE})

    async def probe(self) -> Verdict:
        """The verdict on this host with its reasons, for `doctor`. Raises `unavailable`."""
        async with self._probing:
            if self._verdict is None:
                self._verdict = await probe_host(
                    self._program, self._directory, self._cache, any_kvm=self._any_kvm
                )
            return self._verdict

    async def _get_verdict(self) -> Verdict:
        verdict = await self.probe()
        if not verdict.kvm:
            raise unavailable(f"Firecracker needs KVM: {verdict.kvm_reason}", hint="banger doctor")
        return verdict

    async def start(self, machine: Machine, place: Place, tap: int | None = None) -> Handle:
        validate_for_firecracker(machine)
        verdict = await self._get_verdict()
        verify_files(machine)
        guest = await launch(verdict.firecracker, machine, place, tap)
        self._guests[_key(guest.handle)] = guest
        return guest.handle

    async def wait_exit(self, handle: Handle) -> Exit:
        guest = self._find(handle)
        if guest is None:
            return self._exits.get(_key(handle), Exit(clean=False, reason=UNKNOWN))
        verdict = await guest.wait_exit()
        self._guests.pop(_key(handle), None)
        self._exits[_key(handle)] = verdict
        while len(self._exits) > _REMEMBERED_EXITS:
            self._exits.popitem(last=False)
        return verdict

    async def stop(self, handle: Handle, *, deadline_s: float) -> Exit:
        try:
            async with asyncio.timeout(deadline_s):
                return await self.wait_exit(handle)
        except TimeoutError:
            return await self.kill(handle)

    async def kill(self, handle: Handle) -> Exit:
        guest = self._find(handle)
        if guest is not None:
            guest.kill()
        try:
            async with asyncio.timeout(_KILL_S):
                return await self.wait_exit(handle)
        except TimeoutError as error:
            raise Problem(
                Code.OPERATION_FAILED,
                f"Firecracker (pid {handle.pid}) is still there {_KILL_S:.0f} s after SIGKILL",
                hint=f"ps -o pid,stat,wchan,args {handle.pid}",
                outcome=Outcome.UNKNOWN,
            ) from error

    async def evict(self, place: Place) -> None:
        await end_strays(place.runtime)
        clear_place(place.runtime)

    async def adopt(self, handle: Handle) -> Liveness:
        guest = self._find(handle)
        if guest is None:
            clear_place(str(Path(handle.agent_socket).parent))
            return Liveness.GONE
        try:
            state = (await guest.api.get("/", deadline_s=_ADOPT_S)).get("state")
        except Problem as error:
            await asyncio.wait((guest.gone,), timeout=_ENDING_S)  # it may be on its way out
            if guest.gone.done():
                return Liveness.GONE
            raise Problem(
                Code.UNAVAILABLE,
                f"Firecracker (pid {handle.pid}) is alive and does not answer on {handle.control_socket}",
                outcome=Outcome.UNKNOWN,
            ) from error
        return Liveness.PAUSED if state == "Paused" else Liveness.RUNNING

    async def pause(self, handle: Handle) -> None:
        await self._get(handle).api.call(PAUSE)

    async def resume(self, handle: Handle) -> None:
        await self._get(handle).api.call(RESUME)

    async def connect_agent(self, handle: Handle) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Returns when the guest's agent accepts; a paused guest accepts when it is resumed."""
        guest = self._get(handle)
        opening = asyncio.ensure_future(open_agent_stream(handle.agent_socket, guest.knock))
        stream = None
        try:
            await asyncio.wait((opening, guest.gone), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise _not_running(handle)
            stream = opening.result()
        except OSError as error:
            raise _not_running(handle) from error
        finally:
            if stream is None:
                await _abandon(opening)
        return stream

    async def metrics(self, handle: Handle) -> dict[str, Any]:
        """Firecracker's figures since they were last asked for."""
        async with asyncio.timeout(_METRICS_S):
            return await read_metrics(
                self._get(handle).api, str(Path(handle.control_socket).with_name(METRICS))
            )

    async def close(self) -> None:
        guests, self._guests = list(self._guests.values()), {}
        for guest in guests:
            guest.release()

    def _find(self, handle: Handle) -> WatchedGuest | None:
        """The guest as known, or watched from now on if it is alive; None when it is gone."""
        key = _key(handle)
        if key in self._guests:
            return self._guests[key]
        pidfd = find_process(handle.pid, handle.start_time)
        if pidfd is None:
            return None
        self._guests[key] = WatchedGuest(handle, pidfd)
        return self._guests[key]

    def _get(self, handle: Handle) -> WatchedGuest:
        guest = self._find(handle)
        if guest is None or guest.gone.done():
            raise _not_running(handle)
        return guest


def _key(handle: Handle) -> tuple[int, int]:
    return handle.pid, handle.start_time


async def _abandon(opening: "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]") -> None:
    """Ends an attempt that nobody wants any more, and closes what it may have brought."""
    opening.cancel()
    await asyncio.wait((opening,))
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].close()


def _not_running(handle: Handle) -> Problem:
    return Problem(
        Code.NOT_RUNNING, f"Firecracker (pid {handle.pid}) is not running", outcome=Outcome.NOT_STARTED
    )
