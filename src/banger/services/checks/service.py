"""Runs the checks, all at once, in the order in which they are listed.

A check that raises or hangs is a finding of its own: the doctor is called when things are wrong, and so may not fail.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from banger.api.system import DoctorRun, Finding, Findings
from banger.base.problem import Problem
from banger.model.vm import VmRecord
from banger.services.checks import (
    acceleration,
    clock,
    configuration,
    daemon,
    database,
    disk_space,
    firecracker,
    forwarding,
    guest_program,
    image_tools,
    installation,
    jail,
    leftovers,
    material,
    memory,
    names,
    network,
    own_posture,
    root_helper,
    root_programs,
    ssh_client,
    storage,
    stored_files,
    vmm,
    vms,
)
from banger.services.checks.contract import Check, CheckSurroundings, failed, warned

CHECKS: dict[str, Check] = {
    "daemon": daemon.check,
    "configuration": configuration.check,
    "database": database.check,
    "clock": clock.check,
    "vmm": vmm.check,
    "acceleration": acceleration.check,
    "firecracker": firecracker.check,
    "jail": jail.check,
    "storage": storage.check,
    "guest program": guest_program.check,
    "image tools": image_tools.check,
    "kernel and image": material.check,
    "stored files": stored_files.check,
    "disk space": disk_space.check,
    "memory": memory.check,
    "VMs": vms.check,
    "leftovers": leftovers.check,
    "ssh client": ssh_client.check,
    "network": network.check,
    "forwarding": forwarding.check,
    "names": names.check,
    "own posture": own_posture.check,
    "root helper": root_helper.check,
    "root programs": root_programs.check,
    "installation": installation.check,
}
# What these find depends on what the configuration says, and so does what VMs can have.
_BY_CONFIG = frozenset(
    {
        "vmm",
        "acceleration",
        "firecracker",
        "jail",
        "storage",
        "kernel and image",
        "network",
        "forwarding",
        "names",
        "root helper",
    }
)
DEADLINE_S = 20.0
_log = logging.getLogger(__name__)


class _Unread(Exception):
    """There are no rows to go by. The check of the database says why, and no other one does."""


def _read_rows(list_rows: Callable[[], Sequence[VmRecord]]) -> Sequence[VmRecord]:
    try:
        return list_rows()
    except Problem as problem:
        raise _Unread from problem


class CheckService:
    def __init__(
        self,
        around: CheckSurroundings,
        others: Mapping[str, Callable[[], Awaitable[Finding]]] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """`others` are the checks of what VMs can have. The deadline is each check's."""
        looking = around._replace(list_rows=partial(_read_rows, around.list_rows))
        self._checks = {name: partial(check, looking) for name, check in CHECKS.items()} | dict(others or {})
        self._unlooked = frozenset() if around.config_is_known else _BY_CONFIG | set(others or {})
        self._deadline_s = deadline_s

    async def run(self, request: DoctorRun) -> Findings:
        return Findings(findings=await asyncio.gather(*(self._one(name) for name in self._checks)))

    async def _one(self, name: str) -> Finding:
        if name in self._unlooked:
            return warned(name, "not looked at: the configuration cannot be read")
        return await self._look(name)

    async def _look(self, name: str) -> Finding:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._checks[name]()
        except TimeoutError:
            return failed(name, f"no answer within {self._deadline_s:g} s")
        except _Unread:
            return warned(name, "not looked at: the database cannot be read")
        except Problem as problem:
            return failed(name, problem.brief, problem.hint)
        except OSError as error:
            return failed(name, str(error))
        except Exception as error:  # noqa: BLE001 (whatever a check stumbles over is what its finding says)
            _log.warning("a check could not be made", extra={"check": name}, exc_info=True)
            return failed(name, f"the check could not be made: {error!r}")
