"""Machines of the test's own. Each is made anew: half a second."""

from pathlib import Path

import pytest
from tests.host.installation.machine import Machine, find_cgroups
from tests.support.tiers import require_host, skip_or_fail

TOOLS = {"setpriv": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables"}


def open_machine(*, systemd: bool):
    require_host(TOOLS)
    if systemd and not Path("/lib/systemd/systemd").exists():
        skip_or_fail("systemd is not installed: apt-get install systemd dbus", tier="host")
    try:
        find_cgroups()
    except FileNotFoundError as error:
        skip_or_fail(str(error), tier="host")
    return Machine(systemd=systemd)


@pytest.fixture
def machine():
    """With systemd as PID 1."""
    machine = open_machine(systemd=True)
    yield machine
    machine.close()


@pytest.fixture
def plain_machine():
    """Without systemd, like a container."""
    machine = open_machine(systemd=False)
    yield machine
    machine.close()
