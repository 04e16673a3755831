"""The host is reset, as by its button, in the middle of everything: what it knows then, and what still works.

Nothing on it is ended in order, or written out by anybody but who asked for it: a guest that says `sync`.
"""

from typing import Any

import pytest
from tests.lab.machine import Machine
from tests.lab.outside import HOST, NAME, REACH, open_outside
from tests.lab.traps import lay_traps, start_standstill
from tools.lab.channel import ChannelError

RUNNING, IDLE, DOOMED = ("jailed", "plain"), "idle", "doomed"
WRITE = "echo root > /etc/note; echo home > /root/note; sync"
NOTES = ("cat", "/etc/note", "/root/note")
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MEMORY = ("--memory", "256M")


@pytest.fixture(scope="module")
def rebooted(lab: Machine) -> dict[str, Any]:
    """VMs by name, as they are after the reset: two ran, one of them on QEMU, one was stopped, one was being made."""
    lab.configure('vmm = "qemu"\n')
    lab.banger("vm", "create", *MEMORY, "plain")
    lab.configure("")
    lay_traps(lab)
    for name in ("idle", "jailed"):
        lab.banger("vm", "create", *MEMORY, *(("--nat",) if name == "jailed" else ()), name)
    lab.guest("idle", "sh", "-c", WRITE)
    lab.banger("vm", "stop", "idle")
    making = start_standstill(lab, "after clone_sparse work.img 1")
    lab.start_banger("vm", "create", *MEMORY, DOOMED)
    assert making.wait().stdout == "reached\n"
    for name in RUNNING:
        lab.guest(name, "sh", "-c", WRITE)
    before = lab.sh(f"cat {BOOT_ID}")
    lab.lab.reset()
    assert lab.sh(f"cat {BOOT_ID}") != before
    up = lab.run("systemctl", "is-system-running", "--wait", check=False)
    assert up.stdout == "running\n", lab.sh("systemctl --failed --no-legend")
    lab.wait_ready()
    return {vm["name"]: vm for vm in lab.json("vm", "list", "--all")["vms"]}


def test_the_list_tells_the_truth(lab: Machine, rebooted: dict[str, Any]):
    assert {name: vm["state"] for name, vm in rebooted.items()} == dict.fromkeys((*RUNNING, IDLE), "stopped")
    assert [lab.vm(name)["error"] for name in rebooted] == [None] * 3
    assert lab.json("vm", "list")["vms"] == []
    operations = lab.json("operation", "list", "--all")["operations"]
    assert {each["state"] for each in operations} <= {"succeeded", "failed", "cancelled"}
    assert [each["state"] for each in operations if each["subject"] == DOOMED] == ["failed"]


def test_nothing_is_left_but_what_the_vms_own(lab: Machine, rebooted: dict[str, Any]):
    vms = lab.wait_clean()
    assert lab.leftovers().keys() <= {"vms", "sockets"}
    assert all(vm["holds"] == [] for vm in vms)


def test_everything_starts_again_and_the_data_is_there(lab: Machine, rebooted: dict[str, Any]):
    lab.banger("vm", "start", *rebooted)
    for name in rebooted:
        assert lab.guest(name, *NOTES) == "root\nhome\n", name
    backends = {name: lab.vm(name)["runtime"]["backend"] for name in rebooted}
    assert backends == {"jailed": "firecracker", "idle": "firecracker", "plain": "qemu"}


def test_names_and_nat_work(lab: Machine, rebooted: dict[str, Any]):
    with open_outside(lab):
        for name in rebooted:
            address = lab.vm(name)["address"]
            assert lab.sh(f"getent hosts {name}.vm").split() == [address, f"{name}.vm"]
        assert lab.guest("jailed", "python3", "-c", REACH) == f"outside sees {HOST}\n"
        assert lab.guest("jailed", "getent", "hosts", NAME)
        with pytest.raises(ChannelError, match="ended with"):
            lab.guest("idle", "python3", "-c", REACH)


def test_a_new_vm_can_be_made_and_all_go_without_a_trace(lab: Machine, rebooted: dict[str, Any]):
    lab.banger("vm", "create", *MEMORY, DOOMED)
    assert lab.guest(DOOMED, "hostname") == f"{DOOMED}\n"
    lab.banger("vm", "delete", "--force", DOOMED, *rebooted)
    assert lab.leftovers() == {}
    assert "Traceback" not in lab.sh("journalctl --boot --unit=banger --unit=banger-root --output=cat")
