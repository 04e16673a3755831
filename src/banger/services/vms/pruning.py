"""Removing what does not run, in bulk. Owns no state; each VM goes under its own lock."""

import logging
from collections.abc import Callable

from banger.api.vm import Pruned, PruneVerdict, VmDetails, VmPrune
from banger.base.problem import Problem
from banger.model.pruning import judge_prune
from banger.model.vm import VmRecord
from banger.services.moment import read_moment
from banger.services.vms.lifecycle import Lifecycle
from banger.services.vms.rows import Rows

_log = logging.getLogger(__name__)


async def prune(
    request: VmPrune, rows: Rows, life: Lifecycle, describe: Callable[[VmRecord], VmDetails]
) -> Pruned:
    now = read_moment()
    verdicts = []
    for listed in rows.list():
        if rows.has_work(listed.id):
            why = "somebody is changing it right now"
            verdicts.append(PruneVerdict(id=listed.id, name=listed.name, goes=False, why=why))
            continue
        async with rows.locked_if_there(listed.id) as vm:
            if vm is None:
                continue
            goes, why = judge_prune(vm, now, labels=request.labels, older_than_s=request.older_than_s)
            use, failed = describe(vm).disk_use, False
            if goes and not request.dry_run:
                try:
                    await life.remove(vm)
                except (Problem, OSError) as error:  # it keeps none of the others
                    goes, failed, why = False, True, f"could not be removed: {error}"
                    _log.warning("a VM stays", extra={"vm": vm.id, "why": why})
            frees = use.root_bytes + use.work_bytes if goes else 0
            verdicts.append(
                PruneVerdict(id=vm.id, name=vm.name, goes=goes, why=why, frees_bytes=frees, failed=failed)
            )
    return Pruned(
        vms=[verdict.name for verdict in verdicts if verdict.goes],
        freed_bytes=sum(verdict.frees_bytes for verdict in verdicts),
        dry_run=request.dry_run,
        verdicts=verdicts,
    )
