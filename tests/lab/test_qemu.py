"""banger as alice has installed it, driving QEMU on KVM: bridge, names, data that stays, nothing left over."""

import pytest
from tools.lab.channel import ChannelError

POOL = 4  # taps that wait for VMs


def parked(traces: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without what belongs to a daemon that has no VMs: its processes, its bridge, its taps, its tables, its files."""
    taps = [name for name in traces["links"] if name.startswith("bng-")]
    assert len(taps) == POOL
    daemons = [line for line in traces["processes"] if "banger-root" in line or "banger.daemon" in line]
    assert len(daemons) == 2
    own = {
        "links": {"br-banger", *taps},
        "processes": set(daemons),
        "tables": {"bridge banger", "inet banger"},
        "files": set(traces["files"]),
    }
    rest = {kind: sorted(set(found) - own.get(kind, set())) for kind, found in traces.items()}
    return {kind: found for kind, found in rest.items() if found}


@pytest.fixture(scope="module")
def web(lab):
    lab.banger("vm", "create", "--name", "web")
    yield "web"
    lab.banger("vm", "delete", "--force", "web")


def test_both_units_run_and_the_installation_is_whole(lab):
    state = lab.json("system", "status")
    assert state["problems"] == []
    assert state["units"] == {"banger-root.service": "active", "banger.service": "active"}
    assert {file["state"] for file in state["files"]} == {"intact"}
    assert state["forwarding"] is True
    assert lab.sh("systemctl is-system-running").strip() == "running"
    assert lab.sh("systemctl is-enabled banger banger-root").split() == ["enabled", "enabled"]


def test_one_command_in_a_vm_of_its_own(lab):
    done = lab.banger("vm", "run", "--rm", "--", "uname", "-a")
    assert done.stdout.startswith("Linux ")
    assert done.stdout.split()[1] != "lab"
    assert lab.banger("vm", "run", "--rm", "--", "sh", "-c", "exit 42", check=False).status == 42
    assert parked(lab.traces()) == {}


def test_doctor_finds_nothing_but_the_missing_builder(lab, web):
    """The lab has no way to a mirror, so mmdebstrap is not in it; images came with the payload."""
    done = lab.banger("doctor", "--json", check=False)
    verdicts = {finding["check"]: finding["verdict"] for finding in lab.parse(done)["findings"]}
    assert {name for name, verdict in verdicts.items() if verdict != "pass"} == {"image tools"}
    assert done.status == 69
    assert "a probe guest ran on KVM" in done.stdout


def test_a_vm_runs_on_kvm_and_has_an_address_on_the_bridge(lab, web):
    shown = lab.json("vm", "show", web)
    posture, address = shown["posture"], shown["vm"]["address"]
    assert (posture["backend"], posture["accelerator"], posture["network_mode"]) == ("qemu", "kvm", "bridge")
    assert address.startswith("10.209.0.")
    assert f"{address}/24" in lab.guest(web, "ip", "-4", "-o", "addr", "show", "scope", "global")
    lab.run("ping", "-c", "1", "-W", "5", address)
    assert lab.sh(f"getent hosts {web}.vm").split() == [address, f"{web}.vm"]  # through systemd-resolved
    assert lab.banger("vm", "ssh", web, "--", "hostname").stdout == f"{web}\n"


def test_the_vmm_belongs_to_the_owner_and_is_confined(lab, web):
    pid = lab.json("vm", "show", web)["vm"]["runtime"]["pid"]
    status = dict(line.split(":\t", 1) for line in lab.sh(f"cat /proc/{pid}/status").splitlines())
    assert status["Uid"].split() == ["1000"] * 4
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["CapEff"], 16) == 0


def test_data_outlives_a_stop_and_a_start(lab, web):
    lab.guest(web, "sh", "-c", "echo kept > /root/note; sync")
    address = lab.json("vm", "show", web)["vm"]["address"]
    lab.banger("vm", "stop", web)
    assert lab.json("vm", "show", web)["vm"]["state"] == "stopped"
    lab.banger("vm", "start", web)
    assert lab.guest(web, "cat", "/root/note") == "kept\n"
    assert lab.json("vm", "show", web)["vm"]["address"] == address


def test_a_vmm_killed_from_outside_is_told_cleaned_and_started_again(lab, web):
    lab.run("kill", "-KILL", str(lab.json("vm", "show", web)["vm"]["runtime"]["pid"]))
    lab.wait_banger("vm", "list", "--all", "--json", holds=lambda done: '"state": "error"' in done.stdout)
    assert not [line for line in lab.traces()["processes"] if "qemu-system" in line]
    lab.banger("vm", "start", web)
    assert lab.guest(web, "cat", "/root/note") == "kept\n"


def test_a_vm_outlives_a_restart_of_helper_and_daemon(lab, web):
    pid = lab.json("vm", "show", web)["vm"]["runtime"]["pid"]
    lab.banger("system", "restart", sudo=True)
    assert lab.json("vm", "show", web)["vm"]["runtime"]["pid"] == pid
    assert lab.guest(web, "hostname") == f"{web}\n"


def test_a_killed_daemon_comes_back_to_its_vm(lab, web):
    runtime = lab.json("vm", "show", web)["vm"]["runtime"]
    lab.sh("kill -KILL $(systemctl show banger --property=MainPID --value)")
    lab.wait_banger("ps", holds=lambda done: done.status == 0)
    again = lab.json("vm", "show", web)["vm"]["runtime"]
    assert (again["pid"], again["tap"]) == (runtime["pid"], runtime["tap"])
    assert lab.guest(web, "hostname") == f"{web}\n"


def test_somebody_else_reaches_nothing_of_it(lab, web):
    for socket in ("/run/banger/daemon.sock", "/run/banger-root/root.sock"):
        program = f"import socket; socket.socket(socket.AF_UNIX).connect({socket!r})"
        with pytest.raises(ChannelError, match="PermissionError"):
            lab.python(program, user="bob")
