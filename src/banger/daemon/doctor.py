"""The doctor while no daemon runs: the same checks, in a process of their own that opens nothing.

`python -m banger.daemon.doctor` prints the findings as JSON. No directory is made, no database migrated, no VM taken
over, no bridge put up: what the next start would meet is tried, and left as it was. A configuration that nobody
understands is a finding, and so is what depends on it: that is not looked at.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from banger.api.system import DoctorRun, Findings
from banger.base.paths import Paths, find_paths
from banger.base.problem import Problem, unavailable
from banger.base.tasks import Supervisor
from banger.daemon import wiring
from banger.daemon.composition import make_checks, make_material
from banger.daemon.root_ways import WaysToRoot
from banger.model.config import Config
from banger.model.vm import NetworkMode, VmRecord
from banger.network.bridge import check_overlap
from banger.privileged.contract.network import ListRoutes
from banger.privileged.contract.processes import Hello
from banger.services.checks.service import CheckService
from banger.services.hostnet.bridge import BridgeNetwork
from banger.services.hostnet.contract import Standing
from banger.services.hostnet.service import HostNetwork
from banger.store.examination import examine

_VERDICTS = ("kvm-verdict.json", "firecracker-verdict.json")


class ClosedNetwork:
    """The network that a daemon would open: whether it could is found out without opening it."""

    def __init__(self, networks: HostNetwork) -> None:
        self._networks = networks
        self._tried: asyncio.Task[Problem | None] | None = None

    @property
    def bridge(self) -> BridgeNetwork | None:
        return self._networks.bridge

    async def settle(self) -> Standing:
        standing = self._networks.standing()
        if self.bridge is None or standing.mode is NetworkMode.USER:
            return standing
        self._tried = self._tried or asyncio.create_task(_find_obstacle(self.bridge))
        if (problem := await asyncio.shield(self._tried)) is not None:
            return Standing(NetworkMode.USER, problem.brief, problem.hint or "")
        return standing

    def explain(self, vm: VmRecord) -> Standing:
        return self._networks.explain(vm)


async def _find_obstacle(bridge: BridgeNetwork) -> Problem | None:
    try:
        served = (await bridge.privileged.call(Hello())).result.owner
        if served != os.getuid():
            return unavailable(f"the root helper serves uid {served}, not {os.getuid()}")
        check_overlap(bridge.plan, (await bridge.privileged.call(ListRoutes())).result.routes)
    except Problem as problem:
        return problem
    return None


@asynccontextmanager
async def open_checks(paths: Paths) -> AsyncIterator[CheckService]:
    """Verdicts of trials are read where they are and written elsewhere."""
    try:
        config, is_known = wiring.read_config(paths), True
    except Problem:  # the check of the configuration says it
        config, is_known = Config(), False

    def list_rows() -> Sequence[VmRecord]:
        found = examine(Path(paths.database), live=False)
        return found.vms if found else ()

    with tempfile.TemporaryDirectory(prefix="banger-doctor-") as place:
        for name in _VERDICTS:
            with suppress(OSError):
                shutil.copyfile(Path(paths.cache) / name, Path(place) / name)
        elsewhere = paths._replace(cache=place)
        root = WaysToRoot(looking=Path(place) / "root.lock")
        try:
            async with wiring.open_vmms(elsewhere, config, root) as vmms, Supervisor() as tasks:
                networks = ClosedNetwork(wiring.open_networks(config, root, tasks))
                adapters = wiring.make_adapters(paths, config, root, vmms, networks)
                material = make_material(adapters, list_rows)
                yield make_checks(adapters, networks, material, list_rows, config_is_known=is_known)
        finally:
            await root.close()


async def examine_host(paths: Paths) -> Findings:
    async with open_checks(paths) as checks:
        return await checks.run(DoctorRun())


def main() -> int:
    try:
        findings = asyncio.run(examine_host(find_paths()))
    except Problem as problem:
        sys.stdout.buffer.write(msgspec.json.encode({"error": problem.as_data()}))
        return problem.code.info.exit_status
    sys.stdout.buffer.write(msgspec.json.encode(findings))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
