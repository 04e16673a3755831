"""What a check is given and what it says."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from banger.api.system import Finding
from banger.base.paths import Paths
from banger.images.ownership import Ownership
from banger.model.config import Config
from banger.model.sizing import HostSize
from banger.model.storage import StorageDriver
from banger.network.resolvers import RESOLV_CONF
from banger.privileged.contract.base import Privileged
from banger.services.hostnet.service import HostNetwork
from banger.storage.choose import Storage


class Verdict(NamedTuple):
    """Of something that was tried: whether it works, and what is to be said about it."""

    works: bool
    text: str
    fix: str | None = None


class CheckSurroundings(NamedTuple):
    """All that checks may look at. What begins with `try_` tries for real; `choose_storage` tells what a VM that is
    created now gets, and raises Problem. `privileged` is root as jails and disks have it, if there is a way to it.
    Tests are their own root, by `root_uid`."""

    paths: Paths
    config: Config
    host: HostSize
    try_vmm: Callable[[], Awaitable[Verdict]]
    try_accelerator: Callable[[], Awaitable[Verdict | None]]
    images: Path
    kernels: Path
    guest_program: Path
    ownership: Ownership
    networks: HostNetwork
    privileged: Privileged | None
    storage: Storage
    choose_storage: Callable[[], Awaitable[StorageDriver]]
    try_firecracker: Callable[[], Awaitable[Verdict]]
    root_socket: Path
    root_program: Path
    root_uid: int = 0
    resolv_conf: Path = RESOLV_CONF
    nsswitch_conf: Path = Path("/etc/nsswitch.conf")


Check = Callable[[CheckSurroundings], Awaitable[Finding]]


def passed(check: str, text: str) -> Finding:
    return Finding(check=check, verdict="pass", text=text)


def warned(check: str, text: str, fix: str | None = None) -> Finding:
    return Finding(check=check, verdict="warn", text=text, fix=fix)


def failed(check: str, text: str, fix: str | None = None) -> Finding:
    return Finding(check=check, verdict="fail", text=text, fix=fix)
