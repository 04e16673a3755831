"""How a Firecracker ended, judged from its status, its log and its guest's last words. Pure.

Its status says little: 0 is a reset that the guest asked for, and often a triple fault, too. It has no power-off; a
guest ends by a reset (reboot=k), and what it meant by it is on its console. One that powers off halts (`consoles`).
"""

import re

from banger.vmm.contract import Exit
from banger.vmm.exits import POWER_OFF, UNKNOWN, judge_exit

_BY_SIGNAL = "ended by a signal: from outside, or by the kernel for want of memory"
_CRASH = re.compile(r"Received KVM_EXIT_(\w+) signal")
_STATUS = re.compile(r"exit_code=(\d+)")


def judge_ending(
    *, status: int | None, killed: bool, halted: bool, panic: str | None, last_words: str, log: str
) -> Exit:
    """`status` as for `judge_exit`; for a process that is no child of ours the log may name it. `halted`: the guest had
    powered off, and its VMM was ended for that."""
    found = _STATUS.findall(log)
    if status is None and found:
        status = int(found[-1])
    crash = _CRASH.search(log)
    ended_itself = status is not None and status >= 0
    if ended_itself and panic is None and crash is not None:
        what = "a triple fault" if crash[1] == "SHUTDOWN" else f"KVM_EXIT_{crash[1]}"
        return Exit(clean=False, reason=f"the guest crashed: {what}")
    if halted and not killed and not ended_itself and panic is None:
        return Exit(clean=True, reason=POWER_OFF)
    verdict = judge_exit(
        reason=None, status=status, killed=killed and not ended_itself, panic=panic, last_words=last_words
    )
    if verdict.reason == UNKNOWN and status is None and log:  # one that ends itself says so
        return Exit(clean=False, reason=_BY_SIGNAL)
    return verdict
