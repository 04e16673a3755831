"""A whole machine of the test's own, in namespaces: this one's files under an overlay, its own network, its own PID 1.

PID 1 is systemd, for real, or a shell that reaps children, for hosts without it. What it writes goes away with it;
what is global to the kernel (/proc/sys but for net, /sys) is read-only and the capabilities for it are dropped.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.host.installation.interpreter import ALICE, find_python

ROOT = Path(__file__).parents[3]
PLACE = (
    ROOT / "build" / "machines"
)  # an overlay's upper directory can be on no overlay, and /tmp may be small
_BOOT_S = 60

_PREPARE = """
set -e
place=$1 init=$2 tree=$3
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --bind sys sys && mount -o remount,bind,ro sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p old && mount --bind proc/sys/net old
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount --move old proc/sys/net
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# A source tree below /tmp, or on a file system of its own, does not show in the overlay.
if [ ! -e ".$tree/src" ]; then mkdir -p ".$tree"; mount --bind "$tree" ".$tree"; mount -o remount,bind,ro ".$tree"; fi
mount -t tmpfs -o mode=0755 tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
if [ -e /dev/net/tun ]; then touch dev/net/tun; mount --bind /dev/net/tun dev/net/tun; fi
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires
: > etc/fstab; echo machine > etc/hostname
getent passwd alice > /dev/null || {
  echo 'alice:x:4242:4242::/home/alice:/bin/sh' >> etc/passwd
  echo 'alice:x:4242:' >> etc/group
}
mkdir -p home/alice && chown 4242:4242 home/alice && chmod 0700 home/alice
ip link set lo up
pivot_root . old
umount -l /old
drop=-sys_module,-sys_time,-sys_rawio,-syslog,-wake_alarm,-mac_admin,-mac_override,-audit_control,-audit_read
if [ "$init" = systemd ]; then
  exec env -i container=banger PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set "$drop" \\
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=journal
fi
exec setpriv --bounding-set "$drop" /bin/sh -c 'trap : CHLD; while :; do sleep 3600 & wait; done'
"""


class Machine:
    """`run` is a command in it as root, `alice` one as its ordinary user, with this Python and this source tree."""

    def __init__(self, *, systemd: bool) -> None:
        PLACE.mkdir(parents=True, exist_ok=True)
        self._place = Path(tempfile.mkdtemp(prefix="m-", dir=PLACE))
        for name in ("upper", "work", "root"):
            (self._place / name).mkdir(mode=0o755)
        self._cgroup = find_cgroups() / f"banger-{self._place.name}"
        self._cgroup.mkdir()
        unshare = "unshare --mount --pid --fork --net --uts --ipc --cgroup --kill-child=KILL --"
        script = f'echo $$ > "$0"/cgroup.procs; exec {unshare} /bin/sh -c "$1" prepare "$2" "$3" "$4"'
        init = "systemd" if systemd else "shell"
        self._log = (self._place / "log").open("wb")
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", script, self._cgroup, _PREPARE, self._place, init, ROOT],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._wait(self._is_prepared)
            if systemd:
                self._wait(
                    lambda: self.run("systemctl", "is-system-running", check=False).stdout == "running\n"
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._keeper.kill()  # unshare takes PID 1 along, and that every process in the namespace
        self._keeper.wait()
        self._log.close()
        self._wait(lambda: not (self._cgroup / "cgroup.procs").read_text() and self._is_empty())
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            Path(directory).rmdir()
        shutil.rmtree(self._place)

    @property
    def pid(self) -> int:
        """PID 1's, seen from outside."""
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
        return int(children[0])

    def run(self, *argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {
            "timeout": 300,
            "capture_output": True,
            "text": True,
            "stdin": subprocess.DEVNULL,
        } | options
        if "input" in options:
            del options["stdin"]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
        }
        inside = ["nsenter", f"--target={self.pid}", "--all", "--", "env", "--chdir=/", *argv]
        done = subprocess.run(inside, env=environment, check=False, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def alice(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        become = ("setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", "--")
        home = ("env", "HOME=/home/alice", "USER=alice", "PYTHONDONTWRITEBYTECODE=1")
        return self.run(*become, *home, *argv, **options)

    @property
    def program(self) -> tuple[str, ...]:
        return (find_python(), "-m", "banger.cli")

    def banger(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("env", "PYTHONDONTWRITEBYTECODE=1", *self.program, *words, **options)

    def alices_banger(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.alice(*self.program, *words, **options)

    def at(self, path: str) -> Path:
        """A file of the machine's, from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def pids(self) -> dict[int, int]:
        """Processes of the machine: its pid for each, and ours."""
        found = {}
        namespace = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.stat(entry / "ns/pid").st_ino == namespace:
                    status = (entry / "status").read_text()
                    inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[
                        -1
                    ]
                    found[int(inner)] = int(entry.name)
            except OSError:
                continue
        return found

    def status(self, pid: int) -> dict[str, str]:
        """/proc/PID/status of a process, by its pid in the machine."""
        lines = self.at(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        os.kill(self.pids()[pid], number)

    def poweroff(self, timeout_s: float = 200) -> None:
        """As an administrator does it; returns when PID 1 has ended."""
        self.run("systemctl", "--no-block", "poweroff")
        self._keeper.wait(timeout_s)

    @property
    def upper(self) -> Path:
        """What the machine has written, for when it is off."""
        return self._place / "upper"

    def _is_prepared(self) -> bool:
        """The new root is the root, and what was the old one has gone."""
        try:
            return (
                self._keeper.poll() is None
                and not self.at("/old").is_mount()
                and self.at("/etc/hostname").read_text() == "machine\n"
            )
        except (OSError, IndexError):
            return False

    def _is_empty(self) -> bool:
        return "populated 0" in (self._cgroup / "cgroup.events").read_text()

    def _wait(self, condition: Any) -> None:
        until = time.monotonic() + _BOOT_S
        while not condition():
            if time.monotonic() > until:
                raise AssertionError(f"the machine is not ready:\n{(self._place / 'log').read_text()}")
            time.sleep(0.05)


def find_cgroups() -> Path:
    """Where cgroups of version 2 are mounted. Raises FileNotFoundError."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4])
    raise FileNotFoundError("no cgroup2 is mounted")
