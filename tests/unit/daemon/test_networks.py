"""How wiring finds the way to root, and what it makes of the configuration."""

import os

import pytest

from banger.base.problem import Code, Problem
from banger.base.tasks import Supervisor
from banger.daemon import root_ways, wiring
from banger.daemon.root_ways import WaysToRoot
from banger.model.config import parse_config
from banger.model.vm import NetworkMode
from banger.privileged.client import HelperClient
from banger.privileged.contract.processes import MapIds
from banger.privileged.fake import FakePrivileged
from banger.privileged.inprocess import InProcess
from banger.vmm.identity import find_start_time


@pytest.fixture(autouse=True)
def no_helper(tmp_path, monkeypatch):
    """Whatever is installed on this machine."""
    monkeypatch.delenv("BANGER_ROOT_SOCKET", raising=False)
    monkeypatch.setattr(root_ways, "ROOT_SOCKET", str(tmp_path / "root.sock"))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    return tmp_path / "root.sock"


@pytest.fixture
async def tasks():
    async with Supervisor() as supervisor:
        yield supervisor


@pytest.fixture
def root(monkeypatch):
    fake = FakePrivileged()
    monkeypatch.setattr(WaysToRoot, "_find", lambda self: fake)
    return fake


def configure(text=""):
    return parse_config(text, file="config.toml")


def path_of(client):
    assert isinstance(client, HelperClient)
    return client._path


def test_without_helper_and_root_there_is_no_way():
    assert WaysToRoot().find() is None


def test_an_installed_helper_is_used_even_by_root(no_helper, monkeypatch):
    no_helper.touch()
    assert path_of(WaysToRoot().find()) == no_helper
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert path_of(WaysToRoot().find()) == no_helper


def test_the_environment_names_another_helper_whether_it_is_there_or_not(no_helper, tmp_path, monkeypatch):
    no_helper.touch()
    monkeypatch.setenv("BANGER_ROOT_SOCKET", str(tmp_path / "other.sock"))
    assert path_of(WaysToRoot().find()) == tmp_path / "other.sock"
    monkeypatch.setenv("BANGER_ROOT_SOCKET", "")
    assert path_of(WaysToRoot().find()) == no_helper


async def test_root_without_a_helper_is_its_own(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    ways = WaysToRoot()
    first, second = ways.find(), ways.find()
    assert (first.kind, second.kind) == ("in-process", "in-process")
    assert isinstance(ways._own, InProcess)  # one for the whole host, and for all in this daemon
    await first.close()
    closed = []
    monkeypatch.setattr(ways._own, "close", lambda: _note(closed))
    await second.close()
    assert closed == []
    await ways.close()
    assert closed == ["closed"]


async def _note(closed):
    closed.append("closed")


def test_who_asks_the_helper_never_waits_for_another_s_answer(no_helper):
    no_helper.touch()
    ways = WaysToRoot()
    assert ways.find() is not ways.find()


async def test_without_a_helper_the_reason_says_how_to_get_one(tasks):
    networks = wiring.open_networks(configure(), WaysToRoot(), tasks)
    standing = await networks.choose()
    assert (standing.mode, standing.reason, standing.hint) == (
        NetworkMode.USER,
        "no root helper is installed",
        "sudo banger system install",
    )


async def test_who_wants_user_mode_is_not_offered_the_bridge(tasks, root):
    networks = wiring.open_networks(configure('network = "user"'), WaysToRoot(), tasks)
    assert networks.bridge is None
    standing = await networks.choose()
    assert standing.mode is NetworkMode.USER
    assert standing.reason == 'the configuration says network = "user"'
    assert root.calls == []


async def test_the_configuration_is_what_the_bridge_becomes(tasks, root):
    config = configure(
        """
        network = "bridge"
        bridge_name = "br-banger7"
        bridge_cidr = "192.168.77.1/28"
        tap_pool_size = 3
        allow_networks = ["192.168.1.0/24"]
        allow_host_ports = [5432]
        allow_guests = true
        """
    )
    networks = wiring.open_networks(config, WaysToRoot(), tasks)
    assert root.calls == []  # nothing is opened yet
    assert (await networks.choose()).mode is NetworkMode.BRIDGE
    assert (root.bridge, root.address) == ("br-banger7", "192.168.77.1/28")
    assert root.policy.allowed == ("192.168.1.0/24",)
    assert (root.policy.host_ports, root.policy.guests) == ((5432,), True)
    assert networks.reserve_address("", set()) == "192.168.77.2"
    (made,) = [request for request in root.calls if request.method == "create_taps"]
    assert made.count == 3
    await networks.close()


async def test_a_helper_that_is_not_there_is_user_mode_and_told(tasks, tmp_path, monkeypatch):
    monkeypatch.setenv("BANGER_ROOT_SOCKET", str(tmp_path / "nobody.sock"))
    networks = wiring.open_networks(configure(), WaysToRoot(), tasks)
    standing = await networks.choose()
    assert standing.mode is NetworkMode.USER
    assert standing.reason
    assert standing.hint
    await networks.close()


async def test_ids_are_mapped_by_the_helper_also_in_user_mode(root):
    start_time = find_start_time(os.getpid())
    root.processes[os.getpid()] = start_time
    root.unmapped.add(os.getpid())
    await WaysToRoot().map_ids(os.getpid())
    assert root.calls == [MapIds(pid=os.getpid(), start_time=start_time)]
    with pytest.raises(Problem) as caught:
        await WaysToRoot().map_ids(os.getpid())
    assert caught.value.code is Code.CONFLICT


async def test_without_a_helper_no_ids_are_mapped():
    with pytest.raises(Problem, match="no root helper is installed") as caught:
        await WaysToRoot().map_ids(os.getpid())
    assert caught.value.hint == "sudo banger system install"
