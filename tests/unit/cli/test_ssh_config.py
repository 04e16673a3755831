"""`ssh-config` and what ssh runs because of it, on a daemon that answers as it is told."""

import os
import socket
import sys
from array import array

import pytest

TARGET = {
    "host": "127.0.0.1", "port": 1, "user": "root", "identity_file": "/key", "known_hosts_file": "/known",
    "host_key_alias": "banger-1",
}  # fmt: skip


@pytest.fixture
def config(tmp_path, monkeypatch, daemon):
    """Where ssh would read, of a user whose home it is."""
    daemon.answers["ssh.settings"] = {"identity_file": "/key", "zone": "vm"}
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    return tmp_path / "home" / ".ssh" / "config"


def test_it_is_printed(banger, config):
    status, out, _ = banger("ssh-config")
    assert status == 0
    assert "Host *.vm" in out
    assert 'IdentityFile "/key"' in out
    assert not config.exists()


def test_it_is_installed_once_and_taken_away_again(banger, config, tmp_path):
    config.parent.mkdir(parents=True)
    config.write_bytes(b"Host *\n\tUser ann")
    own = tmp_path / "conf" / "banger" / "ssh_config"
    assert banger("ssh-config", "--install", "--file", str(config))[0] == 0
    once = config.read_bytes()
    assert b'Include "%s"\n' % str(own).encode() in once
    assert "ProxyUseFdpass yes" in own.read_text()
    assert banger("ssh-config", "--install", "--file", str(config))[0] == 0
    assert config.read_bytes() == once
    assert banger("ssh-config", "--uninstall", "--file", str(config))[0] == 0
    assert config.read_bytes() == b"Host *\n\tUser ann"
    assert not own.exists()
    assert banger("ssh-config", "--uninstall", "--file", str(config))[0] == 0


def test_a_file_that_did_not_exist_does_not_exist_afterwards(banger, config):
    banger("ssh-config", "--install", "--file", str(config))
    assert config.exists()
    banger("ssh-config", "--uninstall", "--file", str(config))
    assert not config.exists()


def test_half_a_fence_changes_nothing(banger, config, tmp_path):
    config.parent.mkdir(parents=True)
    config.write_text("# >>> banger ssh-config >>>\nInclude x\n")
    status, _, err = banger("ssh-config", "--install", "--file", str(config))
    assert status != 0
    assert "by hand" in err
    assert config.read_text() == "# >>> banger ssh-config >>>\nInclude x\n"
    assert not (tmp_path / "conf").exists()


def test_a_home_that_ssh_does_not_read_is_named(banger, config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    status, _, err = banger("ssh-config", "--install")
    assert status != 0
    assert "--file" in err


@pytest.mark.parametrize(
    "words", [("--install", "--uninstall"), ("--install", "web"), ("--file", "/x"), ("--file", "/x", "web")]
)
def test_contradictions_are_refused(banger, config, words):
    status, _, err = banger("ssh-config", *words)
    assert status == 64
    assert "hint: " in err


def test_named_vms_are_shown_as_they_run(banger, daemon, config):
    daemon.answers["vm.show"] = {"vm": {"name": "web"}}
    daemon.answers["vm.ssh"] = TARGET
    status, out, _ = banger("ssh-config", "web")
    assert status == 0
    assert out.startswith("Host web web.vm\n    HostName 127.0.0.1\n    Port 1\n")


def test_the_proxy_passes_a_connection_to_its_caller(start_banger, daemon):
    with socket.create_server(("127.0.0.1", 0)) as sshd:
        daemon.answers["vm.ssh"] = TARGET | {"port": sshd.getsockname()[1]}
        ours, theirs = socket.socketpair()
        process = start_banger("__ssh-proxy", "web.vm", stdin=theirs, stdout=theirs)
        theirs.close()
        data, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        assert data == b"\0"
        descriptors = array("i")
        descriptors.frombytes(ancillary[0][2])
        accepted, _ = sshd.accept()
        assert process.wait(timeout=30) == 0
        with accepted, socket.socket(fileno=descriptors[0]) as passed, ours:
            accepted.sendall(b"SSH-2.0-x")
            assert passed.getblocking()
            assert passed.recv(100) == b"SSH-2.0-x"


def test_the_proxy_says_in_one_line_why_there_is_no_connection(start_banger, daemon):
    daemon.answers["vm.ssh"] = TARGET  # nobody listens on port 1
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start_banger("__ssh-proxy", "web.vm", stdin=theirs, stdout=theirs)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 69
    assert err.decode().startswith("banger: sshd of web.vm at 127.0.0.1:1 cannot be reached: ")
    assert b"Traceback" not in err


def test_the_proxy_is_for_ssh(banger, daemon):
    status, _, err = banger("__ssh-proxy", "web.vm")
    assert status == 64
    assert "ssh-config --install" in err


def test_the_known_host_is_the_key_that_was_made_for_the_vm(banger, daemon, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text("banger-1 ssh-ed25519 AAAA comment\n")
    daemon.answers["vm.ssh"] = TARGET | {"known_hosts_file": str(known)}
    assert banger("__ssh-known-host", "web.vm") == (0, "web.vm ssh-ed25519 AAAA\n", "")


def test_ssh_is_told_the_name_that_survives_an_upgrade(banger, config, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "banger"
    program.parent.mkdir()
    (tmp_path / "banger-1.2").write_text("#!/bin/sh\n")
    (tmp_path / "banger-1.2").chmod(0o755)
    program.symlink_to(tmp_path / "banger-1.2")
    monkeypatch.setattr(sys, "argv", [str(program), "ssh-config"])
    assert f"ProxyCommand {program} __ssh-proxy" in banger("ssh-config")[1]
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert f"ProxyCommand {sys.executable} -P -m banger.cli __ssh-proxy" in banger("ssh-config")[1]
    assert os.path.isabs(sys.executable)
