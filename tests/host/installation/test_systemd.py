"""`banger system …` where systemd really is PID 1: the units start in their sandbox, and do their work in it."""

import json
import sqlite3
import subprocess
import time

import pytest
from tests.host.installation.interpreter import ALICE, find_python
from tests.support.banger import DATA, make_material
from tests.support.firecracker import get_firecracker

UNITS = ("banger-root.service", "banger.service")
# CHOWN DAC_OVERRIDE, KILL SETGID SETUID, NET_BIND_SERVICE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN, MKNOD
CAPABILITIES = 0b11 | 0b111 << 5 | 1 << 10 | 1 << 12 | 1 << 19 | 1 << 21 | 1 << 27


def install(machine, *flags):
    return machine.banger("system", "install", "--owner", "alice", *flags)


def status(machine):
    return json.loads(machine.banger("system", "status", "--json", check=False).stdout)


def main_pid(machine, unit):
    return int(machine.run("systemctl", "show", unit, "--property=MainPID", "--value").stdout)


def give_ids(machine):
    """What adduser(8) does by itself."""
    for path in ("/etc/subuid", "/etc/subgid"):
        machine.run("sh", "-c", f"echo alice:1000000:65536 >> {path}")


def list_files(machine):
    found = machine.run(
        "find", "/etc", "/usr/local", "/run/banger", "/run/banger-root", "-path", "*banger*", check=False
    )
    return sorted(found.stdout.split())


def test_install_status_upgrade_uninstall(machine):
    done = install(machine)
    assert done.stdout.splitlines()[-1] == (
        "banger-root.service and banger.service run; the daemon of alice answers"
    )
    state = status(machine)
    assert state["problems"] == []
    assert state["units"] == dict.fromkeys(UNITS, "active")
    assert {file["state"] for file in state["files"]} == {"intact"}
    helper = state["helper"]
    assert helper["build"] == helper["installed"] == helper["ours"]
    assert state["forwarding"] is True
    assert machine.banger("system", "status").returncode == 0
    assert machine.alices_banger("system", "status").returncode == 0  # the owner may look, too

    again = install(machine)
    assert "replaced" not in again.stdout
    assert status(machine)["daemon"]["pid"] != state["daemon"]["pid"]

    assert machine.run("systemctl", "is-enabled", *UNITS).stdout.split() == ["enabled", "enabled"]
    until = time.monotonic() + 30
    while "br-banger" not in machine.run("ip", "-o", "link").stdout:
        assert time.monotonic() < until
        time.sleep(0.1)
    machine.banger("system", "uninstall")
    assert list_files(machine) == []
    assert not machine.at("/var/lib/banger-root").exists()
    assert "br-banger" not in machine.run("ip", "-o", "link").stdout
    assert machine.run("nft", "list", "ruleset").stdout == ""
    assert "banger" not in machine.run("systemctl", "list-unit-files", "--no-pager").stdout
    assert machine.run("systemctl", "list-units", "--failed", "--no-legend", "--no-pager").stdout == ""


