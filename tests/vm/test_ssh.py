"""OpenSSH as its users have it, told of VMs once by `ssh-config --install`."""

import socket
import subprocess

import pytest


@pytest.fixture(scope="module")
def ssh(banger):
    """Runs ssh, or scp or sftp, with a configuration that was installed before there was any VM."""
    config = banger.home / ".ssh" / "config"
    banger.run("ssh-config", "--install", "--file", str(config))

    def run(*words, program="ssh", check=True, **options):
        done = subprocess.run(
            [program, "-F", str(config), *words],
            env=banger.environment, capture_output=True, text=True, timeout=120, check=False, **options,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def vm(ssh, vm):
    """Created after the configuration was installed."""
    return vm


def test_a_vm_is_reached_by_its_name(ssh, vm, banger):
    assert ssh(f"{vm}.vm", "hostname; pwd").stdout == f"{vm}\n/root\n"
    assert not (banger.home / ".ssh" / "known_hosts").exists()
    assert ssh(f"{vm}.vm", "exit 42", check=False).returncode == 42


def test_files_and_repositories_travel(ssh, vm, banger, tmp_path):
    (tmp_path / "there").write_text("bytes\n")
    ssh(str(tmp_path / "there"), f"{vm}.vm:", program="scp")
    ssh(f"{vm}.vm:there", str(tmp_path / "back"), program="scp")
    assert (tmp_path / "back").read_text() == "bytes\n"
    assert "there" in ssh("-b", "-", f"{vm}.vm", program="sftp", input="ls\n").stdout
    ssh(
        f"{vm}.vm",
        "git init -q r && cd r && git -c user.name=x -c user.email=x@y commit -q --allow-empty -m one",
    )
    subprocess.run(
        ["git", "clone", "-q", f"{vm}.vm:r", str(tmp_path / "clone")],
        env=banger.environment | {"GIT_SSH_COMMAND": f"ssh -F {banger.home}/.ssh/config"},
        check=True, timeout=120,
    )  # fmt: skip
    log = subprocess.run(
        ["git", "-C", str(tmp_path / "clone"), "log", "--format=%s"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.stdout == "one\n"


def test_a_shared_connection_and_an_editors_way_in(ssh, vm, banger):
    control = ("-o", f"ControlPath={banger.home}/c-%C")
    try:
        ssh("-o", "ControlMaster=auto", "-o", "ControlPersist=60", *control, f"{vm}.vm", "true")
        assert ssh(*control, "-O", "check", f"{vm}.vm").stderr.startswith("Master running")
        assert ssh(*control, f"{vm}.vm", "echo again").stdout == "again\n"
    finally:
        ssh(*control, "-O", "exit", f"{vm}.vm", check=False)
    assert ssh("-T", "-D", str(free_port()), f"{vm}.vm", "bash", input="echo $((6*7))\n").stdout == "42\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_no_process_stays_beside_ssh(ssh, vm, banger):
    with subprocess.Popen(
        ["ssh", "-F", str(banger.home / ".ssh" / "config"), f"{vm}.vm", "echo up; sleep 600"],
        env=banger.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        try:
            assert client.stdout.readline() == b"up\n"
            children = subprocess.run(
                ["ps", "--ppid", str(client.pid), "-o", "args="], capture_output=True, text=True, check=False
            )
            assert [line for line in children.stdout.splitlines() if "defunct" not in line] == []
        finally:
            client.kill()


def test_a_vm_that_is_not_there_or_does_not_run_is_named_in_one_line(ssh, vm, banger):
    for name, words in (("nosuch", "there is no VM 'nosuch'"), ("resting", "resting has never been started")):
        if name == "resting":
            banger.run("vm", "create", "--no-start", "resting", "--memory", "256M")
        done = ssh(f"{name}.vm", "true", check=False)
        assert done.returncode == 255
        assert len([line for line in done.stderr.splitlines() if line.startswith("banger: ")]) == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    banger.run("vm", "delete", "resting")


def test_a_daemon_that_is_not_there_is_started(ssh, vm, banger):
    before = banger.json("daemon", "status")["pid"]
    banger.kill_daemon()
    assert ssh(f"{vm}.vm", "hostname").stdout == f"{vm}\n"
    assert banger.json("daemon", "status")["pid"] != before


def test_another_vm_is_reached_without_another_word_and_after_a_restart(ssh, vm, banger):
    banger.run("vm", "create", "second", "--memory", "256M")
    assert ssh("second.vm", "hostname").stdout == "second\n"
    banger.run("vm", "restart", "second")
    assert ssh("second.vm", "hostname").stdout == "second\n"
    banger.run("vm", "rename", "second", "other")
    assert ssh("other.vm", "true", check=False).returncode == 0
    assert ssh("second.vm", "true", check=False).returncode == 255
    block = banger.run("ssh-config", "other").stdout.decode()
    alone = banger.home / "one"
    alone.write_text(block)
    done = subprocess.run(
        ["ssh", "-F", str(alone), "other", "hostname"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b"second\n"
    banger.run("vm", "delete", "--force", "other")


def test_a_host_key_that_is_not_the_one_we_made_is_refused(ssh, vm, banger):
    """Last: the VM is of no use for ssh afterwards."""
    banger.guest(
        vm, "sh", "-ec",
        "cd /etc/ssh; rm ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key; kill -HUP $(cat /run/sshd.pid)",
    )  # fmt: skip
    banger.guest(vm, "sh", "-c", "until ssh-keyscan localhost 2>/dev/null | grep -q .; do sleep 0.1; done")
    done = ssh(f"{vm}.vm", "true", check=False)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr
