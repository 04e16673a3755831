"""Real guests, a real helper and an ordinary user, in network namespaces of their own."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.host.world import CREATE, POOL, PORT, World, open_world, wait_created, wait_until
from tests.support.banger import ROOT, Banger, make_material
from tests.support.tiers import require_host, skip_or_fail
from tests.support.unprivileged import NOBODY, find_python, render_environment

TOOLS = {
    "nft": "nftables",
    "ip": "iproute2",
    "dig": "bind9-dnsutils",
    "curl": "curl",
    "ssh": "openssh-client",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.host)


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter for nobody, after a look at everything else that a world needs."""
    require_host(TOOLS)
    found = find_python(render_environment(Banger(Path("/nonexistent")).environment))
    if found is None:
        skip_or_fail(f"uid {NOBODY} may not read {ROOT} or run its Python", tier="host")
    return found


@pytest.fixture(scope="session")
def material() -> Path:
    return make_material("host")


@pytest.fixture(scope="module")
def world(material: Path, python: str) -> Iterator[World]:
    """An empty world for a module. When it ends, the host must be as it was before the helper came."""
    with open_world(python) as world:
        yield world


@pytest.fixture(scope="session")
def shared_world(material: Path, python: str) -> Iterator[World]:
    """`a` has NAT, `b` has not, both run and serve on PORT. Tests leave all of it as they found it."""
    with open_world(python) as world:
        flags = (("--nat", "a"), ("b",))
        wait_created([world.user.start(*CREATE, *each, stderr=subprocess.PIPE) for each in flags])
        for name in ("a", "b"):
            world.user.serve(name, f"tcp:{PORT}", f"udp:{PORT}")
        yield world


@pytest.fixture
def guests(shared_world: World) -> Iterator[World]:
    """The shared world, with a proof that the test has left nothing on the host and taken nothing away."""
    world = shared_world
    world.user.run("daemon", "start")  # the test before may have left none
    wait_until(lambda: world.traces().parked == POOL, "the pool of taps is full")
    before = world.traces()
    yield world
    world.wait_traces(before)
    assert [vm["name"] for vm in world.user.json("vm", "list", "--all")["vms"]] == ["a", "b"]
