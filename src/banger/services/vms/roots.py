"""Root disks of VMs that run: whether the host still has them. Owns no state."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from banger.base.problem import Problem
from banger.storage.choose import Storage
from banger.storage.contract import RootDriver

CHECK_S = 15.0
_log = logging.getLogger(__name__)

End = Callable[[str, RootDriver], Awaitable[None]]


async def watch_roots(storage: Storage, end: End) -> None:
    """For ever. The kernel tells nobody of a snapshot that it has given up: one look for all VMs every now and then,
    and none while no VM has such a root disk. `end` is called with the ids of those that are lost; one that cannot be
    ended is tried again, and the others do not wait for it."""
    while True:
        await asyncio.sleep(CHECK_S)
        try:
            lost = await storage.find_full()
        except Problem as problem:
            _log.warning("root disks cannot be looked at", extra={"why": problem.brief})
            continue
        for vm_id, driver in lost.items():
            try:
                await end(vm_id, driver)
            except (Problem, OSError) as error:
                extra = {"vm": vm_id, "why": str(error)}
                _log.warning("a VM that has lost its root disk cannot be ended yet", extra=extra)
