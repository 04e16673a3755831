"""W1: a repository on its way into a real guest, against the same files by `tar | ssh tar`, on the same VM.

The repository is a clone of this project's, with all its history, of which one commit may go. Both make a new
directory in each round. What the clone, the VM and the removals take is not measured.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.bench.cli import clean_environment
from tools.bench.measure import Result, compare

ROOT = Path(__file__).parents[2]
ROUNDS = 7
TARGET = 3.0
_OF_SSH = (
    "-F", "/dev/null", "-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null",
    "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-o", "KexAlgorithms=^curve25519-sha256",
)  # fmt: skip


class Banger:
    """The command line of a user who has nothing but kernel and image."""

    def __init__(self, home: Path) -> None:
        self._environment = clean_environment(
            HOME=str(home),
            PYTHONPATH=str(ROOT / "src"),
            XDG_DATA_HOME=os.environ.get("BANGER_TEST_DATA") or str(ROOT / "build" / "test-data"),
            XDG_STATE_HOME=str(home / "state"),
            XDG_CONFIG_HOME=str(home / "config"),
            XDG_CACHE_HOME=str(home / "cache"),
            BANGER_RUNTIME_DIR=str(home / "run"),
            BANGER_ROOT_SOCKET=str(home / "no-helper.sock"),
        )

    def run(self, *arguments: str) -> bytes:
        argv = (sys.executable, "-m", "banger.cli", *arguments)
        done = subprocess.run(
            argv, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def show(self, name: str) -> Any:
        return json.loads(self.run("vm", "show", name, "--json"))


def run() -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="bw", dir="/tmp") as work:
        clone = Path(work) / "project"
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(clone)], check=True)
        banger = Banger(Path(work))
        try:
            banger.run("vm", "create", "--name", "bench", "--wait-ssh")
            result = _compare(banger, clone)
            banger.run("vm", "delete", "--force", "bench")
        finally:
            banger.run("daemon", "stop")
    return [result]


def _compare(banger: Banger, clone: Path) -> Result:
    ssh = _render_ssh(banger)
    _candidate(banger, clone, "/root/warm-a")
    _reference(ssh, clone, "/root/warm-b")
    candidates, references = [], []
    for number in range(ROUNDS):
        candidates.append(_candidate(banger, clone, f"/root/a{number}"))
        references.append(_reference(ssh, clone, f"/root/b{number}"))
        banger.run("vm", "exec", "bench", "-w", "/", "--", "sh", "-c", "rm -rf /root/a* /root/b*; sync")
        print(f"  {candidates[-1]:.2f} s, {references[-1]:.2f} s", file=sys.stderr)
    what = "a repository goes in, against tar | ssh tar"
    return compare("W1", what, candidates, references, unit="s", at_most=TARGET)


def _candidate(banger: Banger, clone: Path, place: str) -> float:
    began = time.perf_counter()
    banger.run("workspace", "prepare", "-q", "bench", str(clone), "--guest-path", place)
    return time.perf_counter() - began


def _reference(ssh: list[str], clone: Path, place: str) -> float:
    """The working tree alone: no history goes this way either."""
    began = time.perf_counter()
    with subprocess.Popen(["tar", "-c", "--exclude=.git", "."], cwd=clone, stdout=subprocess.PIPE) as tar:
        command = f"mkdir {place} && tar -x -C {place}"
        subprocess.run([*ssh, command], stdin=tar.stdout, check=True)
    return time.perf_counter() - began


def _render_ssh(banger: Banger) -> list[str]:
    """As `vm ssh` does it."""
    ssh = banger.show("bench")["ssh"]
    files = (
        "-o",
        f"UserKnownHostsFile={ssh['known_hosts_file']}",
        "-o",
        f"HostKeyAlias={ssh['host_key_alias']}",
    )
    where = ("-i", ssh["identity_file"], "-p", str(ssh["port"]), f"{ssh['user']}@{ssh['host']}")
    return ["ssh", *_OF_SSH, *files, *where]
