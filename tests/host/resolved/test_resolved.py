"""The whole way of a name: a program of the host's, systemd-resolved, our server; and the whole way back.

Everything is real but runs in namespaces of its own: this machine's resolver and its resolv.conf are not touched.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.host.namespaces import Namespace
from tests.host.resolved.material import PROGRAM, make_layer
from tests.host.resolved.play import BRIDGE, UPSTREAM, UPSTREAM_ANSWER
from tests.host.world import wait_until
from tests.support.tiers import require_host, skip_or_fail

GUEST = "10.209.0.2"
USER = "systemd-resolve"
FREE_ID = 64990
READY_S = 20.0
RESOLVED_CONF = f"[Resolve]\nDNS={UPSTREAM}\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\n"


class Host:
    """A namespace with a bus, systemd-resolved, and our part."""

    def __init__(self, namespace: Namespace, files: Path) -> None:
        self.namespace = namespace
        self._files = files
        self._processes: list[subprocess.Popen[Any]] = []
        self._resolved: subprocess.Popen[Any] | None = None

    def start(self, layer: Path | None) -> None:
        self._lay(layer)
        self._start_bus()
        self.start_resolved()
        self._play = self._spawn(
            sys.executable, str(Path(__file__).with_name("play.py")), stdin=subprocess.PIPE, text=True
        )
        assert self._play.stdout.readline() == "ready\n"

    def _lay(self, layer: Path | None) -> None:
        if layer is not None:
            overlay = ("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={layer}:/usr", "/usr")
            done = self.namespace.run(*overlay, check=False)
            if done.returncode != 0:
                skip_or_fail(f"{layer} cannot be laid over /usr: {done.stderr.strip()}", tier="host")
        users, groups = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
        for user in (USER, "messagebus"):
            if f"\n{user}:" not in users:
                users += f"{user}:x:{FREE_ID}:{FREE_ID}::/:/usr/sbin/nologin\n"
                groups += f"{user}:x:{FREE_ID}:\n"
        contents = {
            "passwd": users,
            "group": groups,
            "resolv.conf": "nameserver 127.0.0.53\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        }
        for name, text in contents.items():
            (self._files / name).write_text(text)
            self.namespace.run("mount", "--bind", str(self._files / name), f"/etc/{name}")
        self.namespace.run("mkdir", "-p", "/run/dbus", "/run/systemd/resolved.conf.d")
        self.namespace.run("tee", "/run/systemd/resolved.conf.d/test.conf", input=RESOLVED_CONF)
        self.namespace.batch(
            f"link add outside type veth peer name outside-end\naddr add {UPSTREAM}/24 dev outside\n"
            "link set outside up\nlink set outside-end up\n"
        )

    def _spawn(self, *argv: str, **options: Any) -> subprocess.Popen[Any]:
        process = subprocess.Popen(
            self.namespace.argv(*argv), **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | options
        )
        self._processes.append(process)
        return process

    def _start_bus(self) -> None:
        options = ("--system", "--nofork", "--nopidfile", "--print-address=1")
        with (self._files / "bus.log").open("wb") as log:
            bus = self._spawn("dbus-daemon", *options, stderr=log)
        if not bus.stdout.readline():
            skip_or_fail(f"no bus: {(self._files / 'bus.log').read_text()}", tier="host")

    def configure_resolved(self, line: str) -> None:
        """A setting of the host's own; systemd-resolved is started anew."""
        text = f"[Resolve]\n{line}\n"
        self.namespace.run("tee", "/run/systemd/resolved.conf.d/test-more.conf", input=text)
        self.end_resolved()
        self.start_resolved()

    def start_resolved(self) -> None:
        """Returns when it says that it is ready, as it would to systemd (sd_notify(3))."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            path = str(self._files / "notify")
            Path(path).unlink(missing_ok=True)
            notify.bind(path)
            os.chmod(path, 0o666)
            notify.settimeout(READY_S)
            log = (self._files / "resolved.log").open("ab")
            environment = os.environ | {"NOTIFY_SOCKET": path, "SYSTEMD_LOG_LEVEL": "info"}
            self._resolved = self._spawn(str(PROGRAM), stdout=log, stderr=log, env=environment)
            log.close()
            try:
                while b"READY=1" not in notify.recv(4096):
                    pass
            except TimeoutError:
                said = (self._files / "resolved.log").read_text()
                skip_or_fail(f"systemd-resolved does not run here: {said}", tier="host")
        wait_until(self._is_on_bus, "systemd-resolved has its name on the bus", READY_S)

    def _is_on_bus(self) -> bool:
        """It may say that it is ready before."""
        return self.namespace.run("resolvectl", "status", check=False).returncode == 0

    def end_resolved(self) -> None:
        assert self._resolved is not None
        self._resolved.terminate()
        self._resolved.wait(timeout=30)

    def play(self, method: str, *arguments: str) -> Any:
        self._play.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._play.stdin.flush()
        return json.loads(self._play.stdout.readline())

    def resolve(self, *arguments: str) -> str:
        """What `resolvectl query` says; for a failure what it complains of."""
        done = self.namespace.run("resolvectl", "query", "--legend=no", *arguments, check=False)
        return done.stdout if done.returncode == 0 else done.stderr

    def dig(self, *arguments: str) -> str:
        return self.namespace.run("dig", "@127.0.0.53", *arguments).stdout

    def close(self) -> None:
        self.namespace.close()
        for process in self._processes:
            process.wait(timeout=30)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


@pytest.fixture
def host() -> Iterator[Host]:
    require_host({"dig": "bind9-dnsutils", "ip": "iproute2", "nft": "nftables"})
    layer = make_layer()
    with tempfile.TemporaryDirectory(prefix="banger-resolved-") as files:
        os.chmod(files, 0o755)  # systemd-resolved, not root any more, says ready there
        host = Host(Namespace(), Path(files))
        try:
            host.start(layer)
            yield host
        finally:
            host.close()


@pytest.fixture
def routed(host: Host) -> Host:
    """The bridge is there, `a` runs, names are routed. Nobody has asked for anything yet."""
    host.play("open")
    assert host.play("route") is None
    host.play("admit", "a", GUEST)
    host.play("asked")
    return host


def test_before_and_after_the_names_are_the_usual_resolvers(host: Host) -> None:
    assert host.play("inspect") is True
    host.play("open")
    host.play("admit", "a", GUEST)
    assert UPSTREAM_ANSWER in host.resolve("a.vm")
    untouched = host.namespace.run("resolvectl", "status", BRIDGE).stdout

    assert host.play("route") is None
    assert f"a.vm: {GUEST}" in host.resolve("a.vm")
    assert host.play("route") is None
    assert f"a.vm: {GUEST}" in host.resolve("a.vm")

    for _ in range(2):
        assert host.play("unroute") is None
        host.play("asked")
        assert UPSTREAM_ANSWER in host.resolve("a.vm")
        ours, usual = host.play("asked")
        assert ours == []
        assert "a.vm." in usual
    assert host.namespace.run("resolvectl", "status", BRIDGE).stdout == untouched


def test_programs_of_the_host_find_a_guest_by_name_and_by_address(routed: Host) -> None:
    assert f"a.vm: {GUEST}" in routed.resolve("a.vm")
    assert routed.namespace.run("getent", "ahostsv4", "a.vm").stdout.startswith(GUEST)
    assert routed.namespace.run("getent", "hosts", GUEST).stdout.split() == [GUEST, "a.vm"]
    assert routed.dig("+short", "A.VM") == f"{GUEST}\n"
    assert routed.dig("+short", "+tcp", "a.vm") == f"{GUEST}\n"
    assert routed.dig("+short", "-x", GUEST) == "a.vm.\n"
    program = "import socket; print(socket.getaddrinfo('a.vm', 22, proto=6))"
    assert f"('{GUEST}', 22)" in routed.namespace.run(sys.executable, "-c", program).stdout
    _, usual = routed.play("asked")
    assert usual == []


def test_what_does_not_exist_in_our_zone_is_not_asked_elsewhere(routed: Host) -> None:
    assert "status: NXDOMAIN" in routed.dig("nope.vm")
    assert "status: NXDOMAIN" in routed.dig("x.a.vm")
    empty = routed.dig("a.vm", "AAAA")
    assert "status: NOERROR" in empty
    assert "ANSWER: 0" in empty
    assert "status: NXDOMAIN" in routed.dig("-x", "10.209.0.77")
    ours, usual = routed.play("asked")
    assert {"nope.vm.", "x.a.vm.", "a.vm.", "77.0.209.10.in-addr.arpa."} <= set(ours)
    assert usual == []


def test_other_names_do_not_come_to_us(routed: Host) -> None:
    for name in ("example.com", "vm.example.com", "a.xvm", "a.vm.example"):
        assert UPSTREAM_ANSWER in routed.resolve(name) or UPSTREAM_ANSWER in routed.dig(name)
    routed.dig("-x", "10.210.0.2")
    routed.dig("-x", "192.0.2.1")
    ours, usual = routed.play("asked")
    assert ours == []
    assert {"example.com.", "vm.example.com.", "a.vm.example."} <= set(usual)


def test_a_guest_that_starts_and_stops_is_seen_within_the_life_of_an_answer(routed: Host) -> None:
    assert "status: NXDOMAIN" in routed.dig("b.vm")
    routed.play("admit", "b", "10.209.0.3")
    routed.namespace.run("resolvectl", "flush-caches")
    assert routed.dig("+short", "b.vm") == "10.209.0.3\n"
    ttl = int(routed.dig("+noall", "+answer", "b.vm").split()[1])
    assert 0 <= ttl <= 5
    routed.play("unregister", "b")
    routed.namespace.run("resolvectl", "flush-caches")
    assert "status: NXDOMAIN" in routed.dig("b.vm")


def test_a_name_that_was_asked_for_too_early_is_found_once_its_guest_runs(host: Host) -> None:
    """Before the first guest's tap is up the bridge has no carrier, and systemd-resolved leaves it out."""
    host.play("open")
    host.play("route")
    assert UPSTREAM_ANSWER in host.resolve("a.vm")
    host.play("admit", "a", GUEST)
    assert f"a.vm: {GUEST}" in host.resolve("a.vm")


