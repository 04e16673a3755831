from contextlib import AsyncExitStack

import pytest
from tests.unit.sessions.places import World


@pytest.fixture
async def world(tmp_path):
    async with AsyncExitStack() as stack:
        world = World(tmp_path, stack)
        await world.begin()
        yield world


@pytest.fixture
async def vm(world):
    return await world.add_vm()
