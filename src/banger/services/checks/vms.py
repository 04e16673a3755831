"""Can every VM that is on record start again, and does every VM run that is said to?"""

from pathlib import Path

from banger.api.system import Finding
from banger.model.vm import LIVE, VmRecord, VmState
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned
from banger.vmm.identity import find_start_time

_NAME = "VMs"


async def check(around: CheckSurroundings) -> Finding:
    """The worst comes first: one that lies about itself, one that cannot start, one whose last run went wrong."""
    rows = around.list_rows()
    gone = [vm for vm in rows if _has_gone(vm)]
    stuck = [(vm, what) for vm in rows if (what := _find_missing(vm, around)) is not None]
    broken = [vm for vm in rows if vm.state is VmState.ERROR]
    if gone:
        return failed(_NAME, f"said to run, but no process does: {_join(gone)}", "banger daemon reconcile")
    if stuck:
        said = "; ".join(f"{vm.name} cannot start: {what}" for vm, what in stuck)
        return failed(_NAME, said, _plan_rescue(stuck[0][0], around))
    if broken:
        said = "; ".join(f"{vm.name}: {(vm.error or {}).get('message', 'no reason')}" for vm in broken)
        return warned(_NAME, f"in state error: {said}", f"banger vm start {_join(broken, ' ')}")
    running = sum(1 for vm in rows if vm.state in LIVE)
    return passed(_NAME, f"{len(rows)}, running {running}; all have what they start from")


def _has_gone(vm: VmRecord) -> bool:
    """By pid and start time: a number alone may be anybody's by now."""
    if vm.state is not VmState.RUNNING or vm.runtime is None:
        return False
    return find_start_time(vm.runtime.pid) != vm.runtime.start_time


def _find_missing(vm: VmRecord, around: CheckSurroundings) -> str | None:
    if vm.state in LIVE or not vm.prepared:
        return None
    if _has_lost_image(vm, around):
        return f"its root disk stands on {vm.image_directory}, a build of {vm.spec.image} that is gone"
    if (place := _find_lost_root(vm, around)) is not None:
        return f"its root disk is gone from {place}"
    if not (around.kernels / vm.spec.kernel).is_dir():
        return f"its kernel {vm.spec.kernel} is gone"
    return None


def _has_lost_image(vm: VmRecord, around: CheckSurroundings) -> bool:
    is_lost = vm.image_directory != "" and not Path(vm.image_directory).is_dir()
    return is_lost and around.storage.get(vm.root_driver).stands_on_image


def _find_lost_root(vm: VmRecord, around: CheckSurroundings) -> Path | None:
    """Where its root disk should be: a file of the VM's own, whichever driver made it."""
    place = Path(around.paths.state) / "vms" / vm.id
    return None if any(place.glob("root.*")) else place


def _plan_rescue(vm: VmRecord, around: CheckSurroundings) -> str:
    """A kernel comes back by its name. A root disk does not, and no other build of an image can take the place of the
    one that it stands on: what can be saved of such a VM is its work disk."""
    if not _has_lost_image(vm, around) and _find_lost_root(vm, around) is None:
        return f"banger kernel pull {vm.spec.kernel}"
    delete = f"banger vm delete {vm.name}"
    if not vm.has_work_disk:
        return delete
    return f"cp --sparse=always {around.paths.state}/vms/{vm.id}/work.img {vm.name}-work.img && {delete}"


def _join(vms: list[VmRecord], between: str = ", ") -> str:
    return between.join(vm.name for vm in vms)
