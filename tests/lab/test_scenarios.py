"""banger as alice has installed it, on Firecracker and on QEMU with KVM: what every VM does, and nothing left over.

The tests of a lab build upon each other, because a boot takes ten seconds in there.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.lab.machine import CGROUPS, JAILS, Machine
from tests.lab.outside import HOST, INTERNET, NAME, REACH, open_outside
from tools.lab.channel import ChannelError

EXPECTED = {  # backend, storage driver
    "firecracker": ("firecracker", "dm-snapshot"),
    "qemu": ("qemu", "qcow2"),
}


@pytest.fixture(scope="module")
def web(host: Machine) -> Iterator[str]:
    with open_outside(host):
        host.banger("vm", "create", "--name", "web", "--nat")
        yield "web"


def status_of(host: Machine, pid: int) -> dict[str, str]:
    lines = host.sh(f"cat /proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def remains_of(host: Machine, vm: dict[str, Any]) -> list[str]:
    """What a VM that has ended still has on the host, but for its own files."""
    return [
        f"{kind}: {line}"
        for kind, found in host.traces().items()
        for line in found
        if kind not in {"vms", "sockets"} and (vm["id"] in line or vm["runtime"]["tap"] == line)
    ]


def kill_vmm(host: Machine, vm: dict[str, Any]) -> None:
    host.run("kill", "-KILL", str(vm["runtime"]["pid"]))


def test_one_command_in_a_vm_of_its_own(host: Machine):
    before = host.leftovers()
    done = host.banger("vm", "run", "--rm", "--", "sh", "-c", "uname -a; exit 42", check=False)
    assert done.status == 42, str(done)
    assert done.stdout.startswith("Linux ")
    assert done.stdout.split()[1] != "lab"
    assert host.leftovers() == before == {}


def test_a_vm_runs_on_kvm_and_has_an_address_on_the_bridge(host: Machine, web: str):
    shown = host.json("vm", "show", web)
    posture, address = shown["posture"], shown["vm"]["address"]
    assert (posture["backend"], shown["vm"]["root_driver"]) == EXPECTED[host.vmm]
    assert (posture["accelerator"], posture["network_mode"]) == ("kvm", "bridge")
    assert posture["storage_driver"].startswith(EXPECTED[host.vmm][1])
    assert address.startswith("10.209.0.")
    assert f"{address}/24" in host.guest(web, "ip", "-4", "-o", "addr", "show", "scope", "global")
    host.run("ping", "-c", "1", "-W", "5", address)
    assert host.sh(f"getent hosts {web}.vm").split() == [address, f"{web}.vm"]  # through systemd-resolved
    assert host.banger("vm", "ssh", web, "--", "hostname").stdout == f"{web}\n"


def test_nat_leads_outside_and_so_do_names(host: Machine, web: str):
    assert host.guest(web, "python3", "-c", REACH) == f"outside sees {HOST}\n"
    assert host.guest(web, "getent", "hosts", NAME).split()[0] == INTERNET


def test_the_vmm_is_confined(host: Machine, web: str):
    vm = host.vm(web)
    status = status_of(host, vm["runtime"]["pid"])
    uid = 0x70000000 + int(vm["id"], 16) % 0xFFE0000 if host.vmm == "firecracker" else 1000
    assert status["Uid"].split() == [str(uid)] * 4
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["CapEff"], 16) == 0


def test_data_outlives_a_stop_and_a_start(host: Machine, web: str):
    vm, boot_id = host.vm(web), host.boot_id(web)
    host.guest(web, "sh", "-c", "echo root > /etc/note; echo home > /root/note; sync")
    host.banger("vm", "stop", web)
    assert host.vm(web)["state"] == "stopped"
    assert remains_of(host, vm) == []
    host.banger("vm", "start", web)
    assert host.guest(web, "cat", "/etc/note", "/root/note") == "root\nhome\n"
    assert host.vm(web)["address"] == vm["address"]
    assert host.boot_id(web) != boot_id


def test_a_vm_outlives_a_restart_of_helper_and_daemon(host: Machine, web: str):
    runtime, boot_id = host.vm(web)["runtime"], host.boot_id(web)
    host.banger("system", "restart", sudo=True)
    again = host.vm(web)["runtime"]
    assert (again["pid"], again["tap"]) == (runtime["pid"], runtime["tap"])
    assert host.boot_id(web) == boot_id


def test_killed_helper_and_daemon_come_back_to_their_vm(host: Machine, web: str):
    runtime, boot_id = host.vm(web)["runtime"], host.boot_id(web)
    for unit in ("banger-root", "banger"):
        host.sh(f"kill -KILL $(systemctl show {unit} --property=MainPID --value)")
    host.wait_state(web, "running")
    again = host.vm(web)["runtime"]
    assert (again["pid"], again["tap"]) == (runtime["pid"], runtime["tap"])
    assert host.boot_id(web) == boot_id


def test_of_three_vms_one_is_killed_from_outside_told_cleaned_and_started_again(host: Machine, web: str):
    boot_id = host.boot_id(web)
    creating = [host.start_banger("vm", "create", "--name", name) for name in ("blue", "green")]
    for creation in creating:
        done = creation.wait()
        assert done.status == 0, str(done)
    host.guest("green", "sh", "-c", "echo kept > /root/note; echo kept > /etc/note; sync")
    green = host.vm("green")
    kill_vmm(host, green)
    failed = host.wait_state("green", "error")
    told = failed["error"]["message"]
    assert "SIGKILL" in told or "by a signal" in told, told  # which one, only a parent knows
    assert remains_of(host, green) == []
    assert host.guest("blue", "hostname") == "blue\n"
    assert host.boot_id(web) == boot_id
    host.banger("vm", "start", "green")
    assert host.guest("green", "cat", "/root/note", "/etc/note") == "kept\nkept\n"


@pytest.mark.parametrize(("name", "verb"), [("blue", "poweroff"), ("green", "reboot")])
def test_a_guest_that_powers_off_or_reboots_by_itself_is_stopped(
    host: Machine, web: str, name: str, verb: str
):
    """The default image has systemd, and none of the names of old. The agent answers before systemd is there to be
    asked; sshd does not."""
    vm = host.vm(name)
    host.banger("vm", "ssh", name, "--", "true")
    host.banger("vm", "exec", name, "--", "systemctl", verb, check=False)
    stopped = host.wait_state(name, "stopped")
    assert stopped["error"] is None
    assert remains_of(host, vm) == []


def test_somebody_else_reaches_nothing_of_it(host: Machine, web: str):
    for socket in ("/run/banger/daemon.sock", "/run/banger-root/root.sock"):
        program = f"import socket; socket.socket(socket.AF_UNIX).connect({socket!r})"
        with pytest.raises(ChannelError, match="PermissionError"):
            host.python(program, user="bob")


def test_a_killed_vm_can_be_deleted_and_nothing_of_all_is_left(host: Machine, web: str):
    vm = host.vm(web)
    host.banger("vm", "kill", web)
    assert host.vm(web)["state"] == "stopped"
    assert remains_of(host, vm) == []
    host.banger("vm", "delete", web, "blue", "green")
    assert host.leftovers() == {}
    assert host.sh(f"ls {CGROUPS} 2>/dev/null | grep -v '\\.' || true") == ""
    assert host.sh(f"ls -A {JAILS} 2>/dev/null || true") == ""
