"""The doctor beside real guests: it changes nothing, with a daemon and without; and a daemon that begins anew."""

import hashlib
import json
import stat
from pathlib import Path

import pytest

# Memory of SQLite's with the marks of readers, and what the daemon says of its calls.
NOT_COMPARED = ("banger.db-shm", "daemon.log")
_WHOLE_BYTES = 64 * 1024 * 1024


def photograph(*directories):
    """Every file byte for byte, but large ones by what would tell a write to them."""
    found = {}
    for directory in directories:
        for path in sorted(Path(directory).rglob("*")):
            entry = path.lstat()
            if path.name in NOT_COMPARED or stat.S_ISSOCK(entry.st_mode):
                continue
            small = stat.S_ISREG(entry.st_mode) and entry.st_size < _WHOLE_BYTES
            content = hashlib.sha256(path.read_bytes()).hexdigest() if small else entry.st_size
            found[path] = (entry.st_mode, entry.st_uid, entry.st_mtime_ns, content)
    return found


@pytest.fixture
def photographed(banger):
    def take():
        environment = banger.environment
        cache, data = (Path(environment[name]) / "banger" for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"))
        return photograph(banger.state, banger.home / "run", cache, data)

    return take


def find(banger):
    return {
        each["check"]: each
        for each in json.loads(banger.run("doctor", "--json", check=False).stdout)["findings"]
    }


def test_the_doctor_changes_nothing_beside_a_vm_with_a_daemon_and_without(banger, vm, photographed):
    banger.run("vm", "stop", vm)
    banger.run("doctor", check=False)  # what is tried once for all later ones has been tried
    rows = banger.json("vm", "list", "--all")
    before = photographed()
    found = find(banger)
    assert photographed() == before
    assert banger.json("vm", "list", "--all") == rows
    assert {
        each: found[each]["verdict"] for each in ("daemon", "database", "VMs", "leftovers")
    } == dict.fromkeys(("daemon", "database", "VMs", "leftovers"), "pass")
    banger.run("daemon", "stop")
    before = photographed()
    found = find(banger)
    assert photographed() == before
    assert found["daemon"]["text"] == "does not run; it starts when a command needs it"
    assert "1 VM, " in found["database"]["text"]
    assert banger.run("daemon", "status", check=False).returncode == 69
    banger.run("vm", "start", vm)


def test_a_daemon_that_begins_anew_does_not_touch_its_vms(banger, vm):
    boot = banger.guest(vm, "cat", "/proc/sys/kernel/random/boot_id")
    before = banger.json("daemon", "status")["pid"]
    banger.run("daemon", "restart")
    assert banger.json("daemon", "status")["pid"] != before
    assert banger.guest(vm, "cat", "/proc/sys/kernel/random/boot_id") == boot
    banger.run("daemon", "stop", "--keep-vms")
    assert len(banger.vmm_processes()) == 1
    found = find(banger)
    assert (found["VMs"]["verdict"], found["leftovers"]["verdict"]) == ("pass", "pass"), found
    assert banger.run("daemon", "status", check=False).returncode == 69
    assert banger.guest(vm, "cat", "/proc/sys/kernel/random/boot_id") == boot


def test_reconcile_finds_nothing_to_do_beside_a_vm_that_runs(banger, vm):
    found = banger.json("daemon", "reconcile")
    assert {part: lines for part, lines in found.items() if lines} == {}


def test_a_directory_that_no_vm_owns_is_found_and_reconciled(banger, vm):
    stray = banger.state / "banger" / "vms" / "0123456789ab"
    stray.mkdir(mode=0o700)
    (stray / "work.img").touch()
    found = find(banger)["leftovers"]
    assert (found["verdict"], found["fix"]) == ("warn", "banger daemon reconcile")
    assert str(stray) in found["text"]
    assert stray.exists()
    swept = banger.json("daemon", "reconcile")["swept"]
    assert len(swept) == 1
    assert "0123456789ab" in swept[0]
    assert not stray.exists()
    assert find(banger)["leftovers"]["verdict"] == "pass"
