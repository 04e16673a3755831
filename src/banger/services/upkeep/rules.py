"""Which VMs have come to their end, and why. Pure.

Nothing here believes the host's clock: a VM ends by time that has surely passed (`model/moment.py`).
"""

from banger.base.units import render_duration
from banger.model.moment import Moment, surely_elapsed_s
from banger.model.vm import STARTABLE, VmRecord, VmState
from banger.services.contract import End

GRACE_S = 600.0  # in which whoever was cut off by a reboot, a sleep or a restart of the daemon may come back


def judge_ttl(vm: VmRecord, now: Moment) -> End | None:
    """A VM that was to be temporary goes with its disks, any other is stopped and can be started again."""
    ttl = vm.ttl
    if ttl is None or vm.removing or not _has_end(vm):
        return None
    needed_s = ttl.seconds
    if ttl.since.host_boot != now.host_boot:
        needed_s = max(needed_s, GRACE_S)
    if surely_elapsed_s(ttl.since, now) < needed_s:
        return None
    return End(vm.ephemeral, f"its time to live, {render_duration(ttl.seconds)}, is over")


def _has_end(vm: VmRecord) -> bool:
    return vm.state is VmState.RUNNING or (vm.ephemeral and vm.state in STARTABLE)


def judge_idle(vm: VmRecord, now: Moment, stale_after_s: float, watched_since: Moment) -> End | None:
    """Of a VM in which nothing runs now. Before `watched_since` nobody was there to see whether it was used."""
    if vm.state is not VmState.RUNNING:
        return None
    if surely_elapsed_s(watched_since, now) < min(stale_after_s, GRACE_S):
        return None
    if surely_elapsed_s(vm.touched or watched_since, now) < stale_after_s:
        return None
    return End(False, f"nobody has used it for {render_duration(stale_after_s)} (auto_stop_stale_after)")
