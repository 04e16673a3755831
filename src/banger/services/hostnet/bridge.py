"""Bridge mode: the host's bridge, its addresses, NAT, published ports and names, through the root helper.

Owns the table of admitted guests and the sockets that hold published ports. What the kernel has is made anew from
that table when the daemon starts and when bridge or tables turn out to be gone.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from banger.base.locks import RankedLock
from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.base.tasks import Supervisor
from banger.model.machine import PortForward, TapNetwork
from banger.model.ranks import Rank
from banger.model.vm import NetworkMode, VmRuntime
from banger.network.bridge import BridgePlan, check_overlap, list_denied
from banger.network.ports import hold_port
from banger.network.user import SSH_PORT
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.network import (
    AdmitGuest,
    ApplyGuests,
    EnsureBridge,
    ListRoutes,
    PublishPorts,
    ReleaseGuest,
    RemoveBridge,
    Route,
    UnpublishPorts,
)
from banger.privileged.contract.processes import Hello
from banger.privileged.contract.values import Guest, Policy
from banger.services.hostnet.contract import Lease, Wish, published
from banger.services.hostnet.lease import BridgeLease
from banger.services.hostnet.names import NameServer
from banger.services.hostnet.pool import TapPool
from banger.services.hostnet.told import told
from banger.services.hostnet.zone import Named, Zone

_log = logging.getLogger(__name__)
_WATCH_S = 15.0


class Allowances(NamedTuple):
    """What the owner lets guests reach beyond the default."""

    networks: tuple[str, ...] = ()
    host_ports: tuple[int, ...] = ()
    guests: bool = False


class Admitted(NamedTuple):
    """A guest on the bridge and the ports that lead to it, each with the socket that holds it."""

    name: str
    guest: Guest
    ports: dict[PortForward, socket.socket]

    @property
    def named(self) -> Named:
        return Named(self.name, self.guest.address, self.guest.nat)


class BridgeNetwork:
    """`adopt` what runs, then `open`; `close` last."""

    def __init__(
        self,
        privileged: Privileged,
        plan: BridgePlan,
        allowances: Allowances,
        *,
        pool_target: int,
        tasks: Supervisor,
    ) -> None:
        self.plan = plan
        self._privileged = privileged
        self._zone = Zone(privileged, plan)
        self._allowances = allowances
        self._tasks = tasks
        self._pool = TapPool(privileged, plan.name, pool_target, tasks)
        self._guests: dict[str, Admitted] = {}
        self._making = RankedLock(Rank.BRIDGE, "the making of the bridge")
        self._times_made = 0
        self._in_doubt = False
        self._denied: tuple[str, ...] = ()
        self._watching: asyncio.Task[None] | None = None

    @property
    def names(self) -> NameServer | None:
        return self._zone.server

    @property
    def names_reason(self) -> str:
        """Why names are not served; empty while they are."""
        return self._zone.reason

    @property
    def privileged(self) -> Privileged:
        """For who only looks."""
        return self._privileged

    async def open(self) -> None:
        """What the host has is what we know: bridge, tables, names; taps are made ready. Again after a failure, or when
        the host has lost it. Raises a Problem when this host cannot have it; no bridge of ours is left then, unless
        guests are on it. Names that cannot be served are told in `names_reason`, not raised."""
        async with self._making:
            await self._make()
        if self._watching is None:
            self._watching = self._tasks.start(self._watch(), name="look after the bridge")

    async def _make(self) -> None:
        """Under the lock."""
        served = (await self._privileged.call(Hello())).result.owner
        if served != os.getuid():
            raise unavailable(f"the root helper serves uid {served}, not {os.getuid()}")
        routes = (await self._privileged.call(ListRoutes())).result.routes
        check_overlap(self.plan, routes)
        await self._privileged.call(EnsureBridge(bridge=self.plan.name, address=self.plan.cidr))
        self._in_doubt = False  # what comes into doubt from here on is not settled by this
        try:
            await self._apply(routes)
        except Problem:
            self._in_doubt = True
            with told(_log, "the bridge could not be removed"):
                await self._privileged.call(RemoveBridge(bridge=self.plan.name))
            raise
        if not self._times_made:
            await self._pool.sweep({admitted.guest.tap for admitted in self._guests.values()})
        self._times_made += 1
        self._pool.fill()
        await self._zone.serve(lambda: [admitted.named for admitted in self._guests.values()])

    async def _apply(self, routes: Iterable[Route]) -> None:
        self._denied = list_denied(self.plan, routes)
        policy = Policy(
            denied=self._denied,
            allowed=self._allowances.networks,
            host_ports=self._allowances.host_ports,
            guests=self._allowances.guests,
        )
        guests = tuple(admitted.guest for admitted in self._guests.values())
        await self._privileged.call(ApplyGuests(bridge=self.plan.name, policy=policy, guests=guests))
        for vm_id, admitted in tuple(self._guests.items()):
            if vm_id in self._guests and admitted.ports:  # it may have gone meanwhile
                await self._lead(admitted.guest, admitted.ports)

    async def _watch(self) -> None:
        """Somebody may flush the ruleset (`systemctl restart nftables` does): guests would run unfiltered."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._guests:
                with told(_log, "the bridge could not be looked after"):
                    await self._look_after()

    async def _look_after(self) -> None:
        """Bridge and tables are there, names are served, and the host's links as they are now are denied."""
        times_made = self._times_made
        request = EnsureBridge(bridge=self.plan.name, address=self.plan.cidr)
        fresh = (await self._privileged.call(request)).result.fresh
        if fresh:
            _log.warning("somebody has taken the bridge or its tables away: they are made anew")
        routes = (await self._privileged.call(ListRoutes())).result.routes
        if fresh or self._in_doubt or self.names is None:
            await self._make_anew(times_made)
        elif list_denied(self.plan, routes) != self._denied:
            check_overlap(self.plan, routes)
            async with self._making:
                with self._doubted("the host's new links are not denied yet"):
                    await self._apply(routes)  # taps and names stay: who asks for one meanwhile is answered

    async def repair(self) -> list[str]:
        """As the watch does, now; and taps that nobody has go. Says what went."""
        await self._look_after()
        strays = await self._pool.sweep({admitted.guest.tap for admitted in self._guests.values()})
        return [f"tap {name}" for name in strays]

    def has(self, vm_id: str) -> bool:
        return vm_id in self._guests

    def rename(self, vm_id: str, name: str) -> None:
        """Of a guest that runs: the old name is nobody's at once."""
        before = self._guests[vm_id]
        self._guests[vm_id] = changed = before._replace(name=name)
        self._zone.unregister(before.name)
        self._zone.register(changed.named)

    # One guest

    def lease(self, wish: Wish) -> BridgeLease:
        """From before the VMM's start to after its end: tap, admission, published ports, name."""
        return BridgeLease(partial(self._enter, wish), wish.vm_id, self._tasks)

    def adopt(self, wish: Wish, runtime: VmRuntime) -> BridgeLease:
        """Of a VM that runs already: what it has is noted here; `open` tells the kernel."""
        return BridgeLease(partial(self._enter_again, wish, runtime), wish.vm_id, self._tasks)

    async def _enter(self, wish: Wish, undo: AsyncExitStack) -> Lease:
        """Once more with another tap where the host has lost its bridge or its tables."""
        if self._in_doubt:
            await self.open()
        times_made = self._times_made
        try:
            return await self._take_place(wish, undo)
        except Problem as problem:
            if problem.code is not Code.NOT_FOUND:
                raise
            _log.warning("the bridge is made anew", extra={"why": problem.brief})
        await self._tasks.finish(undo.aclose(), name=f"give back what {wish.vm_id} had")
        await self._make_anew(times_made)
        return await self._take_place(wish, undo)

    async def _take_place(self, wish: Wish, undo: AsyncExitStack) -> Lease:
        """Every step pushes its undo before it acts."""
        tap = await undo.enter_async_context(self._pool.lease())
        undo.push_async_callback(self._release, wish.vm_id)
        admitted = self._note(wish, tap.name, wish.address)
        await self._privileged.call(AdmitGuest(bridge=self.plan.name, guest=admitted.guest))
        await self.publish(wish.vm_id, wish.publish)
        self._zone.register(admitted.named)
        return self._describe(admitted.guest, tap.descriptor)

    async def _enter_again(self, wish: Wish, runtime: VmRuntime, undo: AsyncExitStack) -> Lease:
        undo.push_async_callback(self._release, wish.vm_id)
        admitted = self._note(wish, runtime.tap, runtime.address)
        for port in wish.publish:
            try:
                admitted.ports[port] = hold_port(port)
            except Problem as problem:
                _log.warning(
                    "a port is not published any more", extra={"vm": wish.vm_id, "why": problem.brief}
                )
        if self._times_made:  # else the kernel is told when the bridge is made
            with self._doubted("a guest is not admitted yet"):
                await self._readmit(admitted.guest)
                if admitted.ports:
                    await self._lead(admitted.guest, admitted.ports)
            self._zone.register(admitted.named)
        return self._describe(admitted.guest, None)

    async def set_nat(self, vm_id: str, nat: bool) -> None:
        """Of a guest that runs; at once, for running connections too. Noted first, for tables that are made anew
        meanwhile."""
        before = self._guests[vm_id]
        self._guests[vm_id] = changed = before._replace(guest=replace(before.guest, nat=nat))
        try:
            await self._readmit(changed.guest)
        except BaseException as error:
            self._guests[vm_id] = before
            if not (isinstance(error, Problem) and error.outcome is Outcome.NOT_STARTED):
                self._in_doubt = True
            raise
        self._zone.register(changed.named)

    async def publish(self, vm_id: str, forwards: Iterable[PortForward]) -> None:
        """All or none. Raises `conflict` for a port that is taken. Noted first: whoever leaves before the answer
        is there has the release take them back."""
        admitted = self._guests[vm_id]
        with ExitStack() as undo:
            ports = {forward: undo.enter_context(hold_port(forward)) for forward in forwards}
            undo.pop_all()
        if not ports:
            return
        admitted.ports.update(ports)
        try:
            await self._lead(admitted.guest, ports)
        except Problem as problem:
            if problem.outcome is not Outcome.NOT_STARTED:
                with self._doubted("a port may still be published"):
                    await self.unpublish(vm_id, tuple(ports))
            _let_go(admitted, ports)
            raise

    async def unpublish(self, vm_id: str, forwards: Iterable[PortForward]) -> None:
        admitted = self._guests[vm_id]
        ports = [forward for forward in forwards if forward in admitted.ports]
        if not ports:
            return
        await self._privileged.call(
            UnpublishPorts(
                bridge=self.plan.name,
                guest_address=admitted.guest.address,
                ports=tuple(published(port) for port in ports),
            )
        )
        _let_go(admitted, ports)

    async def close(self) -> None:
        """The pool and the name server go; the bridge and what leads to it stay while guests use it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        for admitted in self._guests.values():
            for held in admitted.ports.values():
                held.close()
        await self._zone.close()
        await self._pool.close()
        await self._zone.unroute()
        if not self._guests:
            with told(_log, "the bridge is still there"):
                await self._privileged.call(RemoveBridge(bridge=self.plan.name))
        await self._privileged.close()

    def explain(self, *, nat: bool) -> str:
        """What a guest on the bridge has, in words."""
        reach = "NAT: the public network" if nat else "no NAT: nothing outside"
        return f"{self.plan.name}, {reach}" + (f"; names: {self.names_reason}" if self.names_reason else "")

    # Parts

    def _note(self, wish: Wish, tap: str, address: str) -> Admitted:
        guest = Guest(tap=tap, mac=self.plan.derive_mac(address), address=address, nat=wish.nat)
        admitted = self._guests[wish.vm_id] = Admitted(wish.name, guest, {})
        return admitted

    async def _readmit(self, guest: Guest) -> None:
        """Of a guest that runs. Once more after everything was made anew, where the host has lost its tables."""
        request = AdmitGuest(bridge=self.plan.name, guest=guest)
        times_made = self._times_made
        try:
            await self._privileged.call(request)
        except Problem as problem:
            if problem.code is not Code.NOT_FOUND:
                raise
            await self._make_anew(times_made)
            await self._privileged.call(request)

    async def _make_anew(self, times_made: int) -> None:
        """Unless somebody has done it since."""
        async with self._making:
            if self._times_made == times_made:
                self._pool.renew()
                await self._make()

    async def _lead(self, guest: Guest, ports: dict[PortForward, socket.socket]) -> None:
        request = PublishPorts(
            bridge=self.plan.name,
            guest_address=guest.address,
            ports=tuple(published(port) for port in ports),
        )
        await self._privileged.call(request, [held.fileno() for held in ports.values()])

    async def _release(self, vm_id: str) -> None:
        """Everything of the guest, whatever fails on the way. What cannot be undone now is undone before the next
        guest comes, when everything is made anew; the tap is nobody's any more."""
        admitted = self._guests.get(vm_id)
        if admitted is None:
            return
        self._zone.unregister(admitted.name)
        with self._doubted("a port is still published"):
            await self.unpublish(vm_id, tuple(admitted.ports))
        del self._guests[vm_id]  # before the call: tables that are made anew after it must not have the guest
        with self._doubted("a guest is still admitted"):
            await self._privileged.call(ReleaseGuest(bridge=self.plan.name, guest=admitted.guest))
        if self._in_doubt:
            self._pool.renew()
        _let_go(admitted, tuple(admitted.ports))

    @contextmanager
    def _doubted(self, what: str) -> Iterator[None]:
        """As `told`, and everything is made anew before the next guest comes."""
        try:
            yield
        except Problem as problem:
            self._in_doubt = True
            _log.warning(what, extra={"why": problem.brief})

    def _describe(self, guest: Guest, descriptor: int | None) -> Lease:
        return Lease(
            mode=NetworkMode.BRIDGE,
            network=TapNetwork(mac=guest.mac, tap=guest.tap),
            guest_address=f"{guest.address}/{self.plan.prefix_length}",
            gateway=self.plan.host,
            dns=self.plan.host,
            address=guest.address,
            ssh_port=SSH_PORT,
            tap_descriptor=descriptor,
        )


def _let_go(admitted: Admitted, ports: Iterable[PortForward]) -> None:
    for port in ports:
        if (held := admitted.ports.pop(port, None)) is not None:
            held.close()
