"""The one place of the helper where a process begins: resolvectl, and nft where its library is missing.

Absolute programs from a closed list of directories, argv tuples, a clean environment, always a deadline.
"""

import os
import subprocess
from typing import NamedTuple

from banger.privileged.contract.values import Refusal

DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_ENVIRONMENT = {"PATH": ":".join(DIRECTORIES), "LC_ALL": "C.UTF-8"}
_TAIL_LINES = 3


class Completed(NamedTuple):
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def complaint(self) -> str:
        """The last lines of stderr, on one line."""
        return "; ".join(self.stderr.decode("utf-8", "replace").strip().splitlines()[-_TAIL_LINES:])


def find_program(name: str) -> str | None:
    for directory in DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    return None


def run_program(argv: tuple[str, ...], *, stdin: bytes = b"", deadline_s: float) -> Completed:
    """Its status and output. Raises Refusal at the deadline; the program is killed then."""
    assert argv[0].startswith("/"), argv[0]
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            timeout=deadline_s,
            env=_ENVIRONMENT,
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refusal("unavailable", f"{argv[0]} did not end within {deadline_s:g} s") from None
    return Completed(done.returncode, done.stdout, done.stderr)
