"""A small world: a host that is a network namespace, a network outside of it, root's helper, users with guests.

    guests -- bridge -- host 192.0.2.1 -- 192.0.2.2 outside, which is 203.0.113.7, "the internet", as well
                          192.168.77.2 -- 192.168.77.1 outside once more, as a neighbour on the host's LAN

The outside has a route back to the guests: what does not get through has been stopped by rules, not by luck.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.host.namespaces import Namespace, Service, connect
from tests.support.banger import ROOT, Banger, keep_log
from tests.support.unprivileged import DROP, NOBODY, copy_material, give_away, render_environment

HOST, GATEWAY, INTERNET = "192.0.2.1", "192.0.2.2", "203.0.113.7"
LAN_HOST, LAN = "192.168.77.2", "192.168.77.1"
BRIDGE, BRIDGE_ADDRESS, SUBNET = "br-banger", "10.209.0.1", "10.209.0.0/24"
PORT = 8000  # of the servers of host and outside, TCP and UDP
TAP_PREFIX = "bng-"
POOL = 4  # parked taps, by default
CREATE = ("vm", "create", "--memory", "256M", "--wait-ssh")
SERVERS, PROBE = Path(__file__).with_name("servers.py"), Path(__file__).with_name("probe.py")

# A connection that is used all the time; it ends within 2 s of being cut.
FLOW = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as flow:
    flow.settimeout(2)
    while True:
        flow.sendall(b"tick"); print(flow.recv(4).decode(), flush=True); time.sleep(0.05)
"""


class Traces(NamedTuple):
    """What banger could leave on a host. Parked taps are capacity: how many there are counts, not their names."""

    links: tuple[str, ...]
    parked: int
    routes: str
    rules: str
    ruleset: str


class Helper:
    """Root's helper, its log in a file; killed, ended and started again by tests."""

    def __init__(self, host: Namespace, socket: Path, log: Path) -> None:
        self.socket = socket
        self.log = log
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *wrapper: str) -> None:
        """`wrapper` is a command that executes the rest of its arguments."""
        assert self._process is None
        module = ("-m", "banger.privileged.helper", "--owner", str(NOBODY), "--socket", str(self.socket))
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
        with self.log.open("ab") as log:
            argv = self._host.argv(*wrapper, sys.executable, *module)
            self._process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stderr=log)
        wait_until(lambda: self._answers() or self._process.poll() is not None, "the helper listens")
        assert self._process.poll() is None, self.log.read_text()

    def _answers(self) -> bool:
        """Something has this very socket open: a stale one stays behind after a kill."""
        listening = self._host.run("cat", "/proc/net/unix").stdout
        return any(line.endswith(str(self.socket)) for line in listening.splitlines())

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            assert self._end(signal.SIGTERM) == 0, self.log.read_text()[-2000:]

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(timeout=30)
        self._process = None
        return status

    def calls(self) -> list[dict[str, object]]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Resident(Banger):
    """A user of the host: everything runs as nobody, in the host's namespaces."""

    def __init__(self, host: Namespace, python: str, home: Path, state: Path, socket: Path) -> None:
        super().__init__(home, state / "data", state / "state")
        self.environment = render_environment(self.environment) | {"BANGER_ROOT_SOCKET": str(socket)}
        self._host = host
        self._python = python

    def argv(self, *arguments: str) -> list[str]:
        return self.command(self._python, "-m", "banger.cli", *arguments)

    def command(self, *argv: str) -> list[str]:
        return self._host.argv(*DROP, *argv)

    def call(self, *argv: str, **options) -> subprocess.CompletedProcess[str]:
        """Any command of the user's."""
        options = {"timeout": 120, "stdin": subprocess.DEVNULL, "env": self.environment} | options
        return subprocess.run(self.command(*argv), capture_output=True, text=True, **options)

    def program(self, script: Path, *arguments: str) -> list[str]:
        """A Python program of ours, run by the user."""
        return self.command(self._python, "-P", str(script), *arguments)

    def create(self, name: str, *flags: str, **options) -> None:
        self.run("vm", "create", *flags, "--memory", "256M", name, **options)

    def delete(self, *names: str) -> None:
        self.run("vm", "delete", "--force", *names)

    def vm(self, name: str) -> dict:
        return self.json("vm", "show", name)["vm"]

    def address(self, name: str) -> str:
        return self.vm(name)["address"]

    def boot_id(self, name: str) -> str:
        return self.guest(name, "cat", "/proc/sys/kernel/random/boot_id").strip()

    def probe(self, name: str, *targets: str) -> dict[str, str]:
        """What the guest reaches of these targets: see `probe.py`."""
        said = self.run("vm", "exec", "-i", name, "--", "python3", "-", *targets, input=PROBE.read_bytes())
        return parse_probe(said.stdout.decode())

    def serve(self, name: str, *what: str) -> None:
        """The servers of `servers.py` in the guest; they live on when we or the daemon do not."""
        apart = 'setsid python3 -c "$@" </dev/null >/dev/null 2>&1 &'
        self.guest(name, "/bin/sh", "-c", apart, "sh", SERVERS.read_text(), name, *what)
        tcp = [f"tcp:127.0.0.1:{one.partition(':')[2]}" for one in what if one.startswith("tcp:")]
        wait_until(
            lambda: all("sees" in said for said in self.probe(name, *tcp).values()), "the guest serves"
        )

    def daemon_pid(self) -> int:
        return self.json("daemon", "status")["pid"]

    def kill_daemon(self) -> None:
        """SIGKILL, and returns when it has gone."""
        kill(self.daemon_pid())


