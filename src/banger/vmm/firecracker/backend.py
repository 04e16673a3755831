"""Firecracker behind the contract: starts, watches, adopts and ends microVMs, in jails or outside.

Owns the table of watched guests. A start begins one process and waits for events only: its socket appears (inotify),
its guest's agent knocks (`agent_stream`), its end is its pidfd's.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.model.machine import Machine
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.machines import InspectMachines
from banger.vmm.contract import Capability, Exit, GuestView, Handle, Liveness, Place
from banger.vmm.firecracker.agent_stream import open_agent_stream
from banger.vmm.firecracker.bodies import (
    GUEST_CHANNEL,
    PAUSE,
    RESUME,
    render_guest_disks,
    validate_for_firecracker,
)
from banger.vmm.firecracker.consoles import Consoles
from banger.vmm.firecracker.guest import WatchedGuest
from banger.vmm.firecracker.jailed import Jailed
from banger.vmm.firecracker.launch import launch, verify_files
from banger.vmm.firecracker.metrics import read_metrics
from banger.vmm.firecracker.place import clear_place
from banger.vmm.firecracker.probe import Verdict, probe_host, probe_jailed
from banger.vmm.firecracker.surroundings import BACKEND, Surroundings
from banger.vmm.firecracker.unjailed import Unjailed
from banger.vmm.watching import GuestTable

_log = logging.getLogger(__name__)
_ADOPT_S = 5.0
_ENDING_S = 2.0
_METRICS_S = 5.0


class FirecrackerVmm:
    """The `Vmm` of Firecracker. One per daemon; belongs to the event loop it is first used in."""

    name = BACKEND

    def __init__(
        self,
        *,
        program: str | None = None,
        directory: Path | None = None,
        cache: Path | None = None,
        jail: Privileged | None = None,
        unjailed: bool = False,
        any_kvm: bool = False,
    ) -> None:
        """With a way to root each VMM is jailed, or there is none; root knows which program it runs. Without one, or
        if new ones are to be `unjailed`, `program` is a configured one and wins over the managed `directory`; those
        in jails are looked after all the same. `cache` is the file that remembers the probe; `any_kvm` takes a KVM
        that runs the trial guest but may run no Linux."""
        self._program = program
        self._directory = directory
        self._cache = cache
        self._any_kvm = any_kvm
        self._jailed = None if jail is None else Jailed(jail)
        self._jailer = None if unjailed else jail
        self._verdict: Verdict | None = None
        self._probing = asyncio.Lock()
        self._consoles = Consoles()
        self._guests = GuestTable("Firecracker", self._watch)

    async def capabilities(self) -> frozenset[Capability]:
        await self._get_verdict()
        found = {Capability.HARDWARE, Capability.PAUSE}
        if self._jailer is not None:
            found |= {Capability.JAIL, Capability.SNAPSHOT_DISKS}
        return frozenset(found)

    async def probe(self) -> Verdict:
        """The verdict on this host with its reasons, for `doctor`. Raises `unavailable`, and is not remembered then:
        an obstacle may have been removed meanwhile."""
        async with self._probing:
            if self._verdict is None:
                self._verdict = await self._probe()
            return self._verdict

    async def _probe(self) -> Verdict:
        if self._jailer is None:
            return await probe_host(self._program, self._directory, self._cache, any_kvm=self._any_kvm)
        support = (await self._jailer.call(InspectMachines())).result
        if support.jail_reason:
            raise unavailable(
                f"Firecracker cannot be jailed here: {support.jail_reason}", hint=support.jail_hint or None
            )
        if not support.firecracker:
            raise unavailable(
                "no Firecracker that root runs is installed", hint="sudo banger setup firecracker"
            )
        return await probe_jailed(
            support.firecracker, support.firecracker_version, self._cache, any_kvm=self._any_kvm
        )

    async def _get_verdict(self) -> Verdict:
        verdict = await self.probe()
        if not verdict.kvm:
            raise unavailable(f"Firecracker needs KVM: {verdict.kvm_reason}", hint="banger doctor")
        return verdict

    def view_guest(self, machine: Machine) -> GuestView:
        return GuestView(channels=(GUEST_CHANNEL,), disks=render_guest_disks(machine))

    async def start(self, machine: Machine, place: Place, tap: int | None = None) -> Handle:
        surroundings = None if self._jailer is None else self._jailed
        validate_for_firecracker(machine, jailed=surroundings is not None)
        verdict = await self._get_verdict()
        verify_files(machine)
        guest = await launch(
            surroundings or Unjailed(verdict.firecracker), machine, place, tap, self._consoles
        )
        self._guests.add(guest)
        return guest.handle

    async def wait_exit(self, handle: Handle) -> Exit:
        return await self._guests.wait_exit(handle)

    async def stop(self, handle: Handle, *, deadline_s: float) -> Exit:
        return await self._guests.stop(handle, deadline_s=deadline_s)

    async def kill(self, handle: Handle) -> Exit:
        return await self._guests.kill(handle)

    async def evict(self, place: Place) -> None:
        await Unjailed().evict(place)
        if self._jailed is not None:
            await self._jailed.evict(place)

    async def adopt(self, handle: Handle) -> Liveness:
        guest = await self._guests.find(handle)
        if guest is None:
            if not handle.jail:
                clear_place(str(Path(handle.control_socket).parent.parent))
            return Liveness.GONE
        try:
            state = (await guest.api.get("/", deadline_s=_ADOPT_S)).get("state")
        except Problem as problem:
            await asyncio.wait((guest.gone,), timeout=_ENDING_S)  # it may be on its way out
            if guest.gone.done():
                return Liveness.GONE
            raise Problem(
                Code.UNAVAILABLE,
                f"Firecracker (pid {handle.pid}) is alive and does not answer on {handle.control_socket}",
                outcome=Outcome.UNKNOWN,
            ) from problem
        return Liveness.PAUSED if state == "Paused" else Liveness.RUNNING

    async def pause(self, handle: Handle) -> None:
        await (await self._guests.get(handle)).api.call(PAUSE)

    async def resume(self, handle: Handle) -> None:
        await (await self._guests.get(handle)).api.call(RESUME)

    async def connect_agent(self, handle: Handle) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Returns when the guest's agent accepts; a paused guest accepts when it is resumed."""
        guest = await self._guests.get(handle)
        opening = asyncio.ensure_future(open_agent_stream(guest.home.sockets, guest.knock))
        stream = None
        try:
            await asyncio.wait((opening, guest.gone), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise self._guests.not_running(handle)
            stream = opening.result()
        except OSError as error:
            raise self._guests.not_running(handle) from error
        finally:
            if stream is None:
                await _abandon(opening)
        return stream

    async def metrics(self, handle: Handle) -> dict[str, Any]:
        """Firecracker's figures since they were last asked for."""
        guest = await self._guests.get(handle)
        try:
            async with asyncio.timeout(_METRICS_S):
                return await read_metrics(guest.api, guest.home.sockets)
        except OSError as error:  # TimeoutError is one
            raise Problem(
                Code.UNAVAILABLE, f"Firecracker (pid {handle.pid}) tells no metrics", outcome=Outcome.FAILED
            ) from error

    async def close(self) -> None:
        await self._guests.close()

    async def _watch(self, handle: Handle) -> WatchedGuest | None:
        """As its handle says it was begun, whatever this daemon would do now."""
        surroundings: Surroundings = Unjailed()
        if handle.jail:
            if self._jailed is None:
                raise unavailable(
                    f"the VM {handle.jail} is in a jail, and this daemon has no way to root",
                    hint="sudo banger system status",
                )
            surroundings = self._jailed
        guest = await surroundings.find(handle)
        if guest is not None:
            try:
                guest.watch_console(self._consoles)
            except Problem as problem:
                _log.warning("a console is not watched", extra={"pid": handle.pid, "why": problem.brief})
        return guest


async def _abandon(opening: "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]") -> None:
    """Ends an attempt that nobody wants any more, and closes what it may have brought."""
    opening.cancel()
    await asyncio.wait((opening,))
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].close()
