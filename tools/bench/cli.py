"""P7: `banger vm list` with 100 VMs against a Python that does nothing, and the modules it imports."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tools.bench.measure import Result, compare

ROUNDS = 31
FORBIDDEN = ("asyncio", "dataclasses", "msgspec", "qemu", "cryptography", "lz4", "zstandard")


def run(python: Path, script: Path, environment: dict[str, str]) -> Result:
    """`script` is the installed command; a daemon with the VMs runs in `environment`."""
    command = [str(script), "vm", "list", "--all"]
    reference = [str(python), "-S", "-E", "-I", "-c", "pass"]
    candidates: list[float] = []
    references: list[float] = []
    for _ in range(ROUNDS):
        candidates.append(_time(command, environment))
        references.append(_time(reference, environment))
    return compare(
        "P7", "vm list, 100 VMs / python -S -E -I -c pass", candidates, references, unit="s", at_most=2.5
    )


def list_imports(python: Path, environment: dict[str, str]) -> list[str]:
    """The modules that `vm list` has imported when it ends."""
    program = (
        "import sys; from banger.cli.main import entry\n"
        "sys.argv = ['banger', 'vm', 'list', '--all']\n"
        "try: entry()\n"
        "except SystemExit: pass\n"
        "import json; print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([python, "-I", "-c", program], env=environment, capture_output=True, check=True)
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules


def find_forbidden(modules: list[str]) -> list[str]:
    return [name for name in modules if name.partition(".")[0] in FORBIDDEN]


def _time(command: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def clean_environment(**extra: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **extra}


def default_python() -> Path:
    return Path(sys.executable)
