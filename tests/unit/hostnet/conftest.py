from collections.abc import AsyncIterator

import pytest
from tests.unit.hostnet.places import FakeNames, SlowRoot, list_open, open_bridge, settle

from banger.base.tasks import Supervisor
from banger.privileged.contract.network import EnsureBridge
from banger.services.hostnet.bridge import BridgeNetwork


@pytest.fixture
async def root() -> AsyncIterator[SlowRoot]:
    """A host without a bridge. Afterwards no descriptor is open that was not before, so no tap is left either."""
    before = list_open()
    host = SlowRoot()
    yield host
    await settle()
    host.before.clear()
    host.after.clear()
    await host.close()
    assert not host.taps, "the test left taps"
    assert not list_open() - before, "the test left descriptors"


@pytest.fixture
async def tasks(root) -> AsyncIterator[Supervisor]:
    async with Supervisor() as supervisor:
        yield supervisor


@pytest.fixture
async def bridged(root) -> SlowRoot:
    """The host with a bridge and nothing on it."""
    await root.call(EnsureBridge(bridge="br-banger", address="10.209.0.1/24"))
    root.forget()
    return root


@pytest.fixture(autouse=True)
def _plain_names(monkeypatch):
    """`test_names` has the real ones."""
    monkeypatch.setattr("banger.services.hostnet.zone.NameServer", FakeNames)


@pytest.fixture
async def bridge(root) -> AsyncIterator[BridgeNetwork]:
    """Open and warm, with nobody on it."""
    async with open_bridge(root) as opened:
        yield opened
        root.missing.clear()
        root.before.clear()
        root.after.clear()
