"""What a tier needs and this machine may not have. A need is probed by trying it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from banger.base.process import find_tool


def skip_or_fail(reason: str, *, tier: str) -> NoReturn:
    """A missing need skips, and fails where CI names the tier as required."""
    if tier in os.environ.get("BANGER_REQUIRED_TIERS", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


def require_host(tools: Mapping[str, str]) -> None:
    """What every test of the host tier needs: root, a TUN device, and these tools, each with its package."""
    if os.getuid() != 0:
        skip_or_fail("the host tier needs root", tier="host")
    for tool, package in tools.items():
        if find_tool(tool) is None:
            skip_or_fail(f"{tool} is not installed: apt-get install {package}", tier="host")
    if not Path("/dev/net/tun").exists():
        skip_or_fail("this host has no TUN device: modprobe tun", tier="host")
