"""The real Firecracker and a freestanding guest, where /dev/kvm runs one: milliseconds a test, no Linux."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.native.bench import NativeBench
from tests.support.firecracker import build_mini_guest, need_native


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.native)
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(scope="session")
def firecracker() -> Path:
    return need_native().firecracker


@pytest.fixture(scope="session")
def mini_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_mini_guest(tmp_path_factory.mktemp("mini"))


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """For sockets: pytest's own directories can exceed what a socket's path may have."""
    path = Path(tempfile.mkdtemp(prefix="bn-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def bench(firecracker: Path, mini_kernel: Path, short_directory: Path) -> AsyncIterator[NativeBench]:
    made = NativeBench(short_directory, mini_kernel, firecracker)
    yield made
    left = await made.end()
    assert not left, f"the test left {left} behind"
