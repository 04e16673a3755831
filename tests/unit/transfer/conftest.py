"""The CLI as a process, a daemon's real server, the real service, and a fake guest whose files are in a directory."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.workspace_guest import open_agent

from banger.base.problem import not_found, unavailable
from banger.guest.fake import FakeGuest
from banger.model.vm import VmState
from banger.services.transfer.service import TransferService

HARNESS = Path(__file__).parents[1] / "daemon" / "harness.py"
SOURCE = Path(__file__).parents[3] / "src"

if "daemon_harness" not in sys.modules:
    spec = importlib.util.spec_from_file_location("daemon_harness", HARNESS)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["daemon_harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["daemon_harness"])
harness = sys.modules["daemon_harness"]


class Vms:
    """`web` runs; `off` does not; `mute` has no agent."""

    def __init__(self, agent) -> None:
        self.agent = agent
        self.users = self.uses = 0

    def resolve(self, reference):
        if reference not in ("web", "off", "mute"):
            raise not_found(f"there is no VM {reference!r}", hint="banger vm list --all")
        return harness.make_vm(reference, state=VmState.STOPPED if reference == "off" else VmState.RUNNING)

    def get_agent(self, vm):
        if vm.name == "mute":
            raise unavailable("the agent in mute is silent")
        return self.agent

    @contextmanager
    def using(self, vm_id):
        assert vm_id == "0123456789ab"
        self.users += 1
        self.uses += 1
        try:
            yield
        finally:
            self.users -= 1


class Services(harness.FakeServices):
    def __init__(self, transfer) -> None:
        super().__init__()
        self.transfer = transfer

    def render_handlers(self):
        return super().render_handlers() | {"vm.put": self.transfer.put, "vm.get": self.transfer.get}


class Done(NamedTuple):
    status: int
    out: bytes
    err: str


class Place:
    """`host` is where the CLI runs, `guest` the guest's root directory."""

    def __init__(self, root: Path, vms: Vms, transfer: TransferService, fake: FakeGuest) -> None:
        self.host = root / "host"
        self.guest = fake.scratch
        self.home = fake.scratch / "root"
        self.vms = vms
        self.transfer = transfer
        self.fake = fake
        self.runtime = root / "run"
        self.host.mkdir()

    @asynccontextmanager
    async def start(self, *words: str, stdin=asyncio.subprocess.DEVNULL, **options) -> AsyncIterator:
        """The process; killed if it still runs at the end of the block."""
        environment = {**os.environ, "BANGER_RUNTIME_DIR": str(self.runtime), "PYTHONPATH": str(SOURCE)}
        options = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE} | options
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "banger.cli",
            "cp",
            *words,
            cwd=self.host,
            env=environment,
            stdin=stdin,
            **options,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def cp(self, *words: str, stdin: bytes | None = None) -> Done:
        way = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
        async with self.start(*words, stdin=way) as process:
            out, err = await process.communicate(stdin)
        return Done(process.returncode, out, err.decode())


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    fake = FakeGuest(tmp_path / "guest")
    (tmp_path / "run").mkdir(mode=0o700)
    async with open_agent(fake) as agent:
        vms = Vms(agent)
        transfer = TransferService(vms)
        async with harness.open_harness(tmp_path, services=Services(transfer)):
            yield Place(tmp_path, vms, transfer, fake)
