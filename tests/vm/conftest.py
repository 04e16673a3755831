"""A user's banger of its own: the command line, a daemon, real guests. Kernel and images are made once."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.base.process import find_tool
from banger.daemon.wiring import GUEST_PROGRAM

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BANGER_TEST_DATA") or ROOT / "build" / "test-data")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(900))


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
            "PYTHONPATH": str(ROOT / "src"),
        }

    @staticmethod
    def argv(*arguments: str) -> list[str]:
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


def open_home() -> Iterator[Banger]:
    home = Path(tempfile.mkdtemp(prefix="bv-", dir="/tmp"))
    banger = Banger(home, state=ROOT / "build" / "test-state" / home.name)
    try:
        yield banger
        banger.run("daemon", "stop", check=False)
        assert banger.vmm_processes() == []
    finally:
        logs = ROOT / "build" / "vm-logs"
        logs.mkdir(parents=True, exist_ok=True)
        if (banger.state / "banger" / "daemon.log").exists():
            shutil.copy(banger.state / "banger" / "daemon.log", logs / f"{home.name}.log")
        shutil.rmtree(home)
        shutil.rmtree(banger.state, ignore_errors=True)


def skip_or_fail(reason: str) -> None:
    """A missing need skips, and fails where CI names the tier as required."""
    if "vm" in os.environ.get("BANGER_REQUIRED_TIERS", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def material() -> Path:
    """Kernel and image, made by the first run on a machine and kept in build/. A directory with links to
    vmlinux, base.cpio and rootfs.ext4, for tests that boot without a daemon."""
    if find_tool("qemu-system-x86_64") is None:
        skip_or_fail("qemu-system-x86_64 is not installed: tools/packages test")
    DATA.mkdir(parents=True, exist_ok=True)
    for banger in open_home():
        kernel = banger.json("kernel", "pull")
        image = banger.json("image", "build")
    links = DATA / "links"
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir()
    kernels, images = DATA / "banger" / "kernels" / kernel["name"], DATA / "banger" / "images" / image["name"]
    (links / "vmlinux").symlink_to((kernels / "vmlinux").resolve())
    (links / "base.cpio").symlink_to((kernels / kernel["base_initramfs"]).resolve())
    (links / "rootfs.ext4").symlink_to((images / "rootfs.ext4").resolve())
    return links


@pytest.fixture(scope="session")
def guest_program() -> Path:
    program = Path(os.environ.get("BANGER_TEST_INIT") or GUEST_PROGRAM)
    if not program.exists():
        skip_or_fail(f"{program} is missing: make guest-program")
    return program


@pytest.fixture(scope="module")
def banger(material: Path) -> Iterator[Banger]:
    yield from open_home()


@pytest.fixture(scope="module")
def vm(banger: Banger) -> str:
    """One running VM that a module's tests share and leave as they found it."""
    banger.run("vm", "create", "--name", "shared", "--memory", "384M", "--wait-ssh")
    return "shared"