def test_each_process_has_the_rights_that_its_unit_names(machine):
    install(machine)
    helper = machine.status(main_pid(machine, UNITS[0]))
    assert (helper["Uid"].split()[0], helper["NoNewPrivs"], helper["Seccomp"]) == ("0", "1", "2")
    assert {int(helper[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {CAPABILITIES}
    daemon = machine.status(main_pid(machine, UNITS[1]))
    assert (daemon["Uid"].split(), daemon["NoNewPrivs"], daemon["Seccomp"]) == ([str(ALICE)] * 4, "1", "2")
    assert {int(daemon[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    for path, mode, uid in (
        ("/run/banger", "700", ALICE),
        ("/run/banger-root", "755", 0),
        ("/var/lib/banger-root", "700", 0),
    ):
        assert machine.run("stat", "--format=%a %u", path).stdout == f"{mode} {uid}\n"
    assert machine.run("stat", "--format=%a %u", "/run/banger-root/root.sock").stdout == f"600 {ALICE}\n"


ASK = """
import json, subprocess, sys
from banger.installation.answers import ask_helper
from banger.client.wire import Failure
from banger.privileged.contract import network, processes
from banger.vmm.identity import find_start_time

victim = subprocess.Popen(["sleep", "600"], user=4242, group=4242)
script = "echo; exec sleep 600"
keeper = subprocess.Popen(["unshare", "--user", "sh", "-c", script], user=4242, group=4242, stdout=subprocess.PIPE)
keeper.stdout.readline()
bridge = "br-bangerx"
asked = {
    "bridge": network.EnsureBridge(bridge=bridge, address="10.209.0.1/24"),
    "dns": network.OpenDns(bridge=bridge),
    "signal": processes.SignalVmm(pid=victim.pid, start_time=find_start_time(victim.pid), signal=9),
    "map": processes.MapIds(pid=keeper.pid, start_time=find_start_time(keeper.pid)),
}
outcomes = {}
for name, request in asked.items():
    try:
        ask_helper("/run/banger-root/root.sock", 0, request)
        outcomes[name] = "done"
    except Failure as failure:
        outcomes[name] = failure.code
outcomes["maps"] = [open(f"/proc/{keeper.pid}/{name}_map").read().split()[4:] for name in ("uid", "gid")]
keeper.kill()
keeper.wait()
if outcomes["signal"] != "done":
    victim.kill()
outcomes["ended by"] = -victim.wait()
print(json.dumps(outcomes))
"""
DONE = {"bridge": "done", "dns": "done", "signal": "done", "map": "done"}


@pytest.mark.parametrize(
    ("missing", "fails"),
    [
        (None, set()),
        ("CAP_NET_ADMIN", {"bridge", "dns"}),  # without a bridge there is no address for DNS
        ("CAP_NET_BIND_SERVICE", {"dns"}),
        ("CAP_KILL", {"signal"}),
        ("CAP_SETUID", {"map"}),
        ("CAP_SETGID", {"map"}),
        ("CAP_CHOWN", None),  # the helper does not come up
    ],
)
def test_every_capability_of_the_network_is_needed(machine, missing, fails):
    give_ids(machine)
    install(machine)
    machine.run("systemctl", "stop", "banger")  # its bridge would be in the way
    if missing:
        machine.run("mkdir", "/etc/systemd/system/banger-root.service.d")
        change = f"[Service]\nCapabilityBoundingSet=~{missing}\nRestart=no\n"
        machine.at("/etc/systemd/system/banger-root.service.d/less.conf").write_text(change)
        machine.run("systemctl", "daemon-reload")
    started = machine.run("systemctl", "restart", "banger-root", check=False).returncode == 0
    assert started is (fails is not None)
    if started:
        found = json.loads(machine.run(find_python(), "-c", ASK).stdout)
        assert {name for name, done in DONE.items() if found[name] != done} == fails
        assert (found["ended by"] == 9) or "signal" in fails
        mapped = ["1000000", "65535"] if "map" not in fails else []
        assert found["maps"] == [mapped, mapped]


INSPECT = """
import json
from dataclasses import asdict
from banger.installation.answers import ask_helper
from banger.privileged.contract.machines import InspectMachines

print(json.dumps(asdict(ask_helper("/run/banger-root/root.sock", 0, InspectMachines()))))
"""


def test_firecracker_is_set_up_and_found_by_the_helper_in_its_sandbox(machine):
    """Whether it has jails here is for what this kernel has; which program it would run is not."""
    programs = get_firecracker()
    machine.run("mkdir", "/run/brought")
    for program in programs:
        machine.run("tee", f"/run/brought/{program.name}", input=program.read_bytes(), text=False)
    install(machine)
    done = machine.banger("setup", "firecracker", "--from", "/run/brought")
    assert done.stdout.splitlines()[-1].startswith("next: sudo banger system restart")
    assert machine.banger("setup", "firecracker").stdout.startswith("Firecracker 1.12.1 was already in ")
    machine.banger("system", "restart")
    found = json.loads(machine.run(find_python(), "-c", INSPECT).stdout)
    assert found["jail_reason"] == "" or found["jail_hint"]
    version = machine.run("/usr/local/lib/banger/firecracker/1.12.1/firecracker", "--version").stdout
    assert version.startswith("Firecracker v1.12.1")
    machine.banger("system", "uninstall")
    assert any("firecracker" in path for path in list_files(machine))
    install(machine)
    machine.banger("system", "uninstall", "--purge", "--yes")
    assert list_files(machine) == []


def test_the_daemon_sees_no_home_but_its_owners(machine):
    machine.run("mkdir", "-m", "0755", "/home/bob")
    machine.run("sh", "-c", "echo secret > /home/bob/file; chmod 644 /home/bob/file")
    install(machine)
    daemon = main_pid(machine, UNITS[1])
    inside = (
        "nsenter",
        f"--target={daemon}",
        "--mount",
        "setpriv",
        f"--reuid={ALICE}",
        f"--regid={ALICE}",
        "--clear-groups",
    )
    assert machine.run(*inside, "ls", "/home").stdout == "alice\n"
    machine.run(*inside, "touch", "/home/alice/file", "/tmp/file")
    helper = ("nsenter", f"--target={main_pid(machine, UNITS[0])}", "--mount")
    assert machine.run(*helper, "ls", "/home").stdout == ""
    assert machine.run(*helper, "sh", "-c", "echo 1 > /proc/sys/kernel/panic", check=False).returncode != 0
    for path in ("/etc/file", "/usr/file", "/root/file", "/var/lib/file"):
        assert machine.run(*helper, "touch", path, check=False).returncode != 0, path


def test_an_owner_whose_daemon_is_down_is_told_so_and_gets_no_second_one(machine):
    install(machine)
    assert (
        json.loads(machine.alices_banger("daemon", "status", "--json").stdout)["socket"]
        == "/run/banger/daemon.sock"
    )
    machine.run("systemctl", "stop", "banger")
    for remove in (True, False):
        done = machine.alices_banger("ps", check=False)
        assert (done.returncode, done.stderr) == (
            69,
            "banger: the daemon that the system runs for you is down\nhint: sudo systemctl start banger\n",
        )
        if remove:
            machine.run("rm", "-r", "/run/banger")  # as after a boot at which it did not start
    machine.run("systemctl", "start", "banger")
    machine.banger("system", "restart")
    assert machine.alices_banger("ps").returncode == 0


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_killed_comes_back(machine, unit):
    install(machine)
    former = main_pid(machine, unit)
    machine.run("kill", "-9", str(former))
    until = time.monotonic() + 30
    while main_pid(machine, unit) in (0, former) or status(machine)["problems"]:
        assert time.monotonic() < until, status(machine)
        time.sleep(0.1)


def test_a_process_of_a_vm_outlives_restart_and_upgrade(machine):
    """KillMode=process, by a stand-in for a VMM in the daemon's control group."""
    install(machine)
    group = "/sys/fs/cgroup/system.slice/banger.service/cgroup.procs"
    pid = int(machine.run("sh", "-c", f"sleep 600 >/dev/null 2>&1 & echo $! > {group}; echo $!").stdout)
    machine.banger("system", "restart")
    install(machine)
    machine.run("systemctl", "restart", *UNITS)
    assert machine.status(pid)["Name"] == "sleep"
    assert "banger.service" in machine.at(f"/proc/{pid}/cgroup").read_text()


def test_a_daemon_that_does_not_come_up_is_explained(machine):
    machine.run("mkdir", "-p", "/etc/banger")
    machine.at("/etc/banger/config.toml").write_text("nonsense = 1\n")
    done = machine.banger("system", "install", "--owner", "alice", check=False)
    assert done.returncode == 69
    assert "banger: banger.service is failed and does not answer" in done.stderr
    assert "/etc/banger/config.toml:1: nonsense" in done.stderr  # out of the journal
    assert "hint: journalctl -u banger.service" in done.stderr
    state = status(machine)
    assert state["finished"] is False
    machine.at("/etc/banger/config.toml").write_text("")
    install(machine)
    assert status(machine)["finished"] is True


@pytest.mark.parametrize("after_s", [0.25, 0.45, 0.6, 0.75, 0.9])
def test_an_installation_that_was_killed_is_completed_or_removed(machine, after_s):
    argv = (
        "timeout",
        "--signal=KILL",
        str(after_s),
        *machine.program,
        "system",
        "install",
        "--owner",
        "alice",
    )
    machine.run(*argv, check=False)
    install(machine)
    assert status(machine)["problems"] == []
    machine.banger("system", "uninstall")
    assert list_files(machine) == []
    machine.run(*argv, check=False)
    machine.banger("system", "uninstall", check=False)  # it may have been killed before anything was there
    assert list_files(machine) == []


@pytest.mark.timeout(900)
def test_a_vm_outlives_the_daemon_and_is_stopped_in_order_with_the_host(machine):
    make_material("host")
    machine.run("mkdir", "-p", "/home/alice/.local/share")
    machine.run("cp", "-a", "--sparse=always", str(DATA / "banger"), "/home/alice/.local/share/banger")
    machine.run("chown", "-R", f"{ALICE}:{ALICE}", "/home/alice")
    install(machine)
    machine.alices_banger("vm", "create", "--name", "a", "--memory", "256M")
    details = json.loads(machine.alices_banger("vm", "show", "a", "--json").stdout)
    assert details["posture"]["network_mode"] == "bridge"
    boot_id = machine.alices_banger("vm", "exec", "a", "--", "cat", "/proc/sys/kernel/random/boot_id").stdout
    done = machine.banger("system", "uninstall", check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (75, "banger: 1 of alice's VMs runs")
    machine.banger("system", "restart")
    install(machine)
    command = "cat /proc/sys/kernel/random/boot_id; echo unsynced > /root/note"
    assert machine.alices_banger("vm", "exec", "a", "--", "sh", "-c", command).stdout == boot_id
    machine.poweroff()
    journal = subprocess.run(
        [
            "journalctl",
            f"--directory={machine.upper}/var/log/journal",
            "--unit=banger",
            "--output=cat",
            "--no-pager",
        ],
        capture_output=True,
        text=True,
    ).stdout
    assert "shutting down" in journal
    assert "remains running after unit stopped" not in journal.rpartition("shutting down")[2]
    database = machine.upper / "home/alice/.local/state/banger/banger.db"
    assert sqlite3.connect(database).execute("SELECT name, state FROM vms").fetchall() == [("a", "stopped")]
