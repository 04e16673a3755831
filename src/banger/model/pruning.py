"""Which VMs a prune takes, and why each goes or stays. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from banger.base.units import render_duration
from banger.model.moment import Moment, elapsed_s
from banger.model.vm import LIVE, VmRecord, VmState


class Verdict(NamedTuple):
    """`why` in words for people."""

    goes: bool
    why: str


def judge_prune(
    vm: VmRecord, now: Moment, *, labels: Mapping[str, str], older_than_s: float | None
) -> Verdict:
    """A VM goes when it does not run, has all the labels, and nobody has used it for so long."""
    if vm.state in LIVE:
        return Verdict(False, f"it is {vm.state.value}")
    missing = [f"{key}={value}" for key, value in labels.items() if vm.labels.get(key) != value]
    if missing:
        return Verdict(False, f"it has no label {missing[0]}")
    unused_s = elapsed_s(find_last_use(vm), now)
    used = f"used {render_duration(unused_s)} ago"
    if older_than_s is not None and unused_s < older_than_s:
        return Verdict(False, f"it was {used}")
    if vm.state is VmState.CREATED:
        return Verdict(True, f"it was never started, and changed {render_duration(unused_s)} ago")
    if vm.state is VmState.ERROR:
        return Verdict(True, f"it ended unexpectedly, and was {used}")
    return Verdict(True, f"it is {vm.state.value}, {used}")


def find_last_use(vm: VmRecord) -> Moment:
    """When it was last worked with, or else changed: of an older row there is only the clock's word."""
    return vm.touched or Moment(at=vm.updated_at or vm.created_at, host_boot="", uptime_s=0.0)
