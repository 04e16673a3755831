"""How a Firecracker ended, judged from its status, its log and its guest's last words. Pure.

Its status says little: 0 is a reset that the guest asked for, and often a triple fault, too. It has no power-off; a
guest ends by a reset (reboot=k), and what it meant by it is on its console.
"""

import re

from banger.vmm.contract import Exit
from banger.vmm.exits import judge_exit

_CRASH = re.compile(r"Received KVM_EXIT_(\w+) signal")
_STATUS = re.compile(r"exit_code=(\d+)")


def judge_ending(*, status: int | None, killed: bool, panic: str | None, last_words: str, log: str) -> Exit:
    """`status` as for `judge_exit`; for an adopted process, which has none, the log may name it."""
    if status is None and (found := _STATUS.findall(log)):
        status = int(found[-1])
    crash = _CRASH.search(log)
    ended_itself = status is not None and status >= 0
    if ended_itself and panic is None and crash is not None:
        what = "a triple fault" if crash[1] == "SHUTDOWN" else f"KVM_EXIT_{crash[1]}"
        return Exit(clean=False, reason=f"the guest crashed: {what}")
    return judge_exit(
        reason=None, status=status, killed=killed and not ended_itself, panic=panic, last_words=last_words
    )