class World:
    """Opened by `open_world`. `host` and `outside` are namespaces, `user` is an ordinary one."""

    def __init__(self, directory: Path, state: Path, python: str) -> None:
        self.directory = directory
        self._state = state
        self._python = python
        self._services: list[Service] = []
        self.host, self.outside = Namespace(), Namespace()
        self.helper = Helper(self.host, directory / "root" / "root.sock", directory / "helper.log")
        self.users: list[Resident] = []
        self._furnish()
        self.pristine = self.traces()
        self.user = self.open_user("user")

    def _furnish(self) -> None:
        connect(self.host, self.outside, "wan", f"{HOST}/30", f"{GATEWAY}/30")
        connect(self.host, self.outside, "lan", f"{LAN_HOST}/24", f"{LAN}/24")
        self.outside.batch(f"addr add {INTERNET}/32 dev lo\nroute add {SUBNET} via {HOST}\n")
        self.host.batch(f"route add default via {GATEWAY}\n")
        self.host.set_value("net.ipv4.ip_forward", 1)
        self.host.set_value("net.ipv4.icmp_ratelimit", 0)  # a probe sees each target's own refusal
        self.host.run(*self.with_resolver(INTERNET, "true", private=False))
        for namespace, what in ((self.outside, ("outside", "dns:53")), (self.host, ("host",))):
            argv = namespace.argv(sys.executable, "-I", str(SERVERS), *what, f"tcp:{PORT}", f"udp:{PORT}")
            self._services.append(Service(argv))

    def with_resolver(self, address: str, *command: str, private: bool = True) -> list[str]:
        """The command with this name server in /etc/resolv.conf: for itself alone, or for the whole namespace."""
        file = self.directory / f"resolv.conf-{address}"
        file.write_text(f"nameserver {address}\n")
        script = 'to=$(readlink -m /etc/resolv.conf); mkdir -p "${to%/*}"; : >> "$to"; mount --bind "$0" "$to" && exec "$@"'
        apart = ["unshare", "--mount", "--propagation=private"] if private else []
        return [*apart, "/bin/sh", "-c", script, str(file), *command]

    def open_user(self, name: str, config: str = "") -> Resident:
        """Nobody, with a home, a configuration and so a daemon for each `name`."""
        home, state = self.directory / name, self._state / name
        for directory in (home, state):
            directory.mkdir(parents=True)
        copy_material(state / "data")
        user = Resident(self.host, self._python, home, state, self.helper.socket)
        user.configure(config)
        give_away(home)
        give_away(state)
        self.users.append(user)
        return user

    def traces(self) -> Traces:
        links = self.host.links()
        parked = [
            link for link in links if link["ifname"].startswith(TAP_PREFIX) and "UP" not in link["flags"]
        ]
        return Traces(
            links=tuple(sorted(link["ifname"] for link in links if link not in parked)),
            parked=len(parked),
            routes=self.host.run("ip", "route", "show", "table", "all").stdout,
            rules=self.host.run("ip", "rule").stdout,
            ruleset=self.host.run("nft", "-s", "list", "ruleset").stdout,
        )

    def probe(self, namespace: Namespace, *targets: str) -> dict[str, str]:
        """What a namespace itself reaches: see `probe.py`."""
        return parse_probe(namespace.run(sys.executable, "-I", str(PROBE), *targets).stdout)

    def wait_traces(self, expected: Traces) -> None:
        """The pool fills up, and the helper sweeps, every 30 s, off everybody's path."""
        wait_until(lambda: self.traces() == expected, lambda: explain(self.traces(), expected), seconds=75)

    def close(self) -> None:
        """Ends users' daemons, then the helper, and proves that the host is as it was."""
        for user in self.users:
            user.run("daemon", "stop", check=False)
            assert user.vmm_processes() == []
        if self.users:
            self.wait_traces(self.pristine)
        self.helper.stop()
        assert self.traces() == self.pristine
        wait_until(lambda: self._strangers() == set(), lambda: f"on the host still: {self._strangers()}")

    def _strangers(self) -> set[int]:
        """Processes on the host that are none of our services."""
        return set(self.host.processes()) - {service.process.pid for service in self._services}

    def discard(self) -> None:
        """Whatever state it is in."""
        for user in self.users:
            keep_log(user.log, f"{self.directory.name}-{user.home.name}.log")
        keep_log(self.helper.log, f"{self.directory.name}-helper.log")
        for namespace in (self.host, self.outside):
            namespace.close()
        for service in self._services:
            service.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._state, ignore_errors=True)


@contextmanager
def open_world(python: str) -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="bw-", dir="/tmp"))
    directory.chmod(0o755)
    world = World(directory, ROOT / "build" / "test-state" / directory.name, python)
    try:
        world.helper.start()
        yield world
        world.close()
    finally:
        world.discard()


def wait_created(starts: Iterable[subprocess.Popen[bytes]]) -> None:
    """VMs that boot side by side."""
    for start in starts:
        _, said = start.communicate(timeout=120)
        assert start.returncode == 0, said.decode()


def parse_probe(text: str) -> dict[str, str]:
    pairs = (line.partition(" ") for line in text.splitlines())
    return {target: said for target, _, said in pairs}


def reached(answers: dict[str, str]) -> dict[str, str]:
    """Those targets of a probe that answered."""
    return {target: said for target, said in answers.items() if said == "pong" or " sees " in said}


def kill(pid: int) -> None:
    """SIGKILL, and returns when the process has ended."""
    process = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([process], [], [], 30)[0], f"{pid} does not end"
    finally:
        os.close(process)


def wait_until(condition: Callable[[], object], what: str | Callable[[], str], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.05)


def explain(found: Traces, expected: Traces) -> str:
    return "\n".join(
        f"{name}: {getattr(expected, name)!r}\n  is: {getattr(found, name)!r}"
        for name in Traces._fields
        if getattr(found, name) != getattr(expected, name)
    )
