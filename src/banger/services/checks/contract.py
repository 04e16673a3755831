"""What a check is given and what it says."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from banger.api.system import Finding
from banger.base.paths import Paths
from banger.model.config import Config
from banger.model.sizing import HostSize


class Verdict(NamedTuple):
    """Of something that was tried: whether it works, and what is to be said about it."""

    works: bool
    text: str
    fix: str | None = None


class CheckSurroundings(NamedTuple):
    """All that checks may look at. The two callables try the VMM and the accelerator for real."""

    paths: Paths
    config: Config
    host: HostSize
    try_vmm: Callable[[], Awaitable[Verdict]]
    try_accelerator: Callable[[], Awaitable[Verdict | None]]
    images: Path
    kernels: Path
    guest_program: Path


Check = Callable[[CheckSurroundings], Awaitable[Finding]]


def passed(check: str, text: str) -> Finding:
    return Finding(check=check, verdict="pass", text=text)


def warned(check: str, text: str, fix: str | None = None) -> Finding:
    return Finding(check=check, verdict="warn", text=text, fix=fix)


def failed(check: str, text: str, fix: str | None = None) -> Finding:
    return Finding(check=check, verdict="fail", text=text, fix=fix)
