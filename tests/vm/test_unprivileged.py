"""The whole life cycle as a user without any privilege: no root, no sudo, no KVM group."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.banger import ROOT, Banger
from tests.support.unprivileged import DROP, NOBODY, copy_material, find_python, give_away, render_environment


class Unprivileged(Banger):
    """Everything runs as nobody, by an interpreter that nobody may run."""

    python = sys.executable

    def argv(self, *arguments: str) -> list[str]:
        return [*DROP, self.python, "-m", "banger.cli", *arguments]


@pytest.fixture
def nobody(material):
    if os.getuid() != 0:
        pytest.skip("dropping privileges needs some; without root the other tests are this one already")
    home = Path(tempfile.mkdtemp(prefix="bu-", dir="/tmp"))
    banger = Unprivileged(home, home / "data")
    banger.environment = render_environment(banger.environment)
    found = find_python(banger.environment)
    if found is None:
        home.rmdir()
        pytest.skip(f"uid {NOBODY} may not read {ROOT} or run its Python")
    banger.python = found
    copy_material(home / "data")
    give_away(home)
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
