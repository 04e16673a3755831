"""The helper's own code on jails: jailer, Firecracker, cgroups of version 2, in a lab that knows nothing of banger.

Each `call` is a helper of its own, so what one has launched is what the next has found.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.conftest import need_lab
from tests.lab.machine import Machine
from tests.support.banger import DATA, ROOT, make_material
from tests.support.firecracker import build_mini_guest

from banger.installation.helper_archive import render_archive

PROGRAM = Path(__file__).parent / "inside" / "jails.py"
ARCHIVE = "/run/banger-root.pyz"
VM, OTHER, THIRD = "0123456789ab", "ba9876543210", "0000aaaa1111"
UID = 0x70000000 + int(VM, 16) % 0xFFE0000
MIB = 1 << 20
GONE = [("remove", VM), ("remove", OTHER), ("remove", THIRD), ("detach", VM), ("left",)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Machine]:
    from tools.lab.stages import ensure_booted_state
    from tools.lab.states import open_lab

    need_lab()
    make_material("lab")
    kernel = build_mini_guest(tmp_path_factory.mktemp("mini")).read_bytes()
    lab = open_lab(ensure_booted_state(DATA / "banger"))
    try:
        machine = Machine(lab)
        machine.put(ARCHIVE, render_archive(ROOT / "src" / "banger", "/usr/bin/python3"))
        machine.put("/run/jails.py", PROGRAM.read_bytes())
        machine.put("/home/alice/kernel", kernel, user="alice")
        machine.put("/home/alice/initramfs", b"070701", user="alice")
        machine.sh(
            "mkdir -p /usr/local/lib/banger/firecracker\n"
            "cp -r /home/payload/firecracker/1.12.1 /usr/local/lib/banger/firecracker/"
        )
        yield machine
    finally:
        lab.close()


@pytest.fixture(autouse=True)
def files(lab: Machine) -> Iterator[None]:
    """Disks of alice's. Nothing is left of the test afterwards."""
    names = " ".join(f"disk-{vm}" for vm in (VM, OTHER, THIRD))
    lab.sh(
        f"cd /home/alice; rm -f image layer console-* {names}; truncate -s 1M {names}; truncate -s 16M image layer;"
        f"for disk in {names} image; do printf 'first\\n' | dd of=$disk conv=notrunc status=none; done;"
        f"chown alice: image layer {names}"
    )
    yield
    assert call(lab, *GONE)[-1] == []


def ask(lab: Machine, *calls: tuple[object, ...]) -> list[dict[str, object]]:
    argv = ("python3", "-I", "-S", "/run/jails.py", ARCHIVE)
    return json.loads(lab.run(*argv, stdin=json.dumps(calls).encode(), timeout_s=300).out)


def call(lab: Machine, *calls: tuple[object, ...]) -> list[object]:
    """None of them is refused."""
    return [answer["returned"] for answer in ask(lab, *calls)]


def test_this_host_has_what_it_takes(lab):
    (support,) = call(lab, ("inspect",))
    assert (support["jail_reason"], support["jail_hint"]) == ("", "")
    assert support["firecracker"] == "/usr/local/lib/banger/firecracker/1.12.1/firecracker"
    assert support["firecracker_version"] == "1.12.1"


def test_a_jailed_guest_runs_and_its_limits_are_in_force(lab):
    launched, _, said = call(lab, ("launch", VM, ["file"]), ("boot", VM, 1), ("say", VM, "READ 0"))
    assert said == "first"
    pid = launched["pid"]
    (seen,) = call(lab, ("look", VM, pid))
    assert seen == {
        "Uid": "\t".join([str(UID)] * 4),
        "Gid": "\t".join([str(UID)] * 4),
        "CapEff": "0" * 16,
        "CapBnd": seen["CapBnd"],
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "cgroup": f"0::/banger/{VM}",
        "memory.max": str((64 + 128) * MIB),
        "pids.max": "64",
        "own root": True,
        "mounts": 1,
        "zombies": [],
    }
    died, forked = call(lab, ("exhaust_memory", VM, 256), ("exhaust_processes", VM))
    assert died == -signal.SIGKILL
    assert 32 < forked < 64
    (listed,) = call(lab, ("list_all",))
    assert listed == [{"vm": VM, "pid": pid, "start_time": launched["start_time"], "uid": UID}]
    assert call(lab, ("say", VM, "still here")) == ["still here"]


