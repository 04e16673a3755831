"""The whole life cycle as a user without any privilege: no root, no sudo, no KVM group."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.vm.conftest import DATA, ROOT, Banger

NOBODY = 65534


DROP = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]


class Unprivileged(Banger):
    """Everything runs as nobody, by an interpreter that nobody may run."""

    python = sys.executable

    def argv(self, *arguments: str) -> list[str]:
        return [*DROP, self.python, "-m", "banger.cli", *arguments]


def find_python(environment: dict[str, str]) -> str | None:
    """Ours, or the system's of the same version. Tried by a shell: setpriv itself still has its capabilities."""
    for python in (sys.executable, "/usr/bin/python3"):
        program = f"import sys, msgspec, banger.daemon.wiring; assert sys.version_info[:2] == {sys.version_info[:2]}"
        probe = [*DROP, "/bin/sh", "-c", 'exec "$0" -c "$1"', python, program]
        if subprocess.run(probe, capture_output=True, env=environment).returncode == 0:
            return python
    return None


@pytest.fixture
def nobody(material):
    if os.getuid() != 0:
        pytest.skip("dropping privileges needs some; without root the other tests are this one already")
    home = Path(tempfile.mkdtemp(prefix="bu-", dir="/tmp"))
    banger = Unprivileged(home, home / "data")
    banger.environment["PYTHONPATH"] += f":{Path(pytest.__file__).parents[1]}"
    banger.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    found = find_python(banger.environment)
    if found is None:
        home.rmdir()
        pytest.skip(f"uid {NOBODY} may not read {ROOT} or run its Python")
    banger.python = found
    subprocess.run(
        ["cp", "-a", "--sparse=always", "--reflink=auto", str(DATA), str(home / "data")], check=True
    )
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(home)], check=True)
    yield banger
    banger.run("daemon", "stop", check=False)
    assert banger.vmm_processes() == []
    shutil.rmtree(home)


def test_the_whole_life_cycle_needs_no_privilege(nobody):
    nobody.run("vm", "create", "--name", "plain", "--memory", "256M", "--wait-ssh")
    (pid,) = nobody.vmm_processes()
    assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
    nobody.guest("plain", "sh", "-c", "echo kept > /root/note")
    assert nobody.run("vm", "ssh", "plain", "--", "cat", "/root/note").stdout == b"kept\n"
    nobody.run("vm", "stop", "plain")
    nobody.run("vm", "start", "plain")
    assert nobody.guest("plain", "cat", "/root/note") == "kept\n"
    nobody.run("vm", "delete", "--force", "plain")
    assert (
        nobody.run(
            "vm", "run", "--rm", "--memory", "256M", "--", "sh", "-c", "exit 42", check=False
        ).returncode
        == 42
    )
    assert nobody.leftovers() == []
