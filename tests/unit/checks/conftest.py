import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface

import pytest

from banger.api.system import Finding
from banger.base.clock import host_now
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
from banger.services.checks import contract
from banger.services.checks.contract import CheckSurroundings, Places, Verdict
from banger.services.hostnet.bridge import Allowances, BridgeNetwork
from banger.services.hostnet.service import HostNetwork
from banger.storage.choose import Storage


@pytest.fixture(autouse=True)
def judge_fixes(monkeypatch):
    """Whatever a check advises is a command line that a shell takes, of commands that a host has."""

    def make(**parts):
        finding = Finding(**parts)
        if finding.fix is not None:
            lexer = shlex.shlex(finding.fix, posix=True, punctuation_chars="&|;()<>")
            lexer.whitespace_split = True
            words = list(lexer)
            first = [word for before, word in zip(["&&", *words], words, strict=False) if before == "&&"]
            assert set(first) <= contract._COMMANDS, finding.fix
            assert not set(words) & set("|;()<>"), finding.fix
        return finding

    monkeypatch.setattr(contract, "Finding", make)


class Driver:
    """A root disk's driver, as far as a check knows one: `reason` keeps it from working."""

    format = DiskFormat.RAW

    def __init__(self, name: StorageDriver, reason: str = "") -> None:
        self.name = name
        self.reason = reason
        self.stands_on_image = name in (StorageDriver.SNAPSHOT, StorageDriver.QCOW2)

    async def probe(self) -> None:
        if self.reason:
            raise unavailable(self.reason, hint=f"sudo mend {self.name.value}")


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

    async def nothing():
        return ()

    config = tmp_path / "config" / "config.toml"
    config.parent.mkdir(mode=0o700)
    config.write_text('network = "user"\n')

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
            list_rows=list,
            list_damaged=nothing,
            owner_key=tmp_path / "data" / "ssh" / "id_ed25519",
            serving_since=host_now(),
            places=Places(
                install_record=tmp_path / "install.json",
                firecracker=tmp_path / "firecracker",
                control_groups=tmp_path / "cgroup",
                interfaces=tmp_path / "interfaces",
                systemd=tmp_path / "systemd",
                processes=tmp_path / "processes",
            ),
            resolv_conf=tmp_path / "resolv.conf",
            nsswitch_conf=tmp_path / "nsswitch.conf",
        )
