from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface

import pytest

from banger.base.paths import Paths
from banger.base.problem import unavailable
from banger.base.tasks import Supervisor
from banger.base.units import GIB
from banger.images.ownership import Ownership
from banger.model.config import Config
from banger.model.machine import DiskFormat
from banger.model.sizing import HostSize
from banger.model.storage import StorageDriver
from banger.network.bridge import BridgePlan
from banger.services.checks.contract import CheckSurroundings, Verdict
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.service import HostNetwork
from banger.storage.choose import Storage


class Driver:
    """A root disk's driver, as far as a check knows one: `reason` keeps it from working."""

    format = DiskFormat.RAW

    def __init__(self, name: StorageDriver, reason: str = "") -> None:
        self.name = name
        self.reason = reason

    async def probe(self) -> None:
        if self.reason:
            raise unavailable(self.reason, hint=f"mend {self.name.value}")


@asynccontextmanager
async def open_networks(privileged, wanted="auto") -> AsyncIterator[HostNetwork]:
    """As the daemon does it, with everything opened that can be."""
    async with Supervisor() as tasks:
        bridge = BridgeNetwork(
            privileged,
            BridgePlan("br-banger", IPv4Interface("10.209.0.1/24")),
            Allowances(),
            pool_target=2,
            tasks=tasks,
        )
        networks = HostNetwork(wanted, bridge, None, tasks)
        networks.open()
        try:
            yield networks
        finally:
            await networks.close()


@pytest.fixture
async def around(tmp_path) -> AsyncIterator[CheckSurroundings]:
    """A host on which everything works, in user mode by choice."""
    for name in ("state", "data", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF" + bytes(100))

    async def works():
        return Verdict(True, "it works")

    async def qcow2():
        return StorageDriver.QCOW2

    async with Supervisor() as tasks:
        yield CheckSurroundings(
            paths=Paths(*(str(tmp_path / name) for name in ("config", "state", "data", "cache", "run"))),
            config=Config(network="user"),
            host=HostSize(4, 8 * GIB),
            try_vmm=works,
            try_accelerator=works,
            images=tmp_path / "data" / "images",
            kernels=tmp_path / "data" / "kernels",
            guest_program=program,
            ownership=Ownership(),
            privileged=None,
            storage=Storage(
                "auto",
                [
                    Driver(StorageDriver.SNAPSHOT, "no root helper is installed"),
                    Driver(StorageDriver.REFLINK),
                ],
            ),
            choose_storage=qcow2,
            try_firecracker=works,
            networks=HostNetwork("user", None, unavailable('the configuration says network = "user"'), tasks),
            root_socket=tmp_path / "root.sock",
            root_program=tmp_path / "banger-root",
            root_uid=(tmp_path.stat()).st_uid,
            resolv_conf=tmp_path / "resolv.conf",
            nsswitch_conf=tmp_path / "nsswitch.conf",
        )
