"""A store, one or more guests that answer over real links, and daemons that come and go above them."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from tests.unit.usage.places import make_vm

from banger.base.problem import not_found, unavailable
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.guest.fake import FakeGuest
from banger.guest.link import Link
from banger.model.vm import STARTABLE, VmRecord, VmState
from banger.services.sessions.service import SessionService
from banger.store.sqlite import open_store

BOOTS = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002")


class Vms:
    """The service that owns the VMs, as far as sessions ask."""

    def __init__(self, store, links) -> None:
        self.store = store
        self.links: dict[str, Agent] = links
        self.touched: list[str] = []
        self.met = []

    def list_rows(self):
        return self.store.vms.list()

    def resolve(self, untrusted_reference):
        for vm in self.list_rows():
            if untrusted_reference in (vm.name, vm.id):
                return vm
        raise not_found(f"there is no VM {untrusted_reference!r}")

    def get_agent(self, vm):
        agent = self.links.get(vm.id)
        if agent is None or agent.link.is_closed:
            raise unavailable(f"the agent in {vm.name} is not connected")
        return agent

    def touch(self, vm_id):
        self.touched.append(vm_id)

    def arrange(self, vm, request):
        return msgspec.structs.replace(request, env=(("ARRANGED", vm.name), *request.env))

    def on_agent(self, met):
        self.met.append(met)
        for vm_id, agent in self.links.items():
            if not agent.link.is_closed:
                met(vm_id, agent)


class World:
    """`daemon` is the service of the daemon that runs; `restart` is its kill -9."""

    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self.root = root
        self.stack = stack
        self.store = open_store(root / "banger.db")
        stack.callback(self.store.close)
        self.guests: dict[str, FakeGuest] = {}
        self.links: dict[str, Agent] = {}
        self.supervisor: Supervisor
        self.vms: Vms
        self.daemon: SessionService

    async def begin(self) -> None:
        self.supervisor = Supervisor()
        await self.stack.enter_async_context(self.supervisor)
        self.vms = Vms(self.store, self.links)
        self.daemon = SessionService(self.vms, self.store.sessions, self.supervisor)
        self.daemon.open()

    async def restart(self) -> None:
        """Nothing of the old one is left but the store, and the guests."""
        await self.supervisor.__aexit__(None, None, None)
        for vm_id in list(self.links):
            await self.disconnect(vm_id)
        await self.begin()
        for vm in self.store.vms.list():
            if vm.state is VmState.RUNNING:
                await self.connect(vm)

    async def add_vm(self, name: str = "web", *, pid: int = 100) -> VmRecord:
        vm = make_vm(name, pid=pid)
        vm = msgspec.structs.replace(vm, runtime=msgspec.structs.replace(vm.runtime, boot_id=BOOTS[0]))
        self.store.vms.insert(vm)
        self.guests[vm.id] = FakeGuest(self.root / vm.id, boot_id=BOOTS[0])
        self.stack.callback(self.guests[vm.id].sessions.lose_all)
        await self.connect(vm)
        return vm

    async def connect(self, vm: VmRecord) -> None:
        host, inside = socket.socketpair()
        serving = asyncio.create_task(
            self.guests[vm.id].serve(*await asyncio.open_connection(sock=inside)), name="guest"
        )
        self.stack.push_async_callback(asyncio.wait, [serving])
        link = await Link.open(*await asyncio.open_connection(sock=host))
        self.stack.push_async_callback(link.aclose)
        self.links[vm.id] = Agent(link)
        for met in self.vms.met:
            met(vm.id, self.links[vm.id])

    async def disconnect(self, vm_id: str) -> None:
        await self.links[vm_id].link.aclose()
        del self.links[vm_id]

    async def stop_vm(self, vm: VmRecord) -> None:
        self.guests[vm.id].sessions.lose_all()
        await self.disconnect(vm.id)
        self.store.vms.save(msgspec.structs.replace(vm, state=VmState.STOPPED, runtime=None))

    async def start_vm(self, vm: VmRecord) -> None:
        assert self.store.vms.find(vm.id).state in STARTABLE
        await self.boot_again(vm)

    async def boot_again(self, vm: VmRecord) -> None:
        """Another boot of the guest; no session has survived."""
        guest = self.guests[vm.id]
        guest.sessions.lose_all()
        guest.boot_id = BOOTS[1]
        runtime = msgspec.structs.replace(vm.runtime, boot_id=BOOTS[1])
        self.store.vms.save(msgspec.structs.replace(vm, state=VmState.RUNNING, runtime=runtime))
        if vm.id in self.links:
            await self.disconnect(vm.id)
        await self.connect(vm)


class Caller:
    """A caller's end of a stream: everything told in its order, and by stream what was written."""

    def __init__(self, *inputs) -> None:
        self.queue = asyncio.Queue()
        for item in inputs:
            self.queue.put_nowait(item)
        self.about = None
        self.told = []
        self.output = {1: b"", 2: b""}
        self.end = None
        self.changed = asyncio.Condition()
        self.room = asyncio.Event()
        self.room.set()

    async def accept(self, **about) -> None:
        self.about = about
        self.told.append({"at": about["at"]})
        await self._note()

    async def tell(self, event) -> None:
        self.told.append(event)
        await self._note()

    async def inputs(self):
        while True:
            yield await self.queue.get()

    async def write(self, stream: int, data: bytes) -> None:
        await self.room.wait()
        self.output[stream] += bytes(data)
        self.told.append(len(data))
        await self._note()

    async def finish(self, *, status=None, signal=None) -> None:
        self.end = (status, signal)
        await self._note()

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def wait(self, predicate) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(predicate)

    async def wait_output(self, text: bytes, stream: int = 1) -> None:
        await self.wait(lambda: text in self.output[stream])

    def events(self, word: str) -> list[dict]:
        return [told for told in self.told if isinstance(told, dict) and word in told]

    @property
    def position(self) -> int:
        """Where a client that counts as the reference says would go on."""
        position = 0
        for told in self.told:
            if isinstance(told, int):
                position += told
            elif "at" in told:
                position = told["at"]
            elif "gap" in told:
                position = told["gap"]["to"]
        return position
