"""What a daemon that died has left on the host by way of root: jails and attached root disks that no VM has.

Owns no state: both are found in the kernel, and a daemon is alone with its owner's.
"""

import logging
from collections.abc import Callable

from banger.base.problem import Problem
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.machines import DetachSnapshot, ListJails, ListSnapshots, RemoveJail

_log = logging.getLogger(__name__)


async def remove_leftovers(privileged: Privileged | None, has_owner: Callable[[str], bool]) -> list[str]:
    """What went, in words. `has_owner` is asked just before each removal: a VM may be on its way up.

    Jails first, for who lives in one has its disk open. A host that cannot be asked is no reason not to serve."""
    swept: list[str] = []
    if privileged is None:
        return swept
    try:
        for jail in (await privileged.call(ListJails())).result.jails:
            if not has_owner(jail.vm):
                _log.info("removing a jail that no VM owns", extra={"vm": jail.vm, "pid": jail.pid})
                swept += await _remove(privileged, RemoveJail(vm=jail.vm), f"jail {jail.vm}")
        for snapshot in (await privileged.call(ListSnapshots())).result.snapshots:
            if not has_owner(snapshot.vm):
                _log.info("detaching a root disk that no VM owns", extra={"vm": snapshot.vm})
                swept += await _remove(privileged, DetachSnapshot(vm=snapshot.vm), f"root disk {snapshot.vm}")
    except Problem as problem:
        _log.warning("what may be left of VMs is not looked for", extra={"why": problem.brief})
    return swept


async def _remove(privileged: Privileged, request: RemoveJail | DetachSnapshot, what: str) -> list[str]:
    """One that cannot be removed keeps nobody from the others."""
    try:
        await privileged.call(request)
    except Problem as problem:
        _log.warning("what no VM owns stays", extra={"vm": request.vm, "why": problem.brief})
        return []
    return [what]
