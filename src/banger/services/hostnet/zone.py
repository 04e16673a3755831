"""The names of guests on the bridge: a server at the bridge's address, and the host's resolver led to it.

Owns the server. Its sockets are the bridge's address's, so a bridge that is made anew wants a new one.
"""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from banger.base.problem import Code, Problem
from banger.network.bridge import ZONE, BridgePlan
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.network import OpenDns, RouteNames, UnrouteNames
from banger.services.hostnet.names import NameServer
from banger.services.hostnet.told import told

_log = logging.getLogger(__name__)


class Named(NamedTuple):
    """A guest's name. One with a way out may ask for the world's names, too."""

    name: str
    address: str
    may_forward: bool


class Zone:
    """`reason` says why names are not served, or not to the host; empty while all is well."""

    def __init__(self, privileged: Privileged, plan: BridgePlan) -> None:
        self.server: NameServer | None = None
        self.reason = ""
        self._privileged = privileged
        self._plan = plan

    async def serve(self, list_guests: Callable[[], Iterable[Named]]) -> None:
        """Anew; those who come meanwhile are not missed, as guests are listed when the server is there. Never raises:
        guests without names are better than no guests."""
        self.reason = ""
        try:
            await self._serve(list_guests)
        except (Problem, OSError) as problem:
            self.reason = str(problem)
            _log.warning("names are not served", extra={"why": str(problem)})

    async def _serve(self, list_guests: Callable[[], Iterable[Named]]) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            await server.close()
        reply = await self._privileged.call(OpenDns(bridge=self._plan.name))
        udp, tcp = reply.descriptors
        self.server = NameServer(udp, tcp, zone=ZONE, server=self._plan.interface)
        for guest in list_guests():
            self.register(guest)
        try:
            await self._privileged.call(RouteNames(bridge=self._plan.name, zone=ZONE))
        except Problem as problem:
            if problem.code is not Code.UNAVAILABLE:
                raise
            self.reason = problem.brief

    def register(self, guest: Named) -> None:
        if self.server is not None:
            self.server.register(guest.name, guest.address)
            self.server.set_forwarding(guest.address, guest.may_forward)

    def unregister(self, name: str) -> None:
        if self.server is not None:
            self.server.unregister(name)

    async def close(self) -> None:
        if self.server is not None:
            await self.server.close()

    async def unroute(self) -> None:
        with told(_log, "names are still routed to the bridge"):
            await self._privileged.call(UnrouteNames(bridge=self._plan.name))
