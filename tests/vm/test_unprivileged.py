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


class Unprivileged(Banger):
    @staticmethod
    def argv(*arguments: str) -> list[str]:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
        return [*drop, *Banger.argv(*arguments)]


@pytest.fixture
def nobody(material):
    if os.getuid() != 0:
        pytest.skip("dropping privileges needs some; without root the other tests are this one already")
    may_read = [*Unprivileged.argv()[:5], sys.executable, "-c", f"open({str(ROOT / 'pyproject.toml')!r})"]
    if subprocess.run(may_read, capture_output=True).returncode != 0:
        pytest.skip(f"uid {NOBODY} cannot read {ROOT} or its Python")
    home = Path(tempfile.mkdtemp(prefix="bu-", dir="/tmp"))
    subprocess.run(
        ["cp", "-a", "--sparse=always", "--reflink=auto", str(DATA), str(home / "data")], check=True
    )
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(home)], check=True)
    banger = Unprivileged(home, home / "data")
    banger.environment["PYTHONDONTWRITEBYTECODE"] = "1"
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
