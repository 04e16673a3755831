"""How an end is judged from what is left."""

import pytest

from banger.vmm.exits import judge_exit


@pytest.mark.parametrize(
    ("known", "clean", "reason"),
    [
        ({"reason": "guest-shutdown", "status": 0}, True, "power-off"),
        ({"reason": "guest-reset", "status": 0}, True, "reboot"),
        ({"reason": "guest-reset", "panic": "Fatal exception"}, False, "kernel panic: Fatal exception"),
        ({"reason": "guest-panic"}, False, "kernel panic"),
        ({"reason": "guest-shutdown", "killed": True}, True, "power-off"),
        ({"killed": True}, False, "killed"),
        ({"killed": True, "status": -9}, False, "killed"),
        ({"status": -9}, False, "ended by SIGKILL"),
        ({"status": 1}, False, "the VMM failed with status 1"),
        ({"reason": "host-signal", "status": 0}, False, "ended by the host (host-signal)"),
        ({"last_words": "[ 9.1] reboot: Power down\n"}, True, "power-off"),
        ({"last_words": "[ 9.1] reboot: Restarting system\n"}, True, "reboot"),
        ({}, False, "ended unobserved"),
    ],
)
def test_an_end_is_named(known, clean, reason):
    defaults = {"reason": None, "status": None, "killed": False, "panic": None, "last_words": ""}
    verdict = judge_exit(**(defaults | known))
    assert (verdict.clean, verdict.reason) == (clean, reason)


def test_a_bus_error_is_explained_as_a_full_file_system():
    verdict = judge_exit(reason=None, status=-7, killed=False, panic=None, last_words="")
    assert "SIGBUS" in verdict.reason
    assert "full" in verdict.reason
