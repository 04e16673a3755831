"""The lab as tests see it: commands in it, banger as its owner types it, what is left over, and its logs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.lab.channel import Done
from tools.lab.host import Lab
from tools.lab.recipe import OWNER
from tools.lab.stages import BANGER

TRACES = (Path(__file__).parent / "inside" / "traces.py").read_bytes()
_LOGS = {
    "journal.log": ("journalctl", "--boot", "--no-pager", "--output=short-precise"),
    "units.log": (
        "journalctl",
        "--boot",
        "--no-pager",
        "--output=cat",
        "--unit=banger",
        "--unit=banger-root",
    ),
    "processes.log": ("ps", "axfo", "pid,ppid,user,stat,rss,etimes,args"),
    "network.log": ("sh", "-c", "ip addr; ip route; nft list ruleset; resolvectl"),
    "block.log": ("sh", "-c", "lsblk; losetup --list; dmsetup ls --tree; dmsetup status; df"),
    "cgroups.log": ("systemd-cgls", "--no-pager", "--full"),
    "vms.tar": ("sh", "-c", f"cd /home/{OWNER}/.local/state/banger && find . -name '*log*' | tar -cf - -T -"),
}


class Machine:
    """One lab. `user` is who runs a command: root, the owner, or bob, who is nobody to banger."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.run = lab.run
        self.start = lab.start
        self.put = lab.put
        self.get = lab.get

    def sh(self, script: str, **options: Any) -> str:
        return self.lab.run("sh", "-ec", script, **options).stdout

    def python(self, script: str, **options: Any) -> str:
        """With the system's own interpreter."""
        return self.lab.run("python3", "-I", "-S", "-c", script, **options).stdout

    def banger(self, *words: str, user: str = OWNER, sudo: bool = False, **options: Any) -> Done:
        """As typed; with `sudo` as the owner's sudo."""
        return self.lab.run(*(("sudo",) if sudo else ()), BANGER, *words, user=user, **options)

    def json(self, *words: str, **options: Any) -> Any:
        return self.parse(self.banger(*words, "--json", **options))

    @staticmethod
    def parse(done: Done) -> Any:
        return json.loads(done.out)

    def wait_banger(self, *words: str, holds: Callable[[Done], bool], timeout_s: float = 60) -> Done:
        """The first answer that is as wanted. For what the CLI has no way to wait for."""
        until = time.monotonic() + timeout_s
        while not holds(done := self.banger(*words, check=False)):
            if time.monotonic() > until:
                raise AssertionError(f"still not as wanted after {timeout_s:.0f} s: {done}")
        return done

    def guest(self, name: str, *command: str, **options: Any) -> str:
        return self.banger("vm", "exec", name, "--", *command, **options).stdout

    def traces(self) -> dict[str, list[str]]:
        """What banger leaves on a host, by kind: inside/traces.py says which. Kinds without any are left out."""
        return json.loads(self.lab.run("python3", "-I", "-S", "-", stdin=TRACES).out)

    def keep_logs(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "serial.log").write_bytes(self.lab.serial_log.read_bytes())
        (directory / "qemu.log").write_bytes((self.lab.place / "qemu.log").read_bytes())
        for name, argv in _LOGS.items():
            done = self.lab.run(*argv, check=False, timeout_s=60)
            (directory / name).write_bytes(done.out + done.err)
