"""The interpreter that the machines install banger from: ours, or one like it where alice may not run ours."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import msgspec
from tests.support.tiers import skip_or_fail

import banger

ALICE = 4242
_SYSTEMS = "/usr/bin/python3"
_PLACE = Path(__file__).parents[3] / "build" / "machines-python"
_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
_TRY = (
    *("setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", "--", "/bin/sh", "-c"),
    'exec "$0" -P -c "import sys, msgspec, banger; print(*sys.version_info[:2], sep=chr(46))"',
)


@cache
def find_python() -> str:
    """A Python that belongs to somebody's home, as pyenv's does, is closed to everybody else: then a virtual environment
    of the system's Python is made, which shares our packages."""
    if _can_run(sys.executable):
        return sys.executable
    shutil.rmtree(_PLACE, ignore_errors=True)
    subprocess.run((_SYSTEMS, "-m", "venv", "--without-pip", _PLACE), check=True)
    packages = _PLACE / "lib" / f"python{_VERSION}" / "site-packages"
    if not packages.is_dir():
        skip_or_fail(
            f"{_SYSTEMS} is no Python {_VERSION}, and alice may not run {sys.executable}", tier="host"
        )
    ours = (Path(module.__file__ or "").parents[1] for module in (msgspec, banger))
    (packages / "ours.pth").write_text("".join(f"{path}\n" for path in ours))
    python = str(_PLACE / "bin" / "python")
    if not _can_run(python):
        skip_or_fail(f"alice may run neither {sys.executable} nor {python}", tier="host")
    return python


def _can_run(python: str) -> bool:
    done = subprocess.run((*_TRY, python), capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == _VERSION
