"""The lab as tests see it: commands in it, banger as its owner types it, what is left over, and its logs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.lab.channel import Done, Running
from tools.lab.host import Lab
from tools.lab.recipe import OWNER
from tools.lab.stages import BANGER

TRACES = (Path(__file__).parent / "inside" / "traces.py").read_bytes()
JAILS = "/var/lib/banger-root/jails/firecracker"
CGROUPS = "/sys/fs/cgroup/banger"
BRIDGE = "br-banger"
POOL = 4  # taps that wait for VMs
OUTSIDE = "outside"  # a test's own namespace
_CLEAN_S = 60
_READY_S = 120
_WAIT_S = 180
_NOT_FOUND = 66
_SHARED = ("/images/", "/kernels/")  # what root disks stand on
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
    "jails.log": ("find", "/var/lib/banger-root", "/run/banger", "-ls"),
    "vms.tar": ("sh", "-c", f"cd /home/{OWNER}/.local/state/banger && find . -name '*log*' | tar -cf - -T -"),
}


class Machine:
    """One lab. `user` is who runs a command: root, the owner, or bob, who is nobody to banger."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.vmm = "firecracker"  # what VMs get
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

    def start_banger(self, *words: str) -> Running:
        """As typed, and not waited for."""
        return self.lab.start((BANGER, *words), user=OWNER)

    def json(self, *words: str, **options: Any) -> Any:
        return self.parse(self.banger(*words, "--json", **options))

    @staticmethod
    def parse(done: Done) -> Any:
        return json.loads(done.out)

    def vm(self, name: str) -> Any:
        return self.json("vm", "show", name)["vm"]

    def wait_banger(self, *words: str, holds: Callable[[Done], bool], timeout_s: float = _WAIT_S) -> Done:
        """The first answer that is as wanted. For what the CLI has no way to wait for."""
        until = time.monotonic() + timeout_s
        while not holds(done := self.banger(*words, check=False)):
            if time.monotonic() > until:
                raise AssertionError(f"still not as wanted after {timeout_s:.0f} s: {done}")
        return done

    def list_vms(self) -> list[dict[str, Any]]:
        """All of them, with all that is known."""
        found = []
        for vm in self.json("vm", "list", "--all")["vms"]:
            done = self.banger("vm", "show", vm["id"], "--json", check=False)
            if done.status == _NOT_FOUND:  # its removal has ended between the two questions
                continue
            assert done.status == 0, str(done)
            found.append(self.parse(done)["vm"])
        return found

    def wait_state(self, name: str, state: str, timeout_s: float = _WAIT_S) -> Any:
        """The VM, as soon as it is in this state."""
        words = ("vm", "show", name, "--json")
        done = self.wait_banger(
            *words,
            holds=lambda done: done.status == 0 and self.parse(done)["vm"]["state"] == state,
            timeout_s=timeout_s,
        )
        return self.parse(done)["vm"]

    def guest(self, name: str, *command: str, **options: Any) -> str:
        return self.banger("vm", "exec", name, "--", *command, **options).stdout

    def boot_id(self, name: str) -> str:
        """As soon as its agent answers: a daemon that has come back meets it anew."""
        words = ("vm", "exec", name, "--", "cat", "/proc/sys/kernel/random/boot_id")
        return self.wait_banger(*words, holds=lambda done: done.status == 0).stdout.strip()

    def refused(self, *words: str, says: str, hint: str = "hint: ", sudo: bool = False) -> str:
        """What must fail: a status of its own, one line of error with these words, a hint. Returns all it said."""
        done = self.banger(*words, sudo=sudo, check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith("banger: ")]
        assert done.status not in {0, 1}, str(done)
        assert not done.late, str(done)
        assert len(lines) == 1, str(done)
        assert says in lines[0], str(done)
        assert hint in done.stderr, str(done)
        assert "Traceback" not in done.stderr
        return done.stderr

    def configure(self, text: str) -> None:
        """The system's configuration, in force when this returns. VMs run on."""
        self.put("/etc/banger/config.toml", text.encode())
        self.banger("system", "restart", sudo=True)

    def traces(self) -> dict[str, list[str]]:
        """What banger leaves on a host, by kind: inside/traces.py says which. Kinds without any are left out."""
        return json.loads(self.lab.run("python3", "-I", "-S", "-", stdin=TRACES).out)

    def leftovers(self, *vms: dict[str, Any]) -> dict[str, list[str]]:
        """Traces, without what belongs to an installation: its two processes, its bridge, its tables, its files, the
        empty places of jails and cgroups, the taps of the pool, which is filled off everybody's path. And without what
        belongs to these `vms`, as `vm` gives them: to each its directory, to one that runs what a VMM has."""
        running = [vm for vm in vms if vm["runtime"]]
        taps = {vm["runtime"]["tap"] for vm in running}
        until = time.monotonic() + _CLEAN_S
        while not _is_pool_full(traces := self.traces(), taps) or len(_find_daemons(traces)) != 2:
            assert time.monotonic() < until, traces
        pool, daemons = _find_taps(traces), _find_daemons(traces)
        own = {
            "links": {BRIDGE, *pool},
            "processes": set(daemons),
            "tables": {"bridge banger", "inet banger"},
            "files": set(traces["files"]),
            "cgroups": {CGROUPS},
            "jails": {JAILS},
            "namespaces": {OUTSIDE},
        }
        for vm in vms:
            theirs = _find_possessions(vm, traces)
            own |= {kind: own.get(kind, set()) | lines for kind, lines in theirs.items()}
        rest = {kind: sorted(set(found) - own.get(kind, set())) for kind, found in traces.items()}
        return {kind: found for kind, found in rest.items() if found}

    def wait_clean(self) -> list[dict[str, Any]]:
        """Until the host has what the records say, and no more: who comes back looks around first. Returns all VMs."""
        until = time.monotonic() + _CLEAN_S
        while True:
            vms = self.list_vms()
            if not (found := self.leftovers(*vms)):
                return vms
            assert time.monotonic() < until, (found, vms)

    def wait_ready(self) -> None:
        """Until both units run, and the daemon answers."""
        running = " && ".join(f"systemctl is-active --quiet {unit}" for unit in ("banger", "banger-root"))
        self.sh(f"until {running}; do sleep 0.2; done", timeout_s=_READY_S)  # of two, it is content with one
        self.wait_banger("vm", "list", holds=lambda done: done.status == 0, timeout_s=_READY_S)

    def keep_logs(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "serial.log").write_bytes(self.lab.serial_log.read_bytes())
        (directory / "qemu.log").write_bytes((self.lab.place / "qemu.log").read_bytes())
        for name, argv in _LOGS.items():
            done = self.lab.run(*argv, check=False, timeout_s=60)
            (directory / name).write_bytes(done.out + done.err)


