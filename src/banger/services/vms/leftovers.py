"""What a daemon that died has left on the host by way of root: jails and attached root disks that no VM has.

Owns no state: both are found in the kernel, and a daemon is alone with its owner's.
"""

import logging
from collections.abc import Collection

from banger.base.problem import Problem
from banger.privileged.contract.base import Privileged
from banger.privileged.contract.machines import DetachSnapshot, ListJails, ListSnapshots, RemoveJail

_log = logging.getLogger(__name__)


async def remove_leftovers(privileged: Privileged | None, live: Collection[str]) -> None:
    """Jails first, for who lives in one has its disk open. A host that cannot be asked is no reason not to serve."""
    if privileged is None:
        return
    try:
        for jail in (await privileged.call(ListJails())).result.jails:
            if jail.vm not in live:
                _log.info("removing a jail that no VM owns", extra={"vm": jail.vm, "pid": jail.pid})
                await _remove(privileged, RemoveJail(vm=jail.vm))
        for snapshot in (await privileged.call(ListSnapshots())).result.snapshots:
            if snapshot.vm not in live:
                _log.info("detaching a root disk that no VM owns", extra={"vm": snapshot.vm})
                await _remove(privileged, DetachSnapshot(vm=snapshot.vm))
    except Problem as problem:
        _log.warning("what may be left of VMs is not looked for", extra={"why": problem.brief})


async def _remove(privileged: Privileged, request: RemoveJail | DetachSnapshot) -> None:
    """One that cannot be removed keeps nobody from the others."""
    try:
        await privileged.call(request)
    except Problem as problem:
        _log.warning("what no VM owns stays", extra={"vm": request.vm, "why": problem.brief})
