"""What this host has for VMs that root takes part in, found by trying."""

from collections.abc import Callable

from banger.privileged.contract.machines import MachineSupport
from banger.privileged.contract.values import Refusal
from banger.privileged.helper.jail_place import jail_obstacle
from banger.privileged.helper.refusals import translate
from banger.privileged.helper.snapshots import verify_snapshots
from banger.privileged.helper.vmm_programs import find_vmm_programs


def inspect_machines() -> MachineSupport:
    snapshot_reason, snapshot_hint = find_obstacle(verify_snapshots)
    jail_reason, jail_hint = jail_obstacle()
    firecracker, version = _find_firecracker()
    return MachineSupport(
        snapshot_reason=snapshot_reason,
        snapshot_hint=snapshot_hint,
        jail_reason=jail_reason,
        jail_hint=jail_hint,
        firecracker=firecracker,
        firecracker_version=version,
    )


def find_obstacle(verify: Callable[[], None]) -> tuple[str, str]:
    """Reason and hint; both empty when it works."""
    try:
        verify()
    except (Refusal, OSError) as error:
        refusal = error if isinstance(error, Refusal) else translate(error)
        return refusal.message, refusal.hint
    return "", ""


def _find_firecracker() -> tuple[str, str]:
    """Path and version. Why there is none is told by the jail's reason."""
    try:
        programs = find_vmm_programs()
    except Refusal:
        return "", ""
    return programs.firecracker, programs.version
