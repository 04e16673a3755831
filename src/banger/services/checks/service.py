"""Runs the checks, all at once, in the order in which they are listed."""

import asyncio

from banger.api.system import DoctorRun, Finding, Findings
from banger.base.problem import Problem
from banger.services.checks import (
    acceleration,
    disk_space,
    firecracker,
    forwarding,
    guest_program,
    image_tools,
    jail,
    material,
    memory,
    names,
    network,
    own_posture,
    root_helper,
    ssh_client,
    storage,
    vmm,
)
from banger.services.checks.contract import Check, CheckSurroundings, failed

CHECKS: dict[str, Check] = {
    "vmm": vmm.check,
    "acceleration": acceleration.check,
    "firecracker": firecracker.check,
    "jail": jail.check,
    "storage": storage.check,
    "guest program": guest_program.check,
    "image tools": image_tools.check,
    "kernel and image": material.check,
    "disk space": disk_space.check,
    "memory": memory.check,
    "ssh client": ssh_client.check,
    "network": network.check,
    "forwarding": forwarding.check,
    "names": names.check,
    "own posture": own_posture.check,
    "root helper": root_helper.check,
}


class CheckService:
    def __init__(self, around: CheckSurroundings) -> None:
        self._around = around

    async def run(self, request: DoctorRun) -> Findings:
        return Findings(findings=await asyncio.gather(*(self._one(name) for name in CHECKS)))

    async def _one(self, name: str) -> Finding:
        """A check that cannot be made is a finding, too."""
        try:
            return await CHECKS[name](self._around)
        except (Problem, OSError) as error:
            hint = error.hint if isinstance(error, Problem) else None
            return failed(name, str(error), hint)
