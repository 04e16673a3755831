"""The lab itself: is it a host on which everything that banger uses really works, and do its tools tell the truth?"""

import hashlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.banger import ROOT
from tools.lab.channel import ChannelError
from tools.lab.host import sweep_running

OPEN_KVM = """
import fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR)
print(fcntl.ioctl(kvm, 0xAE00, 0))
vm = fcntl.ioctl(kvm, 0xAE01, 0)
print(fcntl.ioctl(vm, 0xAE41, 0) > 0)
"""
OPEN_TAP = """
import fcntl, os, struct
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"lab-tap", 0x1002))
print("lab-tap" in os.listdir("/sys/class/net"))
"""
SNAPSHOT = """
truncate -s 16M /var/tmp/origin /var/tmp/cow
origin=$(losetup --find --show --read-only /var/tmp/origin)
cow=$(losetup --find --show /var/tmp/cow)
echo "0 32768 snapshot $origin $cow P 8" | dmsetup create lab-snapshot
printf written | dd of=/dev/mapper/lab-snapshot conv=fsync status=none
head -c 7 /dev/mapper/lab-snapshot; echo
head -c 7 /var/tmp/origin | od -An -c | tr -d ' \\n'; echo
dmsetup status lab-snapshot
dmsetup remove --retry lab-snapshot
losetup --detach "$origin" "$cow"
rm /var/tmp/origin /var/tmp/cow
"""
NFT = """
table inet lab {
  chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
  chain in { type filter hook input priority filter; ct state established accept; }
}
table bridge lab { chain pass { type filter hook forward priority 0; meta protocol ip accept; }; }
"""


def test_kvm_makes_a_virtual_machine_for_the_owner(lab):
    assert lab.python(OPEN_KVM, user="alice").split() == ["12", "True"]
    assert "kvm_amd" in lab.sh("ls /sys/module")


def test_somebody_else_may_not_use_kvm(lab):
    with pytest.raises(ChannelError, match="PermissionError"):
        lab.python(OPEN_KVM, user="bob")


def test_device_mapper_makes_snapshots(lab):
    read, below, status = lab.sh(SNAPSHOT).splitlines()
    assert (read, below) == ("written", r"\0\0\0\0\0\0\0")
    assert " snapshot " in status


def test_taps_nftables_and_vhost_vsock_are_there_when_asked_for(lab):
    assert lab.python(OPEN_TAP) == "True\n"
    lab.run("nft", "--file", "-", stdin=NFT.encode())
    assert "masquerade" in lab.sh("nft list table inet lab")
    lab.sh("nft delete table inet lab; nft delete table bridge lab")
    vhost = "import os; os.close(os.open('/dev/vhost-vsock', os.O_RDWR)); print('open')"
    assert lab.python(vhost, user="alice") == "open\n"  # group kvm's, as on Debian
    assert "vhost_vsock" in lab.sh("ls /sys/module")


def test_cgroups_are_of_version_two_and_limit_memory(lab):
    assert lab.sh("stat -f -c %T /sys/fs/cgroup") == "cgroup2fs\n"
    assert {"cpu", "io", "memory", "pids"} <= set(lab.sh("cat /sys/fs/cgroup/cgroup.controllers").split())
    script = """
    mkdir /sys/fs/cgroup/lab
    echo 16M > /sys/fs/cgroup/lab/memory.max
    sh -c 'echo $$ > /sys/fs/cgroup/lab/cgroup.procs; exec python3 -c "bytearray(64 << 20)"' || echo $?
    grep oom_kill /sys/fs/cgroup/lab/memory.events
    rmdir /sys/fs/cgroup/lab
    """
    status, *events = lab.sh(script).splitlines()
    assert (status, "oom_kill 1" in events) == ("137", True)


def test_the_clock_is_ours_although_the_lab_was_saved_long_ago(lab):
    before = time.time()
    inside = float(lab.sh("date +%s.%N"))
    assert before - 10 < inside < time.time() + 10


def test_commands_tell_status_and_both_streams(lab):
    done = lab.run("sh", "-c", "cat; echo oops >&2; exit 7", stdin=b"given", check=False)
    assert (done.status, done.out, done.err) == (7, b"given", b"oops\n")
    assert lab.run("sh", "-c", "kill -TERM $$", check=False).status == -signal.SIGTERM
    with pytest.raises(ChannelError, match="ended with 7"):
        lab.run("sh", "-c", "exit 7")
    with pytest.raises(ChannelError, match="no-such-program"):
        lab.run("no-such-program")


def test_several_commands_run_at_once(lab):
    """Each waits for the other, so that one after the other would never end."""
    script = "mkfifo /run/lab-fifo 2>/dev/null; true"
    lab.sh(script)
    reader = lab.start(("cat", "/run/lab-fifo"), timeout_s=60)
    assert not reader.ended
    lab.sh("echo met > /run/lab-fifo", timeout_s=60)
    assert reader.wait().stdout == "met\n"


def test_a_command_can_be_signalled_and_has_a_deadline(lab):
    sleeper = lab.start(("sleep", "600"), timeout_s=60)
    sleeper.signal(signal.SIGINT)
    assert sleeper.wait().status == -signal.SIGINT
    with pytest.raises(ChannelError, match="has ended already"):
        sleeper.signal(signal.SIGINT)
    done = lab.run("sh", "-c", "echo begun; sleep 600", timeout_s=10, check=False)
    assert (done.late, done.stdout) == (True, "begun\n")


def test_a_daemon_left_behind_does_not_hold_its_command_up(lab):
    assert lab.sh("sleep 600 & echo $!", timeout_s=60).strip().isdigit()


def test_files_travel_whole_both_ways(lab):
    content = os.urandom(3_000_000)
    lab.put("/home/alice/file", content, mode=0o640, user="alice")
    digest = hashlib.sha256(content).hexdigest()
    assert lab.sh("sha256sum < file; stat -c '%U %a' file", user="alice").split() == [
        digest,
        "-",
        "alice",
        "640",
    ]
    assert lab.get("/home/alice/file") == content
    with pytest.raises(ChannelError, match="FileNotFoundError"):
        lab.get("/no/such/file")


def test_qemu_ends_with_whoever_started_it(installed_state):
    program = f"""
from pathlib import PosixPath
from tools.lab.build import Base
from tools.lab.host import Disks
from tools.lab.states import State, open_lab
lab = open_lab({installed_state!r})
print(lab.pid, lab.place, flush=True)
input()
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    argv = (sys.executable, "-c", program)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, **pipes) as holder:
        pid, place = holder.stdout.readline().split()
        descriptor = os.pidfd_open(int(pid))
        holder.kill()
    assert select.select([descriptor], [], [], 60)[0], "QEMU runs on"
    os.close(descriptor)
    sockets = (Path(place) / "sockets").readlink()
    sweep_running()
    assert not Path(place).exists()
    assert not sockets.exists()


def test_the_owner_is_not_root_and_may_become_it(lab):
    assert lab.sh("id -un; sudo id -un", user="alice").split() == ["alice", "root"]
    assert lab.run("sudo", "-n", "id", user="bob", check=False).status == 1