def test_a_vmm_killed_from_outside_leaves_a_jail_that_can_be_removed_or_used_again(lab):
    (launched,) = call(lab, ("launch", VM, ["file"]))
    call(lab, ("signal_vmm", launched["pid"], launched["start_time"], signal.SIGKILL))
    lab.sh(f"while [ -d /proc/{launched['pid']} ]; do sleep 0.1; done", timeout_s=60)
    (listed,) = call(lab, ("list_all",))
    assert [(jail["vm"], jail["pid"]) for jail in listed] == [(VM, 0)]
    call(lab, ("launch", VM, ["file"]), ("boot", VM, 1), ("say", VM, "hello"))
    lab.sh(f"kill -9 $(cat /sys/fs/cgroup/banger/{VM}/cgroup.procs)")
    call(lab, ("remove", VM))
    assert call(lab, ("left",)) == [[]]


def test_three_at_once_and_the_abandoned_one_is_taken_away(lab):
    for vm in (VM, OTHER, THIRD):
        call(lab, ("launch", vm, ["file"]), ("boot", vm, 1))
    assert [call(lab, ("say", vm, vm)) for vm in (VM, OTHER, THIRD)] == [[VM], [OTHER], [THIRD]]
    lab.sh(f"kill -9 $(cat /sys/fs/cgroup/banger/{OTHER}/cgroup.procs)")
    lab.sh(f"while grep -q 'populated 1' /sys/fs/cgroup/banger/{OTHER}/cgroup.events; do sleep 0.1; done")
    _, listed = call(lab, ("remove_abandoned",), ("list_all",))
    assert sorted(jail["vm"] for jail in listed) == sorted((VM, THIRD))
    assert not lab.sh(f"ls -d /sys/fs/cgroup/banger/{OTHER} || true", check=False)
    assert call(lab, ("say", VM, "hello")) == ["hello"]


def test_a_second_launch_is_refused(lab):
    launched, second = ask(lab, ("launch", VM), ("launch", VM))
    pid = launched["returned"]["pid"]
    assert (second["refused"], second["hint"]) == ("conflict", f"ps -fp {pid}")


@pytest.mark.parametrize(
    "step", ["prepare", "stage_file", "stage_disk", "stage_sockets", "LaunchedVmm", "add"]
)
def test_a_helper_killed_at_any_step_leaves_what_the_next_finds_and_removes(lab, step):
    argv = ("python3", "-I", "-S", "/run/jails.py", ARCHIVE)
    calls = json.dumps([("launch_and_die_after", step, VM)]).encode()
    assert lab.run(*argv, stdin=calls, check=False).status == -signal.SIGKILL
    listed, _, left = call(lab, ("list_all",), ("remove", VM), ("left",))
    assert [jail["vm"] for jail in listed] == [VM]
    assert left == []


def test_a_vmm_launched_by_a_helper_that_died_cannot_be_settled_but_removed(lab):
    call(lab, ("launch", VM, ["file"]))
    refused, left = ask(lab, ("settle", VM), ("remove", VM))
    assert refused["refused"] == "not_found"
    assert left == {"returned": None}


def test_a_snapshot_is_a_disk_of_the_jail_and_in_use_as_long_as_its_vmm_lives(lab):
    calls = [
        ("attach", VM, 32 * MIB),
        ("launch", VM, ["snapshot", "file"]),
        ("nodes", VM),
        ("boot", VM, 2),
        ("nodes", VM),
    ]
    *_, staged, _, settled = call(lab, *calls)
    assert staged == {"disk0": f"banger-{VM}", "disk1": f"/home/alice/disk-{VM}"}
    assert settled == {}
    assert call(lab, ("say", VM, "READ 0"), ("say", VM, "WRITE 0 changed")) == ["first", "WRITE 0 changed"]
    (refused,) = ask(lab, ("detach", VM))
    assert refused["refused"] == "conflict"
    call(lab, ("remove", VM), ("detach", VM))
    assert lab.sh("head -c 5 /home/alice/image") == "first"


def test_a_snapshot_that_is_not_attached_is_refused_and_nothing_is_left(lab):
    refused, left = ask(lab, ("launch", VM, ["snapshot"]), ("left",))
    assert refused["refused"] == "not_found"
    assert left == {"returned": []}


def test_a_place_without_devices_is_no_place_for_jails(lab):
    lab.sh("mkdir -p /var/lib/banger-root; mount -t tmpfs -o nodev,noexec none /var/lib/banger-root")
    try:
        (support,) = call(lab, ("inspect",))
        refused, *_ = ask(lab, ("launch", VM))
    finally:
        lab.sh("umount /var/lib/banger-root")
    assert support["jail_reason"].startswith("/var/lib/banger-root is mounted nodev,noexec")
    assert "mount -o remount,dev,exec /var/lib/banger-root" in support["jail_hint"]
    assert refused["refused"] == "unavailable"
