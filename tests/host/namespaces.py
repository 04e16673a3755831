"""Network and mount namespaces of our own: nothing here touches the machine's network.

A namespace lives as long as its keeper, and the keeper as long as the pipe to us: a killed test run leaves none.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_KEEPER = """
mount -t sysfs sysfs /sys && mount -t tmpfs -o mode=0755 tmpfs /run || exit
ip link set lo up && echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad && echo ready && exec cat
"""


class Namespace:
    """Its /sys shows its own links, its /run none of the machine's services; IPv6 addresses are there at once."""

    def __init__(self) -> None:
        unshare = ("unshare", "--net", "--mount", "--propagation=private", "--", "/bin/sh", "-c", _KEEPER)
        self._keeper = subprocess.Popen(unshare, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            self._keeper.wait()
            raise OSError("a network and mount namespace cannot be made")
        self._net = os.stat(f"/proc/{self.pid}/ns/net")

    @property
    def pid(self) -> int:
        return self._keeper.pid

    def argv(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", f"--mount=/proc/{self.pid}/ns/mnt", *command]

    def run(self, *command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """As root."""
        done = subprocess.run(
            self.argv(*command), capture_output=True, text=True, **({"timeout": 60} | options)
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def batch(self, lines: str) -> None:
        """`ip -batch`."""
        self.run("ip", "-batch", "-", input=lines)

    def links(self) -> list[dict[str, Any]]:
        found = json.loads(self.run("ip", "-j", "link").stdout)
        assert isinstance(found, list)
        return found

    def set_value(self, key: str, value: int) -> None:
        """A sysctl of this namespace."""
        path = "/proc/sys/" + key.replace(".", "/")
        self.run("/bin/sh", "-c", 'echo "$1" > "$0"', path, str(value))

    def processes(self) -> list[int]:
        """Everything that runs in it, the keeper left out."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                net = os.stat(entry / "ns" / "net")
            except OSError:
                continue
            if (net.st_dev, net.st_ino) == (self._net.st_dev, self._net.st_ino):
                found.append(int(entry.name))
        return [pid for pid in found if pid != self.pid]

    def close(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        self._keeper.wait(timeout=30)


class Service:
    """A program of a test's that says `ready` on stdout when it serves."""

    def __init__(self, argv: Sequence[str], **options: Any) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", f"{' '.join(argv)}: {line!r}"

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def connect(host: Namespace, other: Namespace, name: str, address: str, peer: str) -> None:
    """A link between the two, called `name` at both ends, each with its address."""
    host.batch(f"link add {name} type veth peer name {name} netns {other.pid}\n")
    for namespace, own in ((host, address), (other, peer)):
        namespace.batch(f"addr add {own} dev {name}\nlink set {name} up\n")
