"""One user's world on the fake host: directories, configuration, host, daemon, client, and what is left of it all.

Owns a directory, a host process and at most one daemon at a time. `JAILED` VMs are Firecrackers in jails on dm
snapshots and the bridge, `PLAIN` ones QEMUs on copies in user mode.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.load import traps
from tests.support.load.link import HOST, ORDERS, ROOT_SOCKET, HostLink
from tests.support.load.material import make_material

from banger.client.typed import Client

ROOT = Path(__file__).parents[3]
JAILED, PLAIN = "jailed", "plain"
POOL = 1
READY_S = 20.0
_SETTLE_S = 10.0
_COMMON = f'tap_pool_size = {POOL}\n[vm_defaults]\nmemory = "64M"\ndisk_size = "64M"\nsystem_overlay_size = "64M"\nvcpu = 1\n'
_CONFIG = {
    JAILED: 'vmm = "firecracker"\nnetwork = "bridge"\nstorage_driver = "dm-snapshot"\n',
    PLAIN: 'vmm = "qemu"\nnetwork = "user"\nstorage_driver = "copy"\n',
}


class DaemonDied(Exception):
    """Before it was ready; the text is what it said."""


class World:
    """Use `open_world`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.home = Path(tempfile.mkdtemp(prefix="bl-", dir="/tmp"))
        self.daemon = 0
        self.host: HostLink
        self._host_process: subprocess.Popen[bytes]
        self._pidfd = -1

    @property
    def socket(self) -> str:
        return str(self.home / "run" / "daemon.sock")

    @property
    def log(self) -> Path:
        return self.home / "state" / "banger" / "daemon.log"

    @property
    def vm_directories(self) -> tuple[Path, Path]:
        return self.home / "state" / "banger" / "vms", self.home / "run" / "vms"

    def open(self) -> None:
        data = self.home / "data" / "banger"
        data.mkdir(mode=0o700, parents=True)
        make_material(data)
        self.configure("")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            **{f"XDG_{name}_HOME": str(self.home / name.lower()) for name in ("DATA", "STATE", "CACHE")},
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "BANGER_RUNTIME_DIR": str(self.home / "run"),
            "BANGER_ROOT_SOCKET": str(self.home / ROOT_SOCKET),
            HOST: str(self.home / ORDERS),
            traps.ORDERS: str(self.home / "traps.json"),
            "PYTHONPATH": os.pathsep.join(
                path for path in (os.environ.get("PYTHONPATH", ""), str(ROOT / "src"), str(ROOT)) if path
            ),
        }
        with (self.home / "host.err").open("wb") as errors:
            self._host_process = subprocess.Popen(
                (sys.executable, "-m", "tests.support.load.host", str(self.home)),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._host_process.stdout is not None
        if self._host_process.stdout.readline() != b"ready\n":
            raise AssertionError((self.home / "host.err").read_text())
        self.host = HostLink(self.home / ORDERS)

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._host_process.terminate()  # it removes what its jails have in /tmp
        try:
            self._host_process.wait(_SETTLE_S)
        except subprocess.TimeoutExpired:
            self._host_process.kill()
            self._host_process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def configure(self, more: str) -> None:
        file = self.home / "config" / "banger" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_CONFIG[self.kind] + more + _COMMON)

    # The daemon

    def start_daemon(self, orders: Mapping[str, str] | None = None, *arguments: str) -> bool:
        """Returns when it is ready; False when it ended before, by the trap that was ordered. Raises DaemonDied when it
        said why."""
        self._write_orders(orders or {})
        answer, (ready, pidfd) = self.host.order_descriptors(
            "start_daemon", arguments=["--keep-vms", *arguments], environment={}
        )
        self.daemon = answer["pid"]
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = pidfd
        with os.fdopen(ready, "rb") as pipe:
            if not select.select([pipe], [], [], READY_S)[0]:
                raise DaemonDied(f"not ready after {READY_S:.0f} s: {self.read_log()[-2000:]}")
            line = pipe.readline()
        if line and "ready" not in json.loads(line):
            raise DaemonDied(line.decode())
        if not line:  # its pipe is closed, and soon all else that it held: its lock
            assert self.wait_daemon_end()
        return bool(line)

    def wait_daemon_end(self, timeout_s: float = READY_S) -> bool:
        return bool(select.select([self._pidfd], [], [], timeout_s)[0])

    def kill_daemon(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.daemon, signal.SIGKILL)
        assert self.wait_daemon_end()

    def end_daemon(self) -> None:
        """In order, VMs left running."""
        os.kill(self.daemon, signal.SIGTERM)
        assert self.wait_daemon_end(), self.read_log()[-2000:]

    def set_traps(self, orders: Mapping[str, str]) -> None:
        """In the daemon that runs; they count from now on."""
        self._write_orders(orders)
        os.kill(self.daemon, signal.SIGUSR1)

    def _write_orders(self, orders: Mapping[str, str]) -> None:
        (self.home / "traps.json").write_text(json.dumps(dict(orders)))

    def read_log(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.socket) as client:
            yield client

    def describe_host(self) -> dict[str, Any]:
        return self.host.order("describe")


@contextmanager
def open_world(kind: str) -> Iterator[World]:
    world = World(kind)
    world.open()
    try:
        yield world
    finally:
        world.close()


def wait_until_empty(find: Any, *, timeout_s: float = _SETTLE_S) -> list[str]:
    """What `find` still finds when the time is over: work in the background may have a moment to end."""
    deadline = time.monotonic() + timeout_s
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
