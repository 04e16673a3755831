"""`make run` as root, in a network namespace of its own: a VM on the bridge, and afterwards neither daemon nor bridge."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.support.banger import DATA, ROOT, Banger
from tests.support.tiers import require_host

TARGET = ("make", "-o", "packages-run", "-o", ".venv/.runtime-installed", "-o", "guest-program", "run")


@pytest.fixture
def banger(material):
    """Root's, who is their own helper; the socket that is named elsewhere is the installed one's here."""
    require_host({"ip": "iproute2", "nft": "nftables", "make": "make"})
    if not (ROOT / ".venv" / "bin" / "banger").exists():
        pytest.skip("make run needs the environment that it makes")
    home = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
    user = Banger(home, data=DATA)
    del user.environment["BANGER_ROOT_SOCKET"]
    yield user
    shutil.rmtree(home)


def run(banger, script):
    argv = ["unshare", "--net", "/bin/sh", "-euc", f"ip link set lo up; {script}"]
    return subprocess.run(
        argv, cwd=ROOT, env=banger.environment, capture_output=True, text=True, timeout=240, check=True
    ).stdout


LOOK = "ip -o link | cut -d: -f2; nft list ruleset"
MAKE = " ".join(TARGET)


def test_nothing_is_left_of_what_make_run_has_started(banger):
    said = run(banger, f"{MAKE}; echo; echo LEFT; {LOOK}")
    guest, _, left = said.partition("\nLEFT\n")
    assert "Debian GNU/Linux" in guest
    assert left.split() == ["lo"]
    assert banger.run("daemon", "status", check=False).returncode == 69
    assert banger.vmm_processes() == []
    assert banger.vm_directories() == []


def test_a_daemon_that_ran_before_runs_on(banger):
    banger_ = str(ROOT / ".venv" / "bin" / "banger")
    said = run(
        banger,
        f"{banger_} daemon start; {MAKE} >/dev/null; echo LEFT; {LOOK}; {banger_} daemon stop; echo END; {LOOK}",
    )
    left, _, end = said.partition("LEFT\n")[2].partition("END\n")
    assert "br-banger" in left
    assert end.split() == ["lo"]
