from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.unit.usage.places import Host, Vms

from banger.services.usage.sampling import Sampler
from banger.services.usage.service import UsageService


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
async def vms(tmp_path: Path) -> AsyncIterator[Vms]:
    async with AsyncExitStack() as links:
        yield Vms(links, tmp_path / "guests")


@pytest.fixture
def sampler(vms: Vms, host: Host) -> Sampler:
    return Sampler(vms, lambda vm: vm.runtime.pid * 1000 if vm.runtime else 7, files=host.files)


@pytest.fixture
def usage(vms: Vms, sampler: Sampler) -> UsageService:
    return UsageService(vms, sampler)