def _is_pool_full(traces: dict[str, list[str]], lent: set[str]) -> bool:
    """There is none without a bridge, which a helper takes down that finds nobody who needs it."""
    wanted = POOL if BRIDGE in traces.get("links", ()) else 0
    return len(set(_find_taps(traces)) - lent) == wanted


def _find_possessions(vm: dict[str, Any], traces: dict[str, list[str]]) -> dict[str, set[str]]:
    """By kind. A VM that does not run has its directories, and nothing else."""
    runtime = vm["runtime"]
    names = (vm["id"], f'"{runtime["address"]}"', runtime["tap"]) if runtime else (vm["id"],)
    kinds = traces if runtime else ("vms", "sockets")
    theirs = {
        kind: {line for line in traces.get(kind, ()) if any(name in line for name in names)} for kind in kinds
    }
    if runtime:
        theirs["loops"] |= {line for line in traces.get("loops", ()) if any(part in line for part in _SHARED)}
    return theirs


def _find_daemons(traces: dict[str, list[str]]) -> list[str]:
    """More than two for a moment: a child is called like its parent until it has become a program of its own."""
    lines = traces.get("processes", ())
    return [line for line in lines if "banger-root" in line or "banger.daemon" in line]


def _find_taps(traces: dict[str, list[str]]) -> list[str]:
    return [name for name in traces.get("links", ()) if name.startswith("bng-")]
