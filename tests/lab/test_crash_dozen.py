"""A dozen and a few points at which daemon, helper or VMM are killed, with real jails, snapshots and taps.

`box` has data and runs throughout, but for the tests about its own stop; `doomed` is what is being made or removed.
After each death: the host has what the records say and no more, data and boots are as they were, and what is there
starts. The points' names are those of tests/support/load/traps.py, the results go into the table of
docs/reference/crash-matrix.md.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.lab.machine import Machine
from tests.lab.traps import DAEMON, HELPER, VMM, Trap, lay_traps
from tests.support.load.matrix import BY_RECONCILE, FAILED, GONE, OTHER, SAME, STOPPED, Found, write_results

BOX, DOOMED = "box", "doomed"
SETTLED = {"created": STOPPED, "stopped": STOPPED, "error": FAILED, "running": OTHER}
MEMORY = ("--memory", "256M")
READ = ("cat", "/proc/sys/kernel/random/boot_id", "/etc/note", "/root/note")


class Crash(NamedTuple):
    """`call` is what is under way; `ends` is how the VM that it is about may be found."""

    operation: str
    killed: str
    point: str
    call: tuple[str, ...]
    ends: frozenset[str]

    @property
    def vm(self) -> str:
        return self.call[-1]


CREATE = ("vm", "create", *MEMORY, "--publish", "8080:80", DOOMED)
UNMADE, MADE = frozenset({GONE}), frozenset({GONE, STOPPED, FAILED, OTHER})
CRASHES = (
    Crash("create", DAEMON, "after clone_sparse work.img 1", CREATE, UNMADE),
    Crash("create", DAEMON, "after helper.attach_snapshot 1", CREATE, MADE),
    Crash("create", DAEMON, "after helper.admit_guest 1", CREATE, MADE),
    Crash("create", DAEMON, "before helper.launch_vmm 1", CREATE, MADE),
    Crash("create", DAEMON, "after helper.launch_vmm 1", CREATE, MADE),
    Crash("create", DAEMON, "begin stage 'boot guest' 1", CREATE, MADE),
    Crash("create", DAEMON, "before save row of the VM (running) 1", CREATE, MADE),
    Crash("create", HELPER, "attach_snapshot", CREATE, UNMADE),
    Crash("create", HELPER, "launch_vmm", CREATE, UNMADE),
    Crash("create", HELPER, "settle_vmm", CREATE, UNMADE),
    Crash("create", VMM, "begin stage 'boot guest' 1", CREATE, UNMADE),
    Crash("set nat", DAEMON, "after helper.admit_guest 1", ("vm", "set", "--nat", BOX), frozenset({SAME})),
    Crash("stop", DAEMON, "before vmm.stop 1", ("vm", "stop", BOX), frozenset({STOPPED})),
    Crash("stop", DAEMON, "after vmm.stop 1", ("vm", "stop", BOX), frozenset({STOPPED})),
    Crash(
        "delete --force", DAEMON, "before helper.remove_jail 1", ("vm", "delete", "--force", DOOMED), UNMADE
    ),
    Crash(
        "delete --force", DAEMON, "after helper.remove_jail 1", ("vm", "delete", "--force", DOOMED), UNMADE
    ),
)


class Box:
    """What `box` must still be."""

    def __init__(self, lab: Machine) -> None:
        self._lab = lab
        lab.banger("vm", "create", *MEMORY, BOX)
        lab.guest(BOX, "sh", "-c", "echo root > /etc/note; echo home > /root/note; sync")
        self.content = lab.guest(BOX, *READ)

    @property
    def boot_id(self) -> str:
        return self.content.split()[0]

    def verify(self) -> list[str]:
        """Started where it is stopped. Says what is wrong."""
        runtime = self._lab.vm(BOX)["runtime"]
        if runtime is None:
            self._lab.banger("vm", "start", BOX)
            before, self.content = self.content, self._lab.guest(BOX, *READ)
            return [] if self.content.split()[1:] == before.split()[1:] else [f"data: {self.content}"]
        content = self._lab.guest(BOX, *READ)
        return [] if content == self.content else [f"{content} instead of {self.content}"]


@pytest.fixture(scope="module")
def box(lab: Machine) -> Box:
    lay_traps(lab)
    return Box(lab)


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str], list[Found]]]:
    found: dict[tuple[str, str], list[Found]] = defaultdict(list)
    yield found
    for (operation, killed), points in found.items():
        write_results("lab", "jailed", operation, killed, points)


@pytest.mark.parametrize(
    "crash", CRASHES, ids=lambda crash: f"{crash.operation}-{crash.killed}-{crash.point}"
)
def test_a_death_leaves_nothing_and_loses_nothing(lab: Machine, box: Box, results, crash: Crash):
    if crash.call[1] == "delete":
        lab.banger(*CREATE)
    trap = Trap(lab, crash.killed, crash.point)
    calling = lab.start_banger(*crash.call)
    trap.wait()
    done = calling.wait()
    assert "Traceback" not in done.stderr, str(done)
    lab.wait_ready()
    outcome, problems = look(lab, box, crash)
    point = f"during helper.{crash.point} 1" if crash.killed == HELPER else crash.point
    results[crash.operation, crash.killed].append(Found(point, outcome, problems))
    assert problems == [], str(done)
    assert outcome.removesuffix(BY_RECONCILE) in crash.ends, str(done)


def look(lab: Machine, box: Box, crash: Crash) -> tuple[str, list[str]]:
    """How the VM was found, and what is wrong. Afterwards there is `box` alone, and it runs."""
    wait_settled(lab)
    mended = crash.killed == HELPER and is_upset(lab)
    if mended:  # what a helper that dies leaves is written down, and given back at the next chance
        lab.wait_banger("daemon", "reconcile", holds=lambda done: done.status == 0)
    vms = {vm["name"]: vm for vm in lab.wait_clean()}
    outcome = judge(vms.get(crash.vm), box) + (BY_RECONCILE if mended else "")
    problems = [] if not (log := read_bugs(lab)) else [log]
    problems += box.verify()
    if DOOMED in vms:
        if vms[DOOMED]["state"] != "running":
            lab.banger("vm", "start", DOOMED)
        if lab.guest(DOOMED, "hostname") != f"{DOOMED}\n":
            problems.append(f"{DOOMED} does not answer as itself")
        lab.banger("vm", "delete", "--force", DOOMED)
    problems += verify_nat(lab, vms[BOX])
    assert [vm["name"] for vm in lab.wait_clean()] == [BOX]
    return outcome, problems


def wait_settled(lab: Machine) -> None:
    """Until no VM is on its way."""
    lab.wait_banger(
        *("vm", "list", "--all", "--json"),
        holds=lambda done: all(vm["state"] in SETTLED for vm in lab.parse(done)["vms"]),
        timeout_s=120,
    )


def is_upset(lab: Machine) -> bool:
    vms = lab.list_vms()
    return any(vm["removing"] for vm in vms) or lab.leftovers(*vms) != {}


def judge(vm: dict[str, Any] | None, box: Box) -> str:
    if vm is None:
        return GONE
    if vm["name"] == BOX and vm["runtime"] and vm["runtime"]["boot_id"] == box.boot_id:
        return SAME
    return SETTLED[vm["state"]]


def verify_nat(lab: Machine, vm: dict[str, Any]) -> list[str]:
    """The firewall's word and the record's are one."""
    has = any(" nat " in line and vm["address"] in line for line in lab.traces().get("elements", ()))
    return (
        []
        if has == vm["spec"]["nat"]
        else [f"NAT is {has} on the host and {vm['spec']['nat']} in the record"]
    )


def read_bugs(lab: Machine) -> str:
    return lab.sh(
        "journalctl --boot --unit=banger --unit=banger-root --output=cat | grep -m 1 -A 20 Traceback || true"
    )


def test_and_the_last_vm_goes_without_a_trace(lab: Machine, box: Box):
    lab.banger("vm", "delete", "--force", BOX)
    assert lab.leftovers() == {}
