"""Daemon and helper killed while a VM comes into being: after their return nothing is left but what is written down.

What is killed and when is decided by what root sees, in the lab: as soon as the moment has come, it is over with them.
"""

import time

import pytest
from tests.lab.machine import JAILS, Machine

MOMENTS = {
    "the snapshot is there": "ls /sys/block | grep -q dm-",
    "the jail is being furnished": f"ls {JAILS} 2>/dev/null | grep -q .",
    "the VMM runs": "pgrep -x firecracker >/dev/null",
}
CLEAN_S = 60
DAEMON, HELPER = "banger", "banger-root"


def kill_at(lab: Machine, moment: str, victims: tuple[str, ...]) -> None:
    """Their pids are looked up before, for it takes a tenth of a second each."""
    pids = " ".join(lab.sh(f"systemctl show {unit} --property=MainPID --value").strip() for unit in victims)
    script = f"until {MOMENTS[moment]}; do :; done; kill -KILL {pids}"
    watching = lab.start(("sh", "-c", script), timeout_s=60)
    creating = lab.start_banger("vm", "create", "--name", "doomed", "--memory", "256M")
    killed = watching.wait()
    assert killed.status == 0, str(killed)
    creating.wait()


def wait_clean(lab: Machine, *, but: frozenset[str] = frozenset()) -> None:
    """Who comes back looks around first."""
    until = time.monotonic() + CLEAN_S
    while not set(found := lab.leftovers()) <= but:
        assert time.monotonic() < until, found


@pytest.mark.parametrize(
    ("victims", "moment"),
    [
        ((DAEMON,), "the snapshot is there"),
        ((DAEMON,), "the VMM runs"),
        ((HELPER,), "the jail is being furnished"),
        ((DAEMON, HELPER), "the VMM runs"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value.replace(" ", "-"),
)
def test_a_create_that_is_cut_off_leaves_nothing(lab: Machine, victims: tuple[str, ...], moment: str):
    wait_clean(lab)
    kill_at(lab, moment, victims)
    lab.wait_banger("vm", "list", "--all", holds=lambda done: done.status == 0)
    for unit in (DAEMON, HELPER):
        lab.sh(f"until systemctl is-active --quiet {unit}; do sleep 0.2; done", timeout_s=60)
    vms = lab.json("vm", "list", "--all")["vms"]
    if vms:  # its row says what became of it, and it can be had again or deleted
        assert [(vm["name"], vm["state"] in {"stopped", "error", "created", "running"}) for vm in vms] == [
            ("doomed", True)
        ]
        if vms[0]["state"] != "running":
            wait_clean(lab, but=frozenset({"vms", "sockets"}))  # its own directories
        # the daemon may have tried again by itself, and finished the removal
        lab.banger("vm", "delete", "--force", "doomed", check=False)
    wait_clean(lab)


def test_and_the_next_vm_boots(lab: Machine):
    assert lab.banger("vm", "run", "--rm", "--", "hostname", check=False).status == 0
    assert lab.leftovers() == {}
