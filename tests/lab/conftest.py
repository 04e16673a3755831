"""One restored lab for each module. What a failed test leaves in its lab is kept in build/lab-logs/."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.lab.machine import Machine
from tests.support.banger import DATA, ROOT, make_material
from tests.support.tiers import skip_or_fail

from banger.base.process import find_tool

if TYPE_CHECKING:
    from tools.lab.states import State

LOGS = ROOT / "build" / "lab-logs"
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "depmod": "kmod",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "lab"):
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(900))


def need_lab() -> None:
    for tool, package in TOOLS.items():
        if find_tool(tool) is None:
            skip_or_fail(f"{tool} is not installed: apt-get install {package}", tier="lab")


@pytest.fixture(scope="session")
def installed_state():
    """With banger installed for alice."""
    from tools.lab.stages import ensure_installed_state

    need_lab()
    make_material("lab")
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        shutil.rmtree(LOGS, ignore_errors=True)
    return ensure_installed_state(DATA / "banger")


@contextmanager
def open_machine(state: "State") -> Iterator[Machine]:
    from tools.lab.states import open_lab

    lab = open_lab(state)
    try:
        yield Machine(lab)
    finally:
        lab.close()


@pytest.fixture(scope="module")
def lab(installed_state: "State") -> Iterator[Machine]:
    """As after the installation: VMs get Firecracker, in a jail, on snapshots, on the bridge."""
    with open_machine(installed_state) as machine:
        yield machine


@pytest.fixture(scope="module", params=["firecracker", "qemu"])
def host(request: pytest.FixtureRequest, installed_state: "State") -> Iterator[Machine]:
    """For what every VMM does; the configuration says which it is, where it would not be chosen."""
    with open_machine(installed_state) as machine:
        if request.param == "qemu":
            machine.configure('vmm = "qemu"\n')
        machine.vmm = request.param
        yield machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    given = getattr(item, "funcargs", {}).values()
    for machine in {value for value in given if isinstance(value, Machine)} if report.failed else ():
        directory = LOGS / item.nodeid.replace("/", ".").replace("::", ".")
        try:
            machine.keep_logs(directory)
            report.sections.append(("lab", f"logs are in {directory}"))
        except Exception as error:  # noqa: BLE001 (the test's own failure is what counts)
            report.sections.append(("lab", f"logs could not be brought: {error}"))
    return report