@pytest.mark.parametrize("setting", ["DNSSEC=yes", "DNSSEC=allow-downgrade", "DNSOverTLS=yes", "LLMNR=yes"])
def test_names_are_found_however_strict_the_host_is_with_the_world(host: Host, setting: str) -> None:
    """The zone is signed by nobody, its server has no certificate; both are the host itself."""
    host.configure_resolved(setting)
    host.play("open")
    host.play("admit", "a", GUEST)
    untouched = host.namespace.run("resolvectl", "status", BRIDGE).stdout
    assert host.play("route") is None
    assert f"a.vm: {GUEST}" in host.resolve("a.vm")
    assert "status: NXDOMAIN" in host.dig("nope.vm")
    protocols = host.namespace.run("resolvectl", "status", BRIDGE).stdout
    assert "-LLMNR -mDNS" in protocols  # a guest must not answer for bare names of the host's
    host.play("unroute")
    assert host.namespace.run("resolvectl", "status", BRIDGE).stdout == untouched


def test_the_routing_outlives_a_restart_of_systemd_resolved(routed: Host) -> None:
    routed.end_resolved()
    routed.start_resolved()
    assert f"a.vm: {GUEST}" in routed.resolve("a.vm")


def test_when_the_bridge_goes_nothing_is_left(routed: Host) -> None:
    assert routed.play("close") is None
    assert BRIDGE not in routed.namespace.run("resolvectl", "status").stdout
    assert UPSTREAM_ANSWER in routed.resolve("a.vm")


def test_without_systemd_resolved_names_are_refused_with_words(host: Host) -> None:
    host.play("open")
    host.end_resolved()
    host.namespace.run("rm", "-r", "/run/systemd/resolve")
    assert host.play("inspect") is False
    assert host.play("route")["code"] == "unavailable"
    assert host.play("unroute") is None
