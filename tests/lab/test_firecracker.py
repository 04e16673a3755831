"""What only Firecracker has: its jail, and root disks that are device-mapper snapshots.

The tests build upon each other, because a boot takes ten seconds in there.
"""

import json

import pytest
from tests.lab.machine import BRIDGE, CGROUPS, JAILS, Machine
from tools.lab.channel import ChannelError

MEMORY_MIB = 256
SPARE_MIB = 128  # of a VMM's cgroup, beside the guest's memory
LIMIT_MIB = 64
# Looks from inside of the jail, as the VMM itself would.
LOOK = """
import contextlib, json, os, sys
pid = sys.argv[1]
root = f"/proc/{pid}/root"
opened = set()
for fd in os.listdir(f"/proc/{pid}/fd"):
    with contextlib.suppress(FileNotFoundError):  # closed meanwhile
        opened.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
print(json.dumps({
    "files": sorted(os.path.relpath(os.path.join(where, name), root)
                    for where, _, names in os.walk(root) for name in names),
    "mounts": [line.split()[4] for line in open(f"/proc/{pid}/mountinfo")],
    "own root": os.stat(root).st_ino != os.stat("/").st_ino,
    "own mounts": os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"),
    "cgroup": open(f"/proc/{pid}/cgroup").read().strip(),
    "open": sorted(opened),
}))
"""
STRAY_VM, STRAY_TAP = "0123456789ab", "bng-00c0ffee"
# Somebody flushes the firewall; a tap, a device and a jail are there as a helper that was killed would leave them.
UPSET = f"""
nft delete table inet banger
nft delete table bridge banger
ip tuntap add {STRAY_TAP} mode tap
ip link set {STRAY_TAP} master {BRIDGE}
dmsetup create banger-{STRAY_VM} --uuid BANGER-{STRAY_VM} --table '0 8 zero'
mkdir -p {JAILS}/{STRAY_VM}/root/s
"""
# The image's Python is a minimal one, without a server.
SERVER = """
import socket
with socket.create_server(("", 8000)) as server:
    while True:
        with server.accept()[0] as caller:
            caller.recv(4096)
            caller.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nserved\\n")
"""
PROGRAMS = "for pid in $(cat {}); do if readlink /proc/$pid/exe >/dev/null; then echo $pid; fi; done"
FILL = "dd if=/dev/zero of=/var/fill bs=1M count=200 conv=fsync"


@pytest.fixture(scope="module")
def box(lab: Machine) -> str:
    lab.banger("vm", "create", "--name", "box", "--memory", f"{MEMORY_MIB}M")
    return "box"


def verdicts(lab: Machine) -> dict[str, tuple[str, str]]:
    findings = lab.parse(lab.banger("doctor", "--json", check=False))["findings"]
    return {finding["check"]: (finding["verdict"], finding["text"]) for finding in findings}


def test_the_installation_is_whole(lab: Machine):
    state = lab.json("system", "status")
    assert state["problems"] == []
    assert state["units"] == {"banger-root.service": "active", "banger.service": "active"}
    assert {file["state"] for file in state["files"]} == {"intact"}
    assert state["forwarding"] is True
    assert lab.sh("systemctl is-system-running").strip() == "running"
    assert lab.sh("systemctl is-enabled banger banger-root").split() == ["enabled", "enabled"]


def test_firecracker_is_set_up_and_a_second_time_says_so(lab: Machine):
    again = lab.banger("setup", "firecracker", sudo=True)
    assert "already" in again.stdout + again.stderr
    assert lab.sh("stat -c '%U %a' /usr/local/lib/banger/firecracker/*/*").split() == ["root", "755"] * 2


def test_doctor_finds_nothing_but_the_missing_builder(lab: Machine, box: str):
    """The lab has no way to a mirror, so mmdebstrap is not in it; images came with the payload. Its clock was set when
    it was restored, which the doctor would say of a daemon from before that."""
    lab.banger("system", "restart", sudo=True)
    for _ in range(3):  # a lab that stalls may be late with a probe
        found = verdicts(lab)
        wrong = {name: said for name, said in found.items() if said[0] != "pass"}
        if wrong.keys() == {"image tools"}:
            break
    assert wrong.keys() == {"image tools"}
    assert "a probe guest ran on KVM" in found["acceleration"][1]
    assert "jailed" in found["firecracker"][1]
    assert found["storage"][1].startswith("dm-snapshot for new VMs")


