"""Copying between callers and guests: a caller's stream joined to the agent's tar stream. Buffers nothing.

Owns nothing. A caller that leaves ends the copy; the guest then removes its half-written file.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from banger.api.transfer import VmGet, VmPut
from banger.base.problem import unavailable
from banger.guest.agent import Agent
from banger.guest.errors import GuestProblem
from banger.model.vm import VmRecord, require_running
from banger.services.contract import CommandStream, Stdin
from banger.services.transfer import places
from banger.services.transfer.contract import Vms
from banger.services.transfer.places import Destination, Place, Source

_STDOUT = 1
_ANSWER_S = 30.0  # an emulated guest under load is slow


class TransferService:
    def __init__(self, vms: Vms) -> None:
        self._vms = vms

    async def put(self, request: VmPut, stream: CommandStream) -> None:
        vm, agent = self._reach(request.vm)
        with self._vms.using(vm.id), _explaining(vm, request.path):
            async with _answering(vm):
                user = await places.find_user(agent, request.user)
                place = places.parse_place(vm.name, request.path, user.home)
                found = await places.settle_destination(
                    agent, place, tree=request.what == "tree", into=request.into, parents=request.parents
                )
            owner = (user.uid, user.gid) if request.user is not None else None
            if request.what == "any" and found.name is not None:
                await _put_bytes(agent, found, request, owner, stream)
            else:
                await stream.accept(directory=found.directory, name=found.name)
                source = _inputs(stream)
                await agent.tree_put(found.directory, source, keep_owners=request.archive, owner=owner)
        await stream.finish(status=0)

    async def get(self, request: VmGet, stream: CommandStream) -> None:
        vm, agent = self._reach(request.vm)
        with self._vms.using(vm.id), _explaining(vm, request.path):
            async with _answering(vm):
                user = await places.find_user(agent, request.user)
                place = places.parse_place(vm.name, request.path, user.home)
                source = await places.settle_source(agent, place, follow=request.follow or request.plain)
            await _get(agent, place, source, stream, plain=request.plain)
        await stream.finish(status=0)

    def _reach(self, reference: str) -> tuple[VmRecord, Agent]:
        vm = require_running(self._vms.resolve(reference))
        return vm, self._vms.get_agent(vm)


@contextmanager
def _explaining(vm: VmRecord, path: str) -> Iterator[None]:
    try:
        yield
    except GuestProblem as problem:
        raise places.explain(problem, places.parse_place(vm.name, path, "/").shown) from problem


@asynccontextmanager
async def _answering(vm: VmRecord) -> AsyncIterator[None]:
    """Around questions to a guest before anything is copied. Raises `unavailable` when the answers do not come."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield
    except TimeoutError as error:
        raise unavailable(
            f"the agent in {vm.name} does not answer within {_ANSWER_S:g} s",
            hint=f"banger vm health {vm.name}",
        ) from error


async def _put_bytes(
    agent: Agent, found: Destination, request: VmPut, owner: tuple[int, int] | None, stream: CommandStream
) -> None:
    uid, gid = owner or await places.find_owner(agent, found.directory)
    await stream.accept(file=found.path)
    source = _inputs(stream)
    await agent.file_write(
        found.path, source, mode=request.mode, uid=uid, gid=gid, make_parents=request.parents
    )


async def _get(agent: Agent, place: Place, source: Source, stream: CommandStream, *, plain: bool) -> None:
    if plain and source.what != "directory":
        async with agent.file_read(place.path) as download:
            await stream.accept(what="bytes", name=place.name, size_bytes=download.size_bytes, top=False)
            await _relay(download, stream)
        return
    # What a link leads to is opened by its path; everything else by its name in the directory above, which gives
    # the entry itself, and a link as a link.
    by_path = source.is_followed or not place.name
    path, names = (place.path, ()) if by_path else (place.parent, (place.name,))
    async with agent.tree_get(path, names) as download:
        await stream.accept(
            what=source.what,
            name=place.name,
            size_bytes=source.size_bytes,
            top=not by_path or source.what != "directory",
        )
        await _relay(download, stream)


async def _relay(download: AsyncIterator[bytes], stream: CommandStream) -> None:
    async for data in download:
        await stream.write(_STDOUT, data)


async def _inputs(stream: CommandStream) -> AsyncIterator[bytes]:
    """Up to the end of the caller's stdin. A caller that leaves before cancels us."""
    async for item in stream.inputs():
        if isinstance(item, Stdin):
            if not item.data:
                return
            yield item.data
