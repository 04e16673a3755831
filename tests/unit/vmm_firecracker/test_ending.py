"""How a Firecracker ended, from status, log and last words."""

import pytest

from banger.vmm.contract import Exit
from banger.vmm.firecracker.ending import judge_ending

OFF, REBOOT = "[ 1.0] reboot: Power down\n", "[ 1.0] reboot: Restarting system\n"
BY_SIGNAL = "ended by a signal: from outside, or by the kernel for want of memory"
DONE = "Firecracker exiting successfully. exit_code=0"
TRIPLE = "[x:fc_vcpu 0] Received KVM_EXIT_SHUTDOWN signal\n"
INTERNAL = "[x:fc_vcpu 0] Received KVM_EXIT_INTERNAL_ERROR signal\n"


@pytest.mark.parametrize(
    ("given", "ended"),
    [
        ({"status": 0, "last_words": OFF}, Exit(True, "power-off")),
        ({"status": 0, "last_words": REBOOT}, Exit(True, "reboot")),
        ({"status": 0}, Exit(False, "ended unobserved")),
        ({"status": 0, "log": TRIPLE}, Exit(False, "the guest crashed: a triple fault")),
        ({"status": 0, "log": TRIPLE, "last_words": OFF}, Exit(False, "the guest crashed: a triple fault")),
        ({"status": 1, "log": INTERNAL}, Exit(False, "the guest crashed: KVM_EXIT_INTERNAL_ERROR")),
        ({"status": 0, "panic": "oops"}, Exit(False, "kernel panic: oops")),
        ({"status": 148}, Exit(False, "the VMM failed with status 148")),
        ({"status": -9}, Exit(False, "ended by SIGKILL")),
        ({"status": -9, "killed": True}, Exit(False, "killed")),
        ({"status": 0, "killed": True, "last_words": OFF}, Exit(True, "power-off")),
        ({"status": None}, Exit(False, "ended unobserved")),
        ({"status": None, "killed": True}, Exit(False, "killed")),
        ({"status": None, "log": DONE, "last_words": OFF}, Exit(True, "power-off")),
        ({"status": None, "log": DONE, "killed": True, "last_words": OFF}, Exit(True, "power-off")),
        ({"status": None, "log": TRIPLE + DONE}, Exit(False, "the guest crashed: a triple fault")),
        ({"status": None, "halted": True}, Exit(True, "power-off")),
        ({"status": -9, "halted": True}, Exit(True, "power-off")),
        ({"status": -9, "halted": True, "killed": True}, Exit(False, "killed")),
        ({"status": -9, "halted": True, "panic": "oops"}, Exit(False, "kernel panic: oops")),
        ({"status": 0, "halted": True, "last_words": REBOOT}, Exit(True, "reboot")),
        ({"status": None, "log": "Running Firecracker v1.12.1\n"}, Exit(False, BY_SIGNAL)),
        ({"status": None, "log": "exit_code=148"}, Exit(False, "the VMM failed with status 148")),
    ],
)
def test_the_verdict(given, ended):
    assert (
        judge_ending(
            **({"killed": False, "halted": False, "panic": None, "last_words": "", "log": ""} | given)
        )
        == ended
    )