def test_vm_show_says_what_a_vm_has(lab: Machine, box: str):
    text = lab.banger("vm", "show", box).stdout
    said = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    uid = 0x70000000 + int(lab.vm(box)["id"], 16) % 0xFFE0000
    assert said["jail"] == f"own uid {uid}, root directory, cgroup and seccomp filter"
    assert "firecracker" in text
    assert "dm-snapshot root disk" in text


def test_a_vmm_sees_its_jail_and_nothing_else(lab: Machine, box: str):
    vm = lab.vm(box)
    seen = json.loads(lab.run("python3", "-I", "-S", "-c", LOOK, str(vm["runtime"]["pid"])).out)
    assert seen["own root"]
    assert seen["own mounts"]
    assert seen["mounts"] == ["/"]
    sockets = {"s/api.sock", "s/agent.sock", "s/agent.sock_1024", "s/vmm.log", "s/metrics.fifo"}
    devices = {"dev/kvm", "dev/net/tun", "dev/urandom", "dev/userfaultfd"}
    found = set(seen["files"])
    assert {"firecracker", "s/api.sock", "s/agent.sock"} <= found
    # Kernel, initramfs and disks are taken away once Firecracker has opened them.
    assert found <= {"firecracker", "firecracker.pid"} | sockets | devices
    assert seen["cgroup"] == f"0::/banger/{vm['id']}"
    outside = [path for path in seen["open"] if path.startswith("/home/") and "serial.log" not in path]
    assert outside == []


def test_what_a_vmm_may_use_is_limited(lab: Machine, box: str):
    vm = lab.vm(box)
    cgroup = f"{CGROUPS}/{vm['id']}"
    assert lab.sh(f"cat {cgroup}/memory.max") == f"{(MEMORY_MIB + SPARE_MIB) << 20}\n"
    assert lab.sh(f"cat {cgroup}/pids.max") == "64\n"
    # The kernel's own thread for the VM's large pages is in there as well, and has no program.
    assert lab.sh(PROGRAMS.format(f"{cgroup}/cgroup.procs")) == f"{vm['runtime']['pid']}\n"
    assert 0 < int(lab.sh(f"cat {cgroup}/memory.current")) <= (MEMORY_MIB + SPARE_MIB) << 20


def test_nobody_but_root_gets_into_the_jail(lab: Machine, box: str):
    for user in ("alice", "bob"):
        with pytest.raises(ChannelError, match="Permission denied"):
            lab.run("ls", JAILS, user=user)


def test_a_guest_sees_its_own_disks_only(lab: Machine, box: str):
    disks = lab.guest(box, "sh", "-c", "cd /sys/block && echo vd*").split()
    assert disks in (["vda", "vdb"], ["vda", "vdb", "vdc"])
    assert "ext4" in lab.guest(box, "findmnt", "--noheadings", "--output", "FSTYPE", "/")


def test_the_host_looks_for_nothing_on_a_guests_disks(lab: Machine, box: str):
    """udev would find the file systems there, and activate what looks like a volume."""
    properties = lab.sh(
        "udevadm settle; for disk in /sys/block/dm-* /sys/block/loop*; do udevadm info -q property $disk; done"
    ).splitlines()
    assert f"DM_NAME=banger-{lab.vm(box)['id']}" in properties
    assert not [line for line in properties if line.startswith("ID_FS_")]


def test_the_owner_sees_what_a_jailed_vm_uses(lab: Machine, box: str):
    lab.guest(box, "sh", "-c", "dd if=/dev/urandom of=/root/fill bs=1M count=8 status=none; sync")
    lab.run("ping", "-c", "1", "-W", "5", lab.vm(box)["address"])
    (usage,) = lab.json("vm", "stats", box)["vms"]
    assert 0 < usage["memory_bytes"] <= (MEMORY_MIB + SPARE_MIB) << 20
    assert usage["cpu_s"] > 0
    assert usage["cpu_percent"] >= 0
    assert usage["disk_bytes"] > 8 << 20
    assert usage["received_bytes"] > 0
    assert usage["sent_bytes"] > 0
    assert usage["block_read_bytes"] is None  # another's process: only root could know


def test_a_server_in_the_guest_is_found_and_reached_by_its_url(lab: Machine, box: str):
    lab.guest(box, "systemd-run", "--quiet", "python3", "-c", SERVER)

    def find(done) -> list[dict[str, object]]:
        return [port for port in lab.parse(done)["ports"] if port["port"] == 8000]

    done = lab.wait_banger(
        *("vm", "ports", box, "--json"), holds=lambda done: any(port["service"] for port in find(done))
    )
    (port,) = find(done)
    assert (port["service"], port["urls"]) == ("http", [f"http://{box}.vm:8000/"])
    assert lab.run("curl", "-s", *port["urls"]).stdout == "served\n"


