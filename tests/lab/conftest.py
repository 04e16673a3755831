"""One restored lab for each module. What a failed test leaves in its lab is kept in build/lab-logs/."""

import shutil
from collections.abc import Iterator

import pytest
from tests.lab.machine import Machine
from tests.support.banger import DATA, ROOT, make_material
from tests.support.tiers import skip_or_fail

from banger.base.process import find_tool

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
    shutil.rmtree(LOGS, ignore_errors=True)
    return ensure_installed_state(DATA / "banger")


@pytest.fixture(scope="module")
def lab(installed_state) -> Iterator[Machine]:
    from tools.lab.states import open_lab

    lab = open_lab(installed_state)
    try:
        yield Machine(lab)
    finally:
        lab.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    machine = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(machine, Machine):
        directory = LOGS / item.nodeid.replace("/", ".").replace("::", ".")
        try:
            machine.keep_logs(directory)
            report.sections.append(("lab", f"logs are in {directory}"))
        except Exception as error:  # noqa: BLE001 (the test's own failure is what counts)
            report.sections.append(("lab", f"logs could not be brought: {error}"))
    return report
