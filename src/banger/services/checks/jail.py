"""Does Firecracker run in a jail here: a uid, a root and a control group of its own for each VM?"""

import os
import shlex

from banger.api.system import Finding
from banger.privileged.contract.machines import InspectMachines
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned

_NAME = "jail"


async def check(around: CheckSurroundings) -> Finding:
    """Root is asked what it can do, which it tries; the daemon's own rights say nothing about it."""
    config = around.config
    if config.vmm == "qemu":
        return passed(_NAME, "not used: QEMU runs as you, in its own seccomp sandbox")
    if not config.jailer_enabled:
        return warned(
            _NAME,
            "Firecracker runs as you, unjailed: the configuration says jailer_enabled = false",
            f"{_edit(around)} && {around.start_anew}",
        )
    if around.privileged is None:
        return passed(_NAME, "not used: Firecracker needs root's help, and VMs run on QEMU without")
    support = (await around.privileged.call(InspectMachines())).result
    if not support.jail_reason:
        version = f"Firecracker {support.firecracker_version}, {support.firecracker}"
        return passed(_NAME, f"a uid, a root and a control group for each VM ({version})")
    judge = failed if config.vmm == "firecracker" else warned
    return judge(_NAME, f"Firecracker cannot be jailed: {support.jail_reason}", support.jail_hint or None)


def _edit(around: CheckSurroundings) -> str:
    """The line goes; who may write to the file is seen now."""
    file = around.paths.config_file
    sudo = "" if os.access(file, os.W_OK) else "sudo "
    return f"{sudo}sed -i '/^ *jailer_enabled/d' {shlex.quote(file)}"
