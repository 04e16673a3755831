"""The command line of one user, as that user types it, and kernel and image to boot from.

Kernel and image are made by the first run on a machine and kept in build/, for all tiers.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.support.tiers import skip_or_fail

from banger.base.process import find_tool

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BANGER_TEST_DATA") or ROOT / "build" / "test-data")
LOGS = ROOT / "build" / "vm-logs"


class Banger:
    """The command line of one user, with directories of their own."""

    def __init__(self, home: Path, data: Path = DATA, state: Path | None = None) -> None:
        """Disks are under `state`, which wants a real disk: /tmp may be small. Sockets need the short `home`."""
        self.home = home
        self.state = state or home / "state"
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "XDG_DATA_HOME": str(data),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(self.state),
            "XDG_CACHE_HOME": str(home / "cache"),
            "BANGER_RUNTIME_DIR": str(home / "run"),
            "BANGER_ROOT_SOCKET": str(
                home / "no-helper.sock"
            ),  # root's daemon would take this machine's network
            "PYTHONPATH": str(ROOT / "src"),
        }

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "banger.cli", *arguments]

    def run(self, *arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
        options.setdefault("timeout", 600)
        if "input" in options:
            del options["stdin"]
        done = subprocess.run(self.argv(*arguments), env=self.environment, capture_output=True, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"banger {' '.join(arguments)}: {done.returncode}\n{done.stderr.decode()}")
        return done

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        return subprocess.Popen(self.argv(*arguments), env=self.environment, **options)

    def json(self, *arguments: str):
        return json.loads(self.run(*arguments, "--json").stdout)

    def guest(self, name: str, *command: str, **options) -> str:
        return self.run("vm", "exec", name, "--", *command, **options).stdout.decode()

    def kill_daemon(self) -> None:
        """Returns when it has died: who asks before may get to a socket that nobody serves any more."""
        pid = self.json("daemon", "status")["pid"]
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)

    def configure(self, text: str) -> Path:
        """Writes config.toml; a daemon reads it when it starts."""
        file = self.home / "config" / "banger" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(text)
        return file

    @property
    def log(self) -> Path:
        return self.state / "banger" / "daemon.log"

    def vm_directories(self) -> list[Path]:
        return [*(self.state / "banger" / "vms").glob("*"), *(self.home / "run" / "vms").glob("*")]

    def vmm_processes(self) -> list[int]:
        """QEMU processes of this user's VMs: their command lines name our directories."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_bytes()
            except OSError:
                continue
            if str(self.state).encode() in line and b"qemu-system" in line.split(b"\0")[0]:
                found.append(int(entry.parent.name))
        return found

    def leftovers(self) -> list[object]:
        return [*self.vm_directories(), *self.vmm_processes(), *self.json("vm", "list", "--all")["vms"]]


def refused(banger: Banger, *arguments: str, status: int, words: str, hint: str = "hint: ") -> str:
    """Runs what must fail: this exit status, one line of error with these words, a hint. Returns all it said."""
    done = banger.run(*arguments, check=False)
    text = done.stderr.decode()
    assert done.returncode == status, text
    lines = [line for line in text.splitlines() if line.startswith("banger: ")]
    assert len(lines) == 1, text
    assert words in lines[0], text
    assert hint in text, text
    assert "Traceback" not in text
    return text


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def keep_log(source: Path, name: str) -> None:
    """Logs outlive the directories they are in, for who looks into a failure."""
    LOGS.mkdir(parents=True, exist_ok=True)
    if source.exists():
        shutil.copy(source, LOGS / name)


def open_home() -> Iterator[Banger]:
    home = Path(tempfile.mkdtemp(prefix="bv-", dir="/tmp"))
    banger = Banger(home, state=ROOT / "build" / "test-state" / home.name)
    try:
        yield banger
        banger.run("daemon", "stop", check=False)
        assert banger.vmm_processes() == []
    finally:
        keep_log(banger.log, f"{home.name}.log")
        shutil.rmtree(home)
        shutil.rmtree(banger.state, ignore_errors=True)


@cache
def make_material(tier: str) -> Path:
    """Kernel and image, in DATA. Returns a directory with links to vmlinux, base.cpio and rootfs.ext4, for tests
    that boot without a daemon."""
    if find_tool("qemu-system-x86_64") is None:
        skip_or_fail("qemu-system-x86_64 is not installed: tools/packages test", tier=tier)
    DATA.mkdir(parents=True, exist_ok=True)
    with (DATA / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run side by side
        for banger in open_home():
            kernel = banger.json("kernel", "pull")
            image = banger.json("image", "build")
        kernels, images = (DATA / "banger" / kind for kind in ("kernels", "images"))
        links = DATA / "links"
        links.mkdir(exist_ok=True)
        for name, target in {
            "vmlinux": kernels / kernel["name"] / "vmlinux",
            "base.cpio": kernels / kernel["name"] / kernel["base_initramfs"],
            "rootfs.ext4": images / image["name"] / "rootfs.ext4",
        }.items():
            new = links / f"{name}.new"
            new.unlink(missing_ok=True)
            new.symlink_to(target.resolve())
            new.replace(links / name)
    return links
