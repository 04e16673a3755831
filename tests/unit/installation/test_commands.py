"""`banger system …` as it is typed, on a host of the test's own."""

import json
import os
import sys

import pytest
from tests.unit.installation.conftest import OWNER_UID

from banger.cli.main import main
from banger.installation import host as host_module
from banger.installation import host_shutdown


@pytest.fixture
def banger(capfd, host, monkeypatch):
    """(status, stdout, stderr) of a command line; `on` is the host it runs on."""
    here = [host]
    monkeypatch.setattr(host_module, "find_host", lambda: here[0])

    def run(*words, on=None):
        here[0] = on or host
        capfd.readouterr()
        return (main(["system", *words]), *capfd.readouterr())

    return run


def test_from_installing_to_uninstalling(banger):
    status, out, err = banger("install", "--owner", "alice")
    assert (status, err) == (0, "")
    assert "banger-root --owner" in out
    status, out, _ = banger("status", "--json")
    data = json.loads(out)
    assert (status, data["owner"], data["finished"]) == (69, "alice", True)
    status, out, _ = banger("status")
    assert "problem: the daemon does not listen" in out
    status, out, err = banger("uninstall")
    assert (status, err) == (0, "")
    assert banger("status")[:2] == (
        69,
        "banger is not installed for the system; sudo banger system install does that\n",
    )
    assert json.loads(banger("status", "--json")[1]) == {"installed": False}


@pytest.mark.parametrize("command", ["install", "restart", "uninstall"])
def test_root_is_needed_and_the_hint_is_the_command(banger, host, command):
    status, out, err = banger(command, on=host._replace(root_uid=os.getuid() + 1))
    assert (status, out) == (77, "")
    assert err == f"banger: system {command} needs root\nhint: sudo banger system {command}\n"


def test_a_purge_is_listed_and_asked_for(banger, home, monkeypatch):
    banger("install", "--owner", "alice")
    for path in (home / ".cache", home / ".cache/banger"):
        path.mkdir()
        os.chown(path, OWNER_UID, -1)
    status, out, err = banger("uninstall", "--purge")
    assert status == 64
    assert "hint: sudo banger system uninstall --purge --yes" in err
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    status, out, err = banger("uninstall", "--purge")
    assert (status, out) == (0, "")
    assert f"{home}/.cache/banger" in err
    assert (home / ".cache/banger").exists()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert banger("uninstall", "--purge")[0] == 0
    assert banger("uninstall", "--purge", "--yes")[0] == 66


class Terminal:
    def __init__(self, line):
        self.line = line

    def isatty(self):
        return True

    def readline(self):
        return self.line


def test_no_forwarding_is_a_flag(banger, host):
    _, out, _ = banger("install", "--owner", "alice", "--no-forwarding")
    assert "forwards" not in out
    with open(host.at("/proc/sys/net/ipv4/ip_forward")) as switch:
        assert switch.read() == "0\n"


@pytest.mark.parametrize(
    ("answer", "asked"), [("running", 0), ("degraded", 0), ("stopping", 1), ("", 0), ("offline", 0)]
)
def test_vms_are_stopped_only_when_the_host_goes_down(root, monkeypatch, answer, asked):
    program = root / "systemctl"
    program.write_text(f"#!/bin/sh\necho {answer}; exit 1\n")
    program.chmod(0o755)
    calls = []

    class Connection:
        daemon_pid = os.getpid()

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def call(self, method):
            calls.append(method)

    monkeypatch.setattr(host_shutdown, "_DEADLINE_S", 0)
    monkeypatch.setattr(host_shutdown, "find_tool", lambda name: program)
    monkeypatch.setattr(host_shutdown, "find_connection", Connection)
    assert host_shutdown.main() == 0
    assert calls == ["daemon.stop"] * asked
