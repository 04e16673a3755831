"""What every VMM does (`tests/contracts/test_vmm.py`), inside the lab: QEMU with KVM, Firecracker, and that in a jail.

One test here is one run of the suite in there, as alice; its own report is build/lab-logs/conformance-NAME.xml, and a
failure is told by the names of the tests that failed.
"""

import io
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
from tests.contracts.conftest import load_mini
from tests.lab.conftest import LOGS
from tests.lab.machine import Machine
from tests.support.banger import ROOT
from tests.support.firecracker import build_mini_guest
from tools.lab.payload import PYTEST
from tools.lab.recipe import OWNER
from tools.lab.stages import VENV

from banger.vmm.firecracker.programs import VERSION

PLACE = f"/home/{OWNER}/suite"
CARRIED = ("pyproject.toml", "tests/contracts", "tests/support", "tests/native/mini", "tests/vm/mini")
LEAST = 40  # tests of the suite; fewer mean that it did not run


@pytest.fixture(scope="module")
def suite(lab: Machine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tests and both mini guests, where alice reads them."""
    directory = tmp_path_factory.mktemp("guests")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in CARRIED:
            tar.add(ROOT / name, name, filter=_without_caches)
        tar.add(build_qemu_guest(directory), "guests/qemu")
        tar.add(build_mini_guest(directory), "guests/firecracker")
    lab.run("mkdir", PLACE, user=OWNER)
    lab.put("/home/suite.tar", archive.getvalue())
    lab.run("tar", "-xf", "/home/suite.tar", "-C", PLACE, "--no-same-owner", user=OWNER)
    return PLACE


def build_qemu_guest(directory: Path) -> Path:
    mini: ModuleType = load_mini()
    (directory / "qemu").mkdir()
    return mini.build_mini_guest(directory / "qemu")


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry


@pytest.mark.parametrize("kind", ["qemu-kvm", "firecracker", "firecracker-jailed"])
def test_the_contract_holds(lab: Machine, suite: str, kind: str):
    before = lab.leftovers()
    environment = {
        "BANGER_CONFORMANCE": kind,
        "BANGER_CONFORMANCE_GUEST": f"{suite}/guests/{kind.partition('-')[0]}",
        "BANGER_CONFORMANCE_FIRECRACKER": f"/usr/local/lib/banger/firecracker/{VERSION}/firecracker",
        "PYTHONPATH": PYTEST,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options = ("-q", "-p", "no:cacheprovider", f"--junitxml={suite}/report.xml")
    argv = (f"{VENV}/bin/python", "-m", "pytest", "tests/contracts/test_vmm.py", *options)
    done = lab.run(*argv, user=OWNER, cwd=suite, env=environment, timeout_s=600, check=False)
    assert done.status in {0, 1}, str(done)
    report = lab.get(f"{suite}/report.xml")
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / f"conformance-{kind}.xml").write_bytes(report)
    cases = list(ET.fromstring(report).iter("testcase"))
    assert len(cases) >= LEAST
    failed = [
        case.get("name")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    assert failed == [], str(done)
    assert lab.leftovers() == before
