"""The programs that an installation runs: argv tuples, absolute, a clean environment, no stdin, always a deadline."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from banger.base.process import clean_environment, render_failure
from banger.client.wire import Failure

Argv = tuple[str, ...]


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str


def run(
    argv: Argv,
    *,
    timeout_s: float,
    check: bool = True,
    extra_env: Mapping[str, str] | None = None,
    **options: Any,
) -> Ended:
    """Raises Failure on a non-zero status (unless `check` is off), on the deadline, and without the program."""
    assert Path(argv[0]).is_absolute(), argv[0]
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=clean_environment(extra_env),
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(
            "operation_failed", f"{' '.join(argv)} did not finish within {timeout_s:.0f} s", outcome="unknown"
        ) from error
    except OSError as error:
        raise Failure("unavailable", f"{argv[0]} cannot be executed: {error.strerror}") from error
    if check and done.returncode != 0:
        detail = render_failure(argv, done.returncode, done.stderr or done.stdout)
        raise Failure("operation_failed", f"{name} failed", detail=detail, outcome="failed")
    return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
