"""Real guests under emulation, each module with a banger of its own. Kernel and images are made once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.banger import Banger, make_material, open_home
from tests.support.tiers import skip_or_fail

from banger.daemon.composition import GUEST_PROGRAM


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def material() -> Path:
    return make_material("vm")


@pytest.fixture(scope="session")
def guest_program() -> Path:
    program = Path(os.environ.get("BANGER_TEST_INIT") or GUEST_PROGRAM)
    if not program.exists():
        skip_or_fail(f"{program} is missing: make guest-program", tier="vm")
    return program


@pytest.fixture(scope="module")
def banger(material: Path) -> Iterator[Banger]:
    yield from open_home()


@pytest.fixture(scope="module")
def vm(banger: Banger) -> str:
    """One running VM that a module's tests share and leave as they found it."""
    banger.run("vm", "create", "--name", "shared", "--memory", "384M", "--wait-ssh")
    return "shared"
