"""An ordinary user, for tests that root runs: who it is, an interpreter that it may run, material that it may read."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.banger import DATA

NOBODY = 65534  # has a name: ssh refuses users without one
DROP = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")


def render_environment(environment: dict[str, str]) -> dict[str, str]:
    """Python packages are found where ours are; the tree, which is not nobody's, is not written to."""
    path = f"{environment['PYTHONPATH']}:{Path(pytest.__file__).parents[1]}"
    return environment | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def find_python(environment: dict[str, str]) -> str | None:
    """Ours, or the system's of the same version. Tried by a shell: setpriv itself still has its capabilities."""
    for python in (sys.executable, "/usr/bin/python3"):
        program = f"import sys, msgspec, banger.daemon.wiring; assert sys.version_info[:2] == {sys.version_info[:2]}"
        probe = [*DROP, "/bin/sh", "-c", 'exec "$0" -c "$1"', python, program]
        if subprocess.run(probe, capture_output=True, env=environment).returncode == 0:
            return python
    return None


def copy_material(target: Path) -> None:
    """The owner's SSH key and the locks are beside the images, so each user has a copy of the whole."""
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", str(DATA), str(target)], check=True)
    give_away(target)


def give_away(path: Path) -> None:
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(path)], check=True)
