"""What a check is given and what it says.

A check tries instead of assuming, changes nothing, and names the fix as a command that works when it is pasted: words
about it belong into the text.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from banger.api.system import Finding
from banger.base.clock import HostTime
from banger.base.paths import INSTALL_RECORD, ROOT_FIRECRACKER, SYSTEM_RUNTIME, Paths
from banger.base.problem import Problem
from banger.images.ownership import Ownership
from banger.model.config import Config
from banger.model.sizing import HostSize
from banger.model.storage import StorageDriver
from banger.model.vm import VmRecord
from banger.network.resolvers import RESOLV_CONF
from banger.privileged.contract.base import Privileged
from banger.services.hostnet.bridge import BridgeNetwork
from banger.services.hostnet.contract import Standing
from banger.storage.choose import Storage


class Verdict(NamedTuple):
    """Of something that was tried: whether it works, and what is to be said about it."""

    works: bool
    text: str
    fix: str | None = None


class Networks(Protocol):
    """The network as far as a check looks at it."""

    @property
    def bridge(self) -> BridgeNetwork | None: ...

    async def settle(self) -> Standing: ...


class Places(NamedTuple):
    """Where this host keeps what checks look at; tests have a host of their own."""

    install_record: Path = Path(INSTALL_RECORD)
    firecracker: Path = Path(ROOT_FIRECRACKER)
    control_groups: Path = Path("/sys/fs/cgroup/banger")
    interfaces: Path = Path("/sys/class/net")
    systemd: Path = Path("/run/systemd/system")
    processes: Path = Path("/proc")
    memory: Path = Path("/proc/meminfo")


class CheckSurroundings(NamedTuple):
    """All that checks may look at. What begins with `try_` tries for real; `choose_storage` tells what a VM that is
    created now gets, and raises Problem. `privileged` is root as jails and disks have it, if there is a way to it.
    `serving_since` is when this daemon began, None where the doctor looks without one. `config_is_known` is false
    where the file cannot be understood, and `config` is all defaults. Tests are their own root, by
    `root_uid`."""

    paths: Paths
    config: Config
    host: HostSize
    try_vmm: Callable[[], Awaitable[Verdict]]
    try_accelerator: Callable[[], Awaitable[Verdict | None]]
    images: Path
    kernels: Path
    guest_program: Path
    ownership: Ownership
    networks: Networks
    privileged: Privileged | None
    storage: Storage
    choose_storage: Callable[[], Awaitable[StorageDriver]]
    try_firecracker: Callable[[], Awaitable[Verdict]]
    root_socket: Path
    root_program: Path
    list_rows: Callable[[], Sequence[VmRecord]]
    list_damaged: Callable[[], Awaitable[Sequence[Problem]]]
    owner_key: Path
    other_config_files: tuple[Path, ...] = ()
    serving_since: HostTime | None = None
    config_is_known: bool = True
    root_uid: int = 0
    places: Places = Places()
    resolv_conf: Path = RESOLV_CONF
    nsswitch_conf: Path = Path("/etc/nsswitch.conf")

    @property
    def start_anew(self) -> str:
        """The command that has the daemon read its configuration again."""
        if self.paths.runtime == SYSTEM_RUNTIME:
            return "sudo banger system restart"
        return "banger daemon restart"


_COMMANDS = frozenset(
    {"banger", "sudo", "chmod", "cp", "export", "journalctl", "kill", "ls", "mv", "python3", "rm", "sed"}
)
Check = Callable[[CheckSurroundings], Awaitable[Finding]]


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def passed(check: str, text: str) -> Finding:
    return Finding(check=check, verdict="pass", text=text)


def warned(check: str, text: str, fix: str | None = None) -> Finding:
    return _advise(check, "warn", text, fix)


def failed(check: str, text: str, fix: str | None = None) -> Finding:
    return _advise(check, "fail", text, fix)


def _advise(check: str, verdict: str, text: str, fix: str | None) -> Finding:
    """Hints of other parts may be words for people; those belong into the text, as a fix is to be pasted."""
    if fix is not None and fix.split(" ", 1)[0] not in _COMMANDS:
        text, fix = f"{text} ({fix})", None
    return Finding(check=check, verdict=verdict, text=text, fix=fix)
