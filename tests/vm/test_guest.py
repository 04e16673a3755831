"""What one guest can do: commands, streams, modules, packages, SSH."""

import hashlib
import os
import subprocess

import pytest


@pytest.mark.parametrize("direction", ["in", "both"])
def test_a_hundred_mebibytes_are_binary_clean(banger, vm, direction):
    data = os.urandom(1024 * 1024) * 100
    expected = hashlib.sha256(data).hexdigest()
    if direction == "in":
        done = banger.run("vm", "exec", "-i", vm, "--", "sha256sum", input=data)
        assert done.stdout.split()[0].decode() == expected
    else:
        done = banger.run("vm", "exec", "-i", vm, "--", "cat", input=data)
        assert hashlib.sha256(done.stdout).hexdigest() == expected


def test_an_unread_stream_grows_no_memory(banger, vm):
    client = banger.start(
        "vm", "exec", vm, "--", "cat", "/dev/zero", stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert client.stdout.read(65536) == bytes(65536)
    daemon = banger.json("daemon", "status")["pid"]
    before = rss(daemon)
    for _ in range(20):
        assert banger.guest(vm, "true") == ""
    assert rss(daemon) - before < 16 * 1024
    agent = banger.guest(vm, "sh", "-c", "grep -h VmRSS $(grep -l '^Name:.*banger' /proc/[0-9]*/status)")
    assert all(int(line.split()[1]) < 16 * 1024 for line in agent.splitlines())
    client.kill()
    client.wait()


def rss(pid: int) -> int:
    """KiB"""
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(pid)


def test_a_killed_client_leaves_no_command_behind(banger, vm):
    client = banger.start(
        "vm",
        "exec",
        vm,
        "--",
        "sh",
        "-c",
        "echo up; exec sleep 9876",
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert client.stdout.readline() == b"up\n"
    client.kill()
    client.wait()
    count = "n=0; while pgrep -f 'sleep 987[6]' >/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done; echo $n"
    assert int(banger.guest(vm, "sh", "-c", count)) < 50


def test_statuses_of_what_cannot_run(banger, vm):
    missing = banger.run("vm", "exec", vm, "--", "no-such-program", check=False)
    assert missing.returncode == 127
    assert b"command not found in the guest" in missing.stderr
    refused = banger.run("vm", "exec", vm, "--", "/etc/passwd", check=False)
    assert refused.returncode == 126
    killed = banger.run("vm", "exec", vm, "--", "sh", "-c", "kill -9 $$", check=False)
    assert killed.returncode == 128 + 9


def test_user_directory_and_environment(banger, vm):
    said = banger.run(
        "vm",
        "exec",
        "-u",
        "nobody",
        "-w",
        "/tmp",
        "-e",
        "A=b c",
        vm,
        "--",
        "sh",
        "-c",
        'id -un; pwd; echo "$A"',
    )
    assert said.stdout.decode().splitlines() == ["nobody", "/tmp", "b c"]


def test_the_agent_was_ready_before_the_distribution(banger, vm):
    details = banger.json("vm", "show", vm)["vm"]
    assert [stage["name"] for stage in details["boot_stages"]][-2:] == ["boot guest", "wait for ssh"]
    agent_ms = sum(stage["duration_ms"] for stage in details["guest_stages"])
    banger.guest(vm, "sh", "-c", "systemctl is-system-running --wait")
    finish = banger.guest(vm, "systemctl", "show", "-p", "FinishTimestampMonotonic", "--value")
    assert agent_ms < int(finish) / 1000


def test_systemd_is_content(banger, vm):
    assert banger.guest(vm, "sh", "-c", "systemctl is-system-running --wait").strip() == "running"


def test_modules_firewall_overlay_and_loop_work(banger, vm):
    script = """
    set -e
    modprobe nf_tables; nft add table inet t; nft list ruleset | grep -q 'table inet t'; nft delete table inet t
    mkdir -p /tmp/o/l /tmp/o/u /tmp/o/w /tmp/o/m; touch /tmp/o/l/below
    mount -t overlay overlay -o lowerdir=/tmp/o/l,upperdir=/tmp/o/u,workdir=/tmp/o/w /tmp/o/m; ls /tmp/o/m; umount /tmp/o/m
    truncate -s 32M /tmp/disk; mkfs.ext4 -q /tmp/disk; mkdir -p /mnt/disk; mount -o loop /tmp/disk /mnt/disk
    grep -o '/mnt/disk ext4' /proc/mounts; umount /mnt/disk
    modprobe fuse; test -c /dev/fuse; rm -rf /tmp/o /tmp/disk
    """
    assert banger.guest(vm, "sh", "-c", script).split("\n")[:2] == ["below", "/mnt/disk ext4"]


def test_a_local_package_installs(banger, vm):
    script = """
    set -e; cd /tmp; mkdir -p p/DEBIAN p/usr/share/hello
    printf 'Package: hello-local\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: A <a@b>\\nDescription: local\\n' > p/DEBIAN/control
    echo hi > p/usr/share/hello/text; dpkg-deb -b p hello.deb >/dev/null
    apt-get install -y ./hello.deb >/dev/null 2>&1; cat /usr/share/hello/text; apt-get purge -y hello-local >/dev/null 2>&1
    """
    assert banger.guest(vm, "sh", "-c", script) == "hi\n"


def test_ssh_knows_the_host_key_beforehand(banger, vm):
    done = banger.run("vm", "ssh", vm, "--", "hostname")
    assert done.stdout == b"shared\n"
    assert b"authenticity" not in done.stderr


def test_ssh_takes_keys_only(banger, vm):
    settings = banger.guest(
        vm, "sh", "-c", "sshd -T | grep -E '^(passwordauthentication|hostkey) '"
    ).splitlines()
    assert settings == ["hostkey /etc/ssh/ssh_host_ed25519_key", "passwordauthentication no"] or sorted(
        settings
    ) == [
        "hostkey /etc/ssh/ssh_host_ed25519_key",
        "passwordauthentication no",
    ]


def test_without_nat_nothing_goes_out(banger, vm):
    done = banger.run(
        "vm", "exec", vm, "--", "timeout", "5", "bash", "-c", "exec 3<>/dev/tcp/10.0.2.2/22", check=False
    )
    assert done.returncode != 0


def test_the_terminal_has_the_clients_size_and_follows_it(banger, vm):
    import fcntl
    import pty
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    client = banger.start("vm", "exec", "-it", vm, "--", "stty", "size", stdin=side, stdout=side, stderr=side)
    os.close(side)
    output = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:
            break
        if not data:
            break
        output += data
    assert client.wait(timeout=30) == 0
    assert b"33 111" in output


def test_several_commands_at_once(banger, vm):
    clients = [
        banger.start(
            "vm",
            "exec",
            vm,
            "--",
            "sh",
            "-c",
            f"sleep 0.2; echo {n}",
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        for n in range(8)
    ]
    assert [client.communicate(timeout=60)[0] for client in clients] == [b"%d\n" % n for n in range(8)]