def test_a_new_name_is_known_at_once_and_the_old_one_to_nobody(lab: Machine, box: str):
    address = lab.vm(box)["address"]
    assert lab.sh(f"getent hosts {box}.vm").split()[0] == address
    lab.banger("vm", "rename", box, "crate")
    assert lab.sh("getent hosts crate.vm").split()[0] == address
    gone = lab.run("resolvectl", "query", "--cache=no", f"{box}.vm", check=False)
    assert "not found" in gone.stderr, str(gone)
    lab.banger("vm", "rename", "crate", box)
    assert address in lab.run("resolvectl", "query", "--cache=no", f"{box}.vm").stdout


def test_reconcile_mends_the_host_and_says_what_it_swept(lab: Machine, box: str):
    boot_id = lab.boot_id(box)
    lab.sh(UPSET)
    found = lab.json("daemon", "reconcile")
    assert set(found["swept"]) == {f"tap {STRAY_TAP}", f"jail {STRAY_VM}", f"root disk {STRAY_VM}"}
    assert (found["left"], found["stopped"], found["removed"]) == ([], [], [])
    (vm,) = lab.wait_clean()
    traces = lab.traces()
    assert traces["tables"] == ["bridge banger", "inet banger"]
    assert [line for line in traces["elements"] if vm["runtime"]["tap"] in line]
    lab.run("ping", "-c", "1", "-W", "5", vm["address"])
    assert lab.boot_id(box) == boot_id
    again = lab.banger("daemon", "reconcile")
    assert again.stdout == "everything is as the records say\n"


def test_a_guest_that_fills_its_snapshot_harms_itself_only(lab: Machine, box: str):
    """The layer is capped by the configuration; the kernel gives the snapshot up when it is full."""
    boot_id = lab.boot_id(box)
    lab.configure(f'snapshot_limit = "{LIMIT_MIB}M"\n')
    lab.banger("vm", "create", "--name", "glutton", "--memory", f"{MEMORY_MIB}M")
    lab.guest("glutton", "sh", "-c", "echo kept > /root/note; sync")
    vm = lab.vm("glutton")
    lab.banger("vm", "exec", "glutton", "--", "sh", "-c", FILL, check=False)
    failed = lab.wait_state("glutton", "error")
    assert f"{LIMIT_MIB}" in failed["error"]["message"]
    assert "snapshot_limit" in failed["error"]["hint"]
    assert not [line for found in lab.traces().values() for line in found if f"banger-{vm['id']}" in line]
    lab.refused("vm", "start", "glutton", says="has changed more than", hint="snapshot_limit")
    work = lab.json("vm", "show", "glutton")["directory"] + "/work.img"
    assert lab.run("debugfs", "-R", "cat /note", work).stdout == "kept\n"
    assert lab.boot_id(box) == boot_id
    assert lab.guest(box, "sh", "-c", "echo fine > /etc/note; sync; cat /etc/note") == "fine\n"
    assert lab.sh("systemctl is-system-running").strip() == "running"
    lab.banger("vm", "delete", "glutton")
    lab.configure("")


def test_an_unjailed_firecracker_is_said_to_be_one(lab: Machine, box: str):
    boot_id = lab.boot_id(box)
    lab.configure("jailer_enabled = false\n")
    found = verdicts(lab)
    assert found["jail"][0] == "warn"
    assert "jailer_enabled = false" in found["jail"][1]
    assert lab.boot_id(box) == boot_id  # one that is in a jail stays there
    done = lab.banger("vm", "create", "--name", "bare", "--memory", f"{MEMORY_MIB}M")
    shown = lab.json("vm", "show", "bare")
    assert (shown["posture"]["backend"], shown["vm"]["root_driver"]) == ("firecracker", "copy"), str(done)
    assert shown["posture"]["jail"].startswith("none")
    uid = lab.sh(f"stat -c %U /proc/{shown['vm']['runtime']['pid']}").strip()
    assert uid == "alice"
    lab.guest("bare", "sh", "-c", "echo kept > /etc/note; sync")
    lab.banger("vm", "stop", "bare")
    lab.banger("vm", "start", "bare")
    assert lab.guest("bare", "cat", "/etc/note") == "kept\n"
    lab.banger("vm", "delete", "--force", "bare")


def test_nothing_of_all_is_left(lab: Machine, box: str):
    lab.configure("")
    lab.banger("vm", "delete", "--force", box)
    assert lab.leftovers() == {}
