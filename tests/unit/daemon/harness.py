"""A real daemon's server on a real socket, with services made up for the test."""

import asyncio
import json
import os
import struct
from contextlib import asynccontextmanager
from pathlib import Path

from banger.api.images import Images, Kernels
from banger.api.method import Kind, Nothing
from banger.api.registry import METHODS
from banger.api.system import Completions, Findings, Reconciled
from banger.api.vm import DiskUse, LogText, Posture, Pruned, SshTarget, VmDetails, VmSummaries
from banger.base.paths import Paths
from banger.base.problem import Code, Problem, not_found
from banger.daemon.contract import OperationHandler, Services, VmCounts
from banger.daemon.dispatch import Dispatch
from banger.daemon.own_methods import OWN, OwnMethods
from banger.daemon.server import open_server
from banger.model.operation import OperationState
from banger.model.vm import VmRecord, VmSpec, VmState
from banger.services.contract import Resize, SendSignal, Stdin
from banger.services.operations.registry import Operations
from banger.store.sqlite import open_store

# A daemon as a process of its own, with these services: python -c LAUNCH harness.py [arguments of the daemon]
LAUNCH = """
import sys, types, importlib.util
spec = importlib.util.spec_from_file_location("daemon_harness", sys.argv[1])
harness = sys.modules["daemon_harness"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(harness)
wiring = types.ModuleType("banger.daemon.wiring")
def open_services(paths):
    return harness.FakeServices().open(paths)
wiring.open_services = open_services
sys.modules["banger.daemon.wiring"] = wiring
from banger.daemon.main import main
raise SystemExit(main(sys.argv[2:]))
"""


def make_vm(name="web", vm_id="0123456789ab", **changes):
    spec = VmSpec(
        image="i", kernel="k", vcpus=1, memory_mib=512, disk_size_bytes=2**30, system_overlay_size_bytes=2**30
    )
    at = "2026-01-01T00:00:00.000Z"
    values = {"state": VmState.CREATED, "created_at": at, "updated_at": at, "last_touched_at": at, **changes}
    return VmRecord(id=vm_id, name=name, spec=spec, **values)


def make_details(name="web"):
    posture = Posture(
        backend="fake", accelerator="none", accelerator_reason="", network_mode="user", network_reason="",
        storage_driver="copy", memory_backing="file",
    )  # fmt: skip
    return VmDetails(
        vm=make_vm(name), posture=posture, disk_use=DiskUse(root_bytes=0, work_bytes=0), directory="/x"
    )


class FakeServices:
    """What handlers do is picked by the VM's name or the command."""

    def __init__(self):
        self.release = asyncio.Event()
        self.began = asyncio.Event()
        self.undoing = asyncio.Event()
        self.undo_release = asyncio.Event()
        self.undone = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.stopped = asyncio.Event()
        self.written = 0
        self.resolutions = {}
        self.created = []
        self.streams = []
        self.inputs = []

    async def show(self, request):
        if request.vm == "missing":
            raise not_found("there is no VM 'missing'", hint="banger vm list --all")
        if request.vm == "bug":
            raise RuntimeError("oops")
        if request.vm == "wait":
            await self.wait_for_ever()
        return make_details(request.vm)

    async def wait_for_ever(self):
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    def logs(self, request):
        return LogText(source="serial", text="x" * (2**21), truncated=False)

    async def create(self, request, progress):
        name = request.name or "web"
        self.created.append(name)
        progress.enter("prepare")
        if name == "fails":
            raise Problem(Code.NO_SPACE, "the disk is full", hint="banger vm prune")
        if name == "bug":
            raise ValueError("oops")
        progress.tell("half of it")
        if name == "chatty":
            for number in range(20_000):
                progress.tell(f"line {number} " + "x" * 200)
        progress.enter("boot")
        self.began.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.undoing.set()
            if name == "slow-undo":
                await self.undo_release.wait()
            self.undone.set()
            raise
        return make_details(name)

    async def exec(self, request, stream):
        self.streams.append(stream)
        match request.argv[0]:
            case "refuse":
                raise Problem(Code.NOT_RUNNING, "web is stopped", hint="banger vm start web")
            case "bug":
                raise RuntimeError("oops")
            case "wait-before":
                await self.wait_for_ever()
        await stream.accept(pid=42)
        match request.argv[0]:
            case "cat":
                async for item in stream.inputs():
                    if isinstance(item, Stdin) and item.data:
                        await stream.write(1, item.data)
                    elif isinstance(item, Stdin):
                        break
                    elif isinstance(item, SendSignal):
                        await stream.finish(signal=item.number)
                        return
                    elif isinstance(item, Resize):
                        await stream.write(2, f"{item.rows}x{item.columns}".encode())
            case "flood":
                try:
                    while True:
                        await stream.write(1, bytes(65536))
                        self.written += 65536
                finally:
                    self.cancelled.set()
            case "burst":
                await stream.write(1, bytes(8 * 2**20))
            case "sink":
                await self.wait_for_ever()
            case "break":
                raise Problem(Code.UNAVAILABLE, "the agent is silent")
            case "forget":
                return
        await stream.finish(status=int(request.argv[1]) if len(request.argv) > 1 else 0)

    def render_handlers(self):
        async def work(request, progress):
            return Nothing()

        async def stream(request, caller):
            await caller.accept()
            await caller.finish(status=0)

        plain = {
            "vm.list": VmSummaries(vms=[]), "image.list": Images(images=[]), "kernel.list": Kernels(kernels=[]),
            "doctor.run": Findings(findings=[]), "complete": Completions(words=[]),
            "vm.prune": Pruned(vms=[], freed_bytes=0, dry_run=False),
            "vm.ssh": SshTarget(
                host="h", port=1, user="root", identity_file="", known_hosts_file="", host_key_alias=""
            ),
        }  # fmt: skip
        handlers = {}
        for method, request in METHODS.items():
            if method in OWN:
                continue
            if request.kind is Kind.OPERATION:
                handlers[method] = OperationHandler(work, lambda request: "subject")
            elif request.kind is Kind.STREAM:
                handlers[method] = stream
            else:
                result = plain.get(method, Nothing())
                handlers[method] = lambda request, result=result: result
        return handlers | {
            "vm.show": self.show,
            "vm.logs": self.logs,
            "vm.create": OperationHandler(self.create, lambda request: request.name or "web"),
            "vm.exec": self.exec,
        }

    async def reconcile(self, request):
        return Reconciled(adopted=["web"])

    def attend(self, perform):
        self.perform = perform

    async def judge(self, operations):
        return {each.id: self.resolutions[each.id] for each in operations if each.id in self.resolutions}

    def render(self, store, stop_vms=None):
        return Services(
            self.render_handlers(),
            store.operations,
            count_vms=lambda: VmCounts(3, 1),
            stop_vms=stop_vms,
            reconcile=self.reconcile,
            judge=self.judge,
            attend=self.attend,
        )

    @asynccontextmanager
    async def open(self, paths):
        store = open_store(Path(paths.database))

        async def stop_vms(hurry):
            self.stopped.set()

        try:
            yield self.render(store, stop_vms)
        finally:
            store.close()


