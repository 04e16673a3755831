"""By what way this daemon is root, if by any: the only module that names one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from banger.base.paths import ROOT_SOCKET
from banger.base.problem import Code, Problem
from banger.images.ownership import refuse_ids
from banger.privileged.contract.base import Privileged, Reply, Request
from banger.privileged.contract.processes import MapIds
from banger.vmm.identity import find_start_time

R = TypeVar("R")


def find_root_socket() -> Path:
    """`BANGER_ROOT_SOCKET` names another helper's socket than the installed one's."""
    return Path(os.environ.get("BANGER_ROOT_SOCKET") or ROOT_SOCKET)


class WaysToRoot:
    """The helper where one is named or has a socket, this process where it is root.

    Owns what it gives out until `close`. The helper is reached by a connection for each who asks, so that none waits
    for another's answer; in this process there is one way for all, as it holds a lock for the whole host.
    """

    def __init__(self, looking: Path | None = None) -> None:
        """Who only looks names a lock of their own: this host's is a daemon's, and who gives it back takes away what
        no VM uses."""
        self._looking = looking
        self._given: list[Privileged] = []
        self._own: Privileged | None = None

    def find(self) -> Privileged | None:
        way = self._find()
        if way is not None:
            self._given.append(way)
        return way

    async def map_ids(self, pid: int) -> None:
        """Subordinate ids for the user namespace of a child of ours. Rare, and so on a connection of its own. Raises
        Problem."""
        privileged = self._find()
        if privileged is None:
            await refuse_ids(pid)
            return
        try:
            start_time = find_start_time(pid)
            if start_time is None:
                raise Problem(Code.OPERATION_FAILED, f"process {pid} has ended before its ids were mapped")
            await privileged.call(MapIds(pid=pid, start_time=start_time))
        finally:
            await privileged.close()

    async def close(self) -> None:
        """After everybody who was given one."""
        for way in self._given:
            await way.close()
        if self._own is not None and self._looking is None:
            await self._own.close()

    def _find(self) -> Privileged | None:
        socket = find_root_socket()
        if os.environ.get("BANGER_ROOT_SOCKET") or socket.exists():
            from banger.privileged.client import HelperClient

            return HelperClient(socket)
        if os.getuid() != 0:
            return None
        if self._own is None:
            from banger.privileged.inprocess import InProcess

            self._own = InProcess() if self._looking is None else InProcess(self._looking)
        return Shared(self._own)


class Shared:
    """A way to root that several use and none of them closes."""

    def __init__(self, way: Privileged) -> None:
        self._way = way

    @property
    def kind(self) -> str:
        return self._way.kind

    async def call(self, request: Request[R], descriptors: Sequence[int] = ()) -> Reply[R]:
        return await self._way.call(request, descriptors)

    async def close(self) -> None:
        """Its owner does."""
