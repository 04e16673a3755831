"""How a VMM ended, judged from what is left of it. Pure."""

import signal

from banger.vmm.contract import Exit

POWER_OFF = "power-off"
REBOOT = "reboot"
KILLED = "killed"
UNKNOWN = "ended unobserved"

_WORDS = {POWER_OFF: "the guest powered off", REBOOT: "the guest rebooted, which ends a VM here"}
_BY_GUEST = {"guest-shutdown": POWER_OFF, "guest-reset": REBOOT}


def judge_exit(
    *, reason: str | None, status: int | None, killed: bool, panic: str | None, last_words: str
) -> Exit:
    """`reason` is the monitor's word, `status` as waitpid gives it through Python (negative: a signal), None
    for adopted processes; `killed` says that we did it; `last_words` is the end of the serial log.

    A guest that ended by itself just before it was killed ended cleanly.
    """
    if panic is not None or reason == "guest-panic":
        return Exit(clean=False, reason=f"kernel panic: {panic}" if panic else "kernel panic")
    if status is not None and status < 0:
        return Exit(clean=False, reason=KILLED if killed else _render_signal(-status))
    if reason in _BY_GUEST:
        return Exit(clean=True, reason=_BY_GUEST[reason])
    if killed:
        return Exit(clean=False, reason=KILLED)
    if reason is not None:
        return Exit(clean=False, reason=f"ended by the host ({reason})")
    return _judge_unobserved(status, last_words)


def explain_end(exit_: Exit) -> str:
    """In words for people why a VM is stopped that nobody asked to stop; empty where something went wrong."""
    return _WORDS.get(exit_.reason, "") if exit_.clean else ""


def _judge_unobserved(status: int | None, last_words: str) -> Exit:
    if status:
        return Exit(clean=False, reason=f"the VMM failed with status {status}")
    if "reboot: Power down" in last_words:
        return Exit(clean=True, reason=POWER_OFF)
    if "reboot: Restarting system" in last_words:
        return Exit(clean=True, reason=REBOOT)
    return Exit(clean=False, reason=UNKNOWN)


def _render_signal(number: int) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGBUS:
        return f"ended by {name}: the file system that holds the guest's memory or disk is full"
    return f"ended by {name}"
