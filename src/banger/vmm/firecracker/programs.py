"""Which Firecracker runs here without a jail: a configured one, the one that root has set up, or the owner's own; its
version, and whether it may be trusted. (In a jail it is root's choice: `privileged/helper/vmm_programs.py`.)

Owns nothing. A program that others may write to is refused: it runs guests with the owner's rights.
"""

import os
import re
import stat
from pathlib import Path

from banger.base.paths import ROOT_PROGRAM
from banger.base.problem import Code, Outcome, Problem, unavailable
from banger.base.process import run

VERSION = "1.12.1"  # what `obtain` brings
OLDEST, TOO_NEW = (1, 10), (2, 0)
HINT = "banger setup firecracker"
ROOTS_DIRECTORY = Path(ROOT_PROGRAM).parent / "firecracker"  # what root has set up, the helper's too
_VERSION = re.compile(rb"v(\d+)\.(\d+)\.(\d+)")
_TRIAL_S = 5.0


def managed_program(directory: Path, name: str = "firecracker") -> Path:
    """Where a program is below a managed directory."""
    return directory / VERSION / name


def get_program(configured: str | None, directory: Path | None) -> str:
    """An executable file that only root and we may change. Raises `unavailable` when there is none."""
    if configured:
        path = Path(configured)
        if not path.is_absolute() or not os.access(path, os.X_OK):
            raise unavailable(f"firecracker_bin {configured} cannot be executed", hint=f"ls -l {configured}")
    else:
        path = _find_managed(directory)
    verify_unwritable(path)
    return str(path)


def _find_managed(directory: Path | None) -> Path:
    """Root's before the owner's: what only root can change is the better one."""
    for place in (ROOTS_DIRECTORY, directory):
        if place is not None and os.access(path := managed_program(place), os.X_OK):
            return path
    raise unavailable("Firecracker is not installed", hint=HINT)


def verify_unwritable(path: Path) -> None:
    """Raises `unauthorized` when the file or its directory belongs to or may be written by somebody else."""
    for place in (path, path.parent):
        state = place.stat()
        if state.st_uid not in (0, os.getuid()):
            raise _untrusted(place, f"belongs to uid {state.st_uid}", f"sudo chown root: {place}")
        sticky = stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX
        if state.st_mode & 0o022 and not sticky:
            how = f"may be written by others (mode {stat.S_IMODE(state.st_mode):04o})"
            raise _untrusted(place, how, f"chmod go-w {place}")


async def read_version(program: str) -> str:
    """Raises `unavailable` for a program that names none or one out of range."""
    try:
        done = await run((program, "--version"), timeout_s=_TRIAL_S)
    except Problem as error:
        raise unavailable(f"{program} does not run", hint=HINT, detail=error.detail) from error
    match = _VERSION.search(done.stdout)
    if match is None:
        raise unavailable(f"{program} names no version", hint=HINT)
    version = match[0].decode().removeprefix("v")
    if not OLDEST <= (int(match[1]), int(match[2])) < TOO_NEW:
        wanted = f"{OLDEST[0]}.{OLDEST[1]} or newer, and before {TOO_NEW[0]}.{TOO_NEW[1]}, is wanted"
        raise unavailable(f"{program} is Firecracker {version}: {wanted}", hint=HINT)
    return version


def _untrusted(path: Path, why: str, hint: str) -> Problem:
    return Problem(Code.UNAUTHORIZED, f"{path} {why}", hint=hint, outcome=Outcome.NOT_STARTED)