class Wire:
    """A client that may say anything."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def send(self, content):
        data = content if isinstance(content, bytes) else json.dumps(content).encode() + b"\n"
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self):
        line = await asyncio.wait_for(self.reader.readline(), 10)
        return json.loads(line) if line else None

    async def call(self, method, params=None, **more):
        await self.send({"v": 1, "method": method, "params": params or {}, **more})
        while True:
            reply = await self.receive()
            if reply is None or "event" not in reply:
                return reply

    async def send_frame(self, kind, payload=b""):
        await self.send(struct.pack(">BI", kind, len(payload)) + payload)

    async def receive_frame(self):
        header = await asyncio.wait_for(self.reader.readexactly(5), 10)
        kind, length = struct.unpack(">BI", header)
        return kind, await self.reader.readexactly(length)

    async def at_end(self):
        return await asyncio.wait_for(self.reader.read(1), 10) == b""

    def leave(self):
        self.writer.transport.abort()


class Harness:
    def __init__(self, server, dispatch, operations, services, paths, store):
        self.server = server
        self.dispatch = dispatch
        self.operations = operations
        self.services = services
        self.paths = paths
        self.store = store
        self.stop_asked = False
        self.clients = []

    async def connect(self):
        client = Wire(*await asyncio.open_unix_connection(self.paths.socket, limit=2**21))
        self.clients.append(client)
        return client


def make_paths(directory):
    directory = str(directory)
    paths = Paths(*(f"{directory}/{name}" for name in ("config", "state", "data", "cache", "run")))
    for path in (paths.state, paths.runtime):
        os.makedirs(path, mode=0o700, exist_ok=True)
    return paths


@asynccontextmanager
async def open_harness(directory, *, services=None, **options):
    paths = make_paths(directory)
    services = services or FakeServices()
    store = open_store(Path(paths.database))
    operations = Operations(store.operations)
    harness = None
    async with open_server(**options) as server:

        def stop(keep_vms):
            harness.stop_asked = True

        own = OwnMethods(paths, operations, services.render(store), stop)
        dispatch = Dispatch({**services.render_handlers(), **own.render_handlers()}, operations)
        await server.listen(Path(paths.socket), dispatch)
        harness = Harness(server, dispatch, operations, services, paths, store)
        try:
            yield harness
        finally:
            for client in harness.clients:
                client.writer.close()
            services.undo_release.set()
            assert await operations.close(5)
    store.close()


async def wait_state(harness, op_id, state=OperationState.RUNNING):
    running = harness.operations.find_running(op_id)
    ended = await running.wait() if running else harness.operations.get(op_id)
    assert ended.state is state, ended
    return ended
