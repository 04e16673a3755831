"""The network of VMs: the bridge where root can be had, user mode elsewhere, and the reason why.

Owns the choice. A VM's mode is chosen at each start; its address on the bridge and its port in user mode stay.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Literal

from banger.base.problem import Problem, unavailable
from banger.base.tasks import Supervisor
from banger.model.machine import PortForward
from banger.model.vm import LIVE, NetworkMode, VmRecord, VmRuntime
from banger.network.user import GATEWAY
from banger.services.hostnet.bridge import BridgeNetwork
from banger.services.hostnet.contract import Lease, Standing, Wish
from banger.services.hostnet.user import lease_user

_log = logging.getLogger(__name__)
Wanted = Literal["auto", "bridge", "user"]


class HostNetwork:
    """First `adopt` for each VM that runs, then `open`; `close` last."""

    def __init__(
        self, wanted: Wanted, bridge: BridgeNetwork | None, absence: Problem | None, tasks: Supervisor
    ) -> None:
        """`absence` says why there is no bridge that could be tried."""
        assert (bridge is None) == (absence is not None)
        self._wanted = wanted
        self._bridge = bridge
        self._failure = absence
        self._tasks = tasks
        self._opening: asyncio.Task[None] | None = None
        self._last_address = ""

    @property
    def bridge(self) -> BridgeNetwork | None:
        return self._bridge

    def open(self) -> None:
        """Begins in the background; who needs the answer waits for it."""
        if self._bridge is not None:
            self._opening = self._tasks.start(self._open(self._bridge), name="open the bridge")

    async def _open(self, bridge: BridgeNetwork) -> None:
        """Never raises: a host that cannot have the bridge has user mode and says why."""
        try:
            await bridge.open()
            self._failure = None
        except Problem as problem:
            self._failure = problem
            _log.warning("no bridge", extra={"why": problem.brief})

    async def choose(self) -> Standing:
        """The mode of the next start. A bridge that could not be had before is tried again. Raises `unavailable`
        where the configuration insists on it in vain."""
        if self._bridge is not None:
            if self._opening is None or (self._opening.done() and self._failure is not None):
                self.open()
            assert self._opening is not None
            await asyncio.shield(self._opening)
        standing = self.standing()
        if standing.mode is NetworkMode.USER and self._wanted == "bridge":
            raise unavailable(f"the bridge cannot be used: {standing.reason}", hint=standing.hint or None)
        return standing

    async def settle(self) -> Standing:
        """Once the opening that is under way has ended. Begins none: for who only looks."""
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        return self.standing()

    def standing(self) -> Standing:
        """As far as is known by now."""
        if self._failure is None:
            return Standing(NetworkMode.BRIDGE, "")
        return Standing(NetworkMode.USER, self._failure.brief, self._failure.hint or "")

    def reserve_address(self, own: str, used: Collection[str]) -> str:
        """The VM's own while the subnet still has it, else the next that nobody has. The caller writes it down
        before anything else runs."""
        assert self._bridge is not None
        if not self._bridge.plan.owns(own):
            own = self._last_address = self._bridge.plan.choose_address(used, self._last_address)
        return own

    def lease(self, wish: Wish, mode: NetworkMode) -> AbstractAsyncContextManager[Lease]:
        """Held while the VM runs. Raises `conflict` for a published port that is taken."""
        if mode is NetworkMode.USER:
            return nullcontext(lease_user(wish))
        assert self._bridge is not None
        return self._bridge.lease(wish)

    def adopt(self, wish: Wish, runtime: VmRuntime) -> AbstractAsyncContextManager[object]:
        """Of a VM that runs: what it has on the host goes when the block ends."""
        if runtime.network_mode is NetworkMode.USER or self._bridge is None:
            return nullcontext()
        return self._bridge.adopt(wish, runtime)

    async def repair(self) -> list[str]:
        """What the host should have is made good where somebody has taken it away. Says what went. Raises a Problem
        where the host cannot be asked."""
        if self._bridge is None or self._opening is None or self._failure is not None:
            return []
        await asyncio.wait((self._opening,))
        return await self._bridge.repair() if self._failure is None else []

    def rename(self, vm_id: str, name: str) -> None:
        """Of a VM that runs. In user mode nobody knows names."""
        if self._bridge is not None and self._bridge.has(vm_id):
            self._bridge.rename(vm_id, name)

    async def set_nat(self, vm: VmRecord, nat: bool) -> None:
        await (await self._get_bridge(vm)).set_nat(vm.id, nat)

    async def publish(self, vm: VmRecord, forwards: Iterable[PortForward]) -> None:
        await (await self._get_bridge(vm)).publish(vm.id, forwards)

    async def unpublish(self, vm: VmRecord, forwards: Iterable[PortForward]) -> None:
        await (await self._get_bridge(vm)).unpublish(vm.id, forwards)

    async def _get_bridge(self, vm: VmRecord) -> BridgeNetwork:
        """Once it is open, or could not be opened: a change in between would be lost."""
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        if self._bridge is None:
            assert self._failure is not None
            raise unavailable(
                f"the network of {vm.name} cannot be changed: {self._failure.brief}", hint=self._failure.hint
            )
        return self._bridge

    def explain(self, vm: VmRecord) -> Standing:
        """What a VM has, in words; of one that does not run, what it would get now."""
        running = vm.runtime is not None and vm.state in LIVE
        mode = vm.runtime.network_mode if running and vm.runtime else self.standing().mode
        if mode is NetworkMode.BRIDGE and self._bridge is not None:
            return Standing(mode, self._bridge.explain(nat=vm.spec.nat))
        reason = self.standing().reason or "it was started before the bridge could be used"
        if vm.spec.nat:
            reach = f"the guest reaches the network and, at {GATEWAY}, this host's loopback"
        else:
            reach = "ports are forwarded on loopback, nothing goes out"
        return Standing(mode, f"{reason}: {reach}", self.standing().hint)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait((self._opening,))
        if self._bridge is not None:
            await self._bridge.close()
