"""`banger system …` where systemd does not run, as in a container: in the foreground, or started with --start."""

import json

from tests.host.installation.interpreter import ALICE
from tests.host.installation.test_systemd import list_files, status


def test_without_start_it_prints_what_to_run_and_runs_nothing(plain_machine):
    done = plain_machine.banger("system", "install", "--owner", "alice")
    assert (
        f"/usr/local/lib/banger/banger-root --owner {ALICE} --socket /run/banger-root/root.sock"
        in done.stdout
    )
    assert status(plain_machine)["helper"]["pid"] is None
    done = plain_machine.alices_banger("ps", check=False)
    assert (done.returncode, done.stderr.splitlines()[1]) == (69, "hint: sudo banger system restart")
    plain_machine.banger("system", "uninstall")
    assert list_files(plain_machine) == []


def test_started_they_run_until_they_are_uninstalled(plain_machine):
    done = plain_machine.banger("system", "install", "--owner", "alice", "--start")
    assert "run in the background" in done.stdout
    state = status(plain_machine)
    assert (state["problems"], state["units"]) == ([], None)
    assert state["helper"]["build"] == state["helper"]["ours"]
    pids = {state["helper"]["pid"]: "0", state["daemon"]["pid"]: str(ALICE)}
    assert {pid: plain_machine.status(pid)["Uid"].split()[0] for pid in pids} == pids
    assert plain_machine.alices_banger("ps").returncode == 0
    doctor = json.loads(plain_machine.alices_banger("doctor", "--json").stdout)
    network = next(each for each in doctor["findings"] if each["check"] == "network")
    assert network["verdict"] == "pass", network

    plain_machine.banger("system", "restart")
    later = status(plain_machine)
    assert later["problems"] == []
    assert not {later["helper"]["pid"], later["daemon"]["pid"]} & set(pids)

    plain_machine.banger("system", "install", "--start")  # the owner is known
    assert status(plain_machine)["problems"] == []
    plain_machine.banger("system", "uninstall", "--purge", "--yes")
    assert list_files(plain_machine) == []
    assert plain_machine.run("find", "/home/alice", "-name", "banger").stdout == ""
    assert "br-banger" not in plain_machine.run("ip", "-o", "link").stdout
    left = plain_machine.run("ps", "-eo", "stat=,args=").stdout.splitlines()
    assert [line for line in left if "banger" in line and not line.startswith("Z")] == []


def test_a_helper_that_does_not_come_up_is_explained(plain_machine):
    plain_machine.run("mkdir", "-m", "0777", "/run/banger-root")
    done = plain_machine.banger("system", "install", "--owner", "alice", "--start", check=False)
    assert done.returncode == 77
    assert "banger: everybody may write to /run/banger-root" in done.stderr
    plain_machine.run("chmod", "0755", "/run/banger-root")
    plain_machine.run("mkdir", "/run/banger-root/root.sock")
    done = plain_machine.banger("system", "install", "--start", check=False)
    assert done.returncode == 69
    assert "banger-root" in done.stderr
    assert "hint: look into /run/banger-root/helper.log" in done.stderr
