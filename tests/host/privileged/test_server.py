"""The helper's process under attack, killed, doubled and left alone."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
import zipapp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.host.privileged.conftest import ADDRESS, BRIDGE
from tests.host.privileged.helper_process import (
    MODULE,
    OWNER,
    ROOT,
    Connection,
    HelperProcess,
    encode,
    wait_until,
)
from tests.host.privileged.places import Place

from banger.privileged.contract.base import VERSION

STRANGER = 64999
GUEST = {"tap": "bng-00000000", "mac": "02:00:00:00:00:01", "address": "10.209.0.2", "nat": True}
NO_BRIDGES = (
    "br0", "docker0", "eth0", "lo", "", ".", "..", "br-banger/..", "../br-banger", "br-banger\0", "br-banger ",
    "br-banger\n", "br-banger; flush ruleset", "BR-BANGER", "br-banger1234567", "br-banger\u0661",
)  # fmt: skip
NO_TAPS = (
    "eth0",
    "docker0",
    "lo",
    "tap0",
    "bng-",
    "bng-0000000",
    "bng-0000000g",
    "bng-../../..",
    "bng-00000000 ",
)
POLICY: dict[str, Any] = {"denied": ["10.0.0.0/8"], "allowed": [], "host_ports": [80], "guests": False}
SYSTEM_PYTHON = "/usr/bin/python3"  # every uid may run it
CALL = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try: s.connect(sys.argv[1])
except PermissionError: sys.exit("may not")
try: s.send(sys.argv[2].encode()); print(s.recv(100000).decode())
except OSError: print()
"""


@pytest.fixture
def helper(host: Place) -> Iterator[HelperProcess]:
    helper = HelperProcess(host)
    try:
        helper.start()
        yield helper
        assert not [line for line in helper.log() if "traceback" in line]
    finally:
        helper.close()


@pytest.fixture
def peer(helper: HelperProcess) -> Iterator[Connection]:
    with helper.connect() as connection:
        yield connection


def call_as(uid: int, helper: HelperProcess) -> subprocess.CompletedProcess[str]:
    argv = (SYSTEM_PYTHON, "-I", "-c", CALL, str(helper.path), encode("hello", op="as-uid").decode())
    return subprocess.run(argv, user=uid, group=uid, extra_groups=(), capture_output=True, text=True, cwd="/")


def code_of(answer: dict[str, Any]) -> str:
    return str(answer["error"]["code"])


class TestWho:
    def test_the_owner_and_root_are_served(self, helper: HelperProcess, peer: Connection) -> None:
        said = json.loads(call_as(OWNER, helper).stdout)
        assert said["op"] == "as-uid"
        assert said["result"] == {"version": VERSION, "build": "source", "pid": helper.pid, "owner": OWNER}
        assert peer.ask("hello")["result"] == said["result"]
        (line,) = helper.calls("as-uid")
        assert (line["method"], line["peer_uid"]) == ("hello", OWNER)
        assert line["peer_pid"] > 0
        assert line["duration_ms"] >= 0

    def test_the_socket_is_the_owners_alone(self, helper: HelperProcess) -> None:
        state = helper.path.lstat()
        assert (stat.S_IMODE(state.st_mode), state.st_uid) == (0o600, OWNER)
        directory = helper.path.parent.lstat()
        assert (stat.S_IMODE(directory.st_mode), directory.st_uid) == (0o755, 0)
        assert call_as(STRANGER, helper).stderr == "may not\n"

    def test_a_stranger_is_turned_away_even_with_access_to_the_socket(self, helper: HelperProcess) -> None:
        helper.path.chmod(0o666)
        assert call_as(STRANGER, helper).stdout == "\n"
        wait_until(
            lambda: [line for line in helper.log() if line.get("code") == "unauthorized"], "it is logged"
        )
        (line,) = [line for line in helper.log() if line.get("code") == "unauthorized"]
        assert (line["peer_uid"], line["message"]) == (STRANGER, f"uid {STRANGER} is not the owner")

    def test_no_more_than_sixteen_at_once(self, helper: HelperProcess) -> None:
        connections = [helper.connect() for _ in range(16)]
        for connection in connections:
            assert "result" in connection.ask("hello")
        with helper.connect() as one_more:
            assert one_more.is_closed()
        connections.pop().__exit__()
        wait_until(lambda: _is_served(helper), "there is room again")
        for connection in connections:
            connection.__exit__()


class TestMessages:
    @pytest.mark.parametrize(
        ("message", "code"),
        [
            (b"x", "bad_request"),
            (b"\xff\xfe\x00", "bad_request"),
            (b"null", "bad_request"),
            (b"[]", "bad_request"),
            (b"{}", "bad_request"),
            (b"[" * 60_000, "bad_request"),
            (b'{"v":%d,"op":"","method":"hello","params":{}' % VERSION, "bad_request"),
            (b'{"v":%d,"op":"","method":"hello"}' % VERSION, "bad_request"),
            (b'{"v":%d,"op":"","method":"hello","params":{},"uid":0}' % VERSION, "bad_request"),
            (b'{"v":%d,"op":"","method":"hello","params":{"a":1}}' % VERSION, "bad_request"),
            (b'{"v":%d,"op":"","method":"hello","params":[]}' % VERSION, "bad_request"),
            (b'{"v":3,"op":"","method":"hello","params":{}}', "bad_version"),
            (b'{"v":true,"op":"","method":"hello","params":{}}', "bad_version"),
            (b'{"v":%d,"op":"","method":"run","params":{}}' % VERSION, "unknown_method"),
            (b'{"v":%d,"op":"","method":"__init__","params":{}}' % VERSION, "unknown_method"),
            (b'{"v":%d,"op":"","method":["hello"],"params":{}}' % VERSION, "unknown_method"),
            (encode("create_taps", bridge=BRIDGE, count=True), "bad_request"),
            (encode("create_taps", bridge=BRIDGE, count=1.0), "bad_request"),
            (encode("create_taps", bridge=BRIDGE, count=65), "bad_request"),
            (encode("create_taps", bridge=BRIDGE, count=10**400), "bad_request"),
            (encode("signal_vmm", pid=1, start_time=1, signal=9), "bad_request"),
            (encode("signal_vmm", pid=-1, start_time=1, signal=9), "bad_request"),
            (encode("signal_vmm", pid=2**31, start_time=1, signal=9), "bad_request"),
            (encode("signal_vmm", pid=10**30, start_time=1, signal=9), "bad_request"),
            (encode("signal_vmm", pid=2, start_time=1, signal=11), "bad_request"),
        ],
    )
    def test_what_is_no_request_is_refused(
        self, helper: HelperProcess, peer: Connection, message: bytes, code: str
    ) -> None:
        before = helper.place.traces()
        assert code_of(peer.say(message)) == code
        assert "result" in peer.ask("hello")
        assert helper.place.traces() == before
        assert helper.log()[-2]["code"] == code

    def test_a_message_that_is_too_long_is_refused(self, peer: Connection) -> None:
        most = encode("hello")[:-2] + b" " * (128 * 1024 - len(encode("hello"))) + b"}}"
        assert len(most) == 128 * 1024
        assert "result" in peer.say(most)
        assert code_of(peer.say(most + b" ")) == "bad_request"
        assert code_of(peer.say(encode("hello") + b" " * 150_000)) == "bad_request"

    @pytest.mark.parametrize(
        "method", ["ensure_bridge", "remove_bridge", "create_taps", "list_taps", "open_dns"]
    )
    def test_other_bridges_cannot_be_named(
        self, helper: HelperProcess, peer: Connection, method: str
    ) -> None:
        params = {"ensure_bridge": {"address": "10.209.0.1/24"}, "create_taps": {"count": 1}}.get(method, {})
        before = helper.place.traces()
        for number, name in enumerate(NO_BRIDGES):
            assert code_of(peer.ask(method, op=f"naming-{number}", bridge=name, **params)) == "bad_request", (
                name
            )
            (line,) = helper.calls(f"naming-{number}")
            assert (line["method"], line["code"]) == (method, "bad_request")
            assert line["message"].isascii()
        assert helper.place.traces() == before

    def test_other_taps_cannot_be_named(self, helper: HelperProcess, peer: Connection) -> None:
        peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
        before = helper.place.traces()
        for name in NO_TAPS:
            guest = GUEST | {"tap": name}
            assert code_of(peer.ask("delete_taps", taps=[name])) == "bad_request"
            assert code_of(peer.ask("admit_guest", bridge=BRIDGE, guest=guest)) == "bad_request"
            assert code_of(peer.ask("release_guest", bridge=BRIDGE, guest=guest)) == "bad_request"
        assert helper.place.traces() == before

    def test_words_of_the_ruleset_cannot_be_smuggled(self, helper: HelperProcess, peer: Connection) -> None:
        peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
        before = helper.place.traces()
        for field, value in (
            ("mac", "02:00:00:00:00:01 }; flush ruleset"),
            ("address", "10.209.0.2 }\nflush ruleset"),
            ("address", "10.209.0.2/24"),
            ("tap", 'bng-00000000"'),
        ):
            guest = {"tap": "bng-00000000", "mac": "02:00:00:00:00:01", "address": "10.209.0.2", "nat": False}
            assert (
                code_of(peer.ask("admit_guest", bridge=BRIDGE, guest=guest | {field: value})) == "bad_request"
            )
        policy = {"denied": ["10.0.0.0/8 }; flush ruleset"], "allowed": [], "host_ports": [], "guests": False}
        assert code_of(peer.ask("apply_guests", bridge=BRIDGE, policy=policy, guests=[])) == "bad_request"
        assert helper.place.traces() == before

    def test_the_op_id_of_a_refused_request_is_in_the_log(
        self, helper: HelperProcess, peer: Connection
    ) -> None:
        answer = peer.ask("create_taps", op="op-0042", bridge=BRIDGE, count=1)
        assert (answer["op"], code_of(answer)) == ("op-0042", "not_found")
        assert answer["error"]["hint"] == "banger doctor"
        (line,) = helper.calls("op-0042")
        assert {key: line[key] for key in ("method", "code", "message", "level")} == {
            "method": "create_taps",
            "code": "not_found",
            "message": "there is no bridge br-banger",
            "level": "warning",
        }

    def test_an_op_id_cannot_forge_lines_of_the_log(self, helper: HelperProcess, peer: Connection) -> None:
        for op in ('a"\n{"forged": 1}', "\u2028", "x" * 100_000, 7, {"op": 1}):
            message = json.dumps({"v": VERSION, "op": op, "method": "hello", "params": {}}).encode()
            peer.say(message)
        assert all(len(line["op"]) <= 64 for line in helper.log() if "op" in line)
        assert not [line for line in helper.log() if "forged" in line]


class TestDescriptors:
    @pytest.mark.parametrize("count", [1, 64, 65, 253])
    def test_unexpected_ones_are_refused_and_closed(
        self, helper: HelperProcess, peer: Connection, count: int
    ) -> None:
        peer.ask("hello")
        before = helper.descriptors()
        with open("/dev/null") as file:
            for message in (encode("hello"), b"junk", b"x" * 140_000):
                assert code_of(peer.say(message, [file.fileno()] * count)) == "bad_request"
        assert helper.descriptors() == before

    def test_too_few_and_wrong_ones_are_refused_and_closed(
        self, helper: HelperProcess, peer: Connection
    ) -> None:
        peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
        before = helper.descriptors()
        port = {"protocol": "tcp", "host_address": "127.0.0.1", "host_port": 8080, "guest_port": 80}
        with open("/dev/null") as file:
            for descriptors in ((), (file.fileno(),), (file.fileno(),) * 2, (file.fileno(),) * 65):
                answer = peer.ask(
                    "publish_ports",
                    descriptors=descriptors,
                    bridge=BRIDGE,
                    guest_address="10.209.0.2",
                    ports=[port],
                )
                assert code_of(answer) in ("bad_request", "unauthorized")
        assert helper.descriptors() == before

    def test_those_of_an_answer_belong_to_the_peer(self, helper: HelperProcess, peer: Connection) -> None:
        peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
        before = helper.descriptors()
        peer.send(encode("create_taps", bridge=BRIDGE, count=64))
        answer, held, _, _ = socket.recv_fds(peer.socket, 100_000, 64)
        names = [tap["name"] for tap in json.loads(answer)["result"]["taps"]]
        assert len(names) == len(held) == 64
        assert helper.descriptors() == before
        for descriptor in held:
            os.close(descriptor)
        assert peer.ask("list_taps", bridge=BRIDGE)["result"]["taps"] == []

    def test_taps_nobody_received_are_gone(self, helper: HelperProcess) -> None:
        with helper.connect() as one:
            one.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
            with helper.connect() as hasty:
                hasty.send(encode("create_taps", bridge=BRIDGE, count=8))
            wait_until(
                lambda: [line for line in helper.log() if line.get("method") == "create_taps"],
                "it was answered",
            )
            wait_until(lambda: one.ask("list_taps", bridge=BRIDGE)["result"]["taps"] == [], "they are gone")


class TestPeers:
    def test_one_that_does_not_read_is_dropped_and_the_others_are_served(
        self, helper: HelperProcess, peer: Connection
    ) -> None:
        with helper.connect() as mute:
            mute.socket.settimeout(2)
            with pytest.raises(OSError):
                for _ in range(10_000):
                    mute.send(encode("hello"))
        assert "result" in peer.ask("hello")
        assert helper.messages("a peer is dropped")

    def test_one_that_leaves_at_once_is_no_trouble(self, helper: HelperProcess, peer: Connection) -> None:
        for _ in range(50):
            with helper.connect() as hasty:
                hasty.send(encode("list_routes"))
        assert "result" in peer.ask("hello")

    def test_an_empty_message_is_the_end(self, helper: HelperProcess, peer: Connection) -> None:
        with helper.connect() as empty:
            empty.send(b"", ())
            assert empty.is_closed()
        assert "result" in peer.ask("hello")


class TestLife:
    def test_its_end_leaves_the_network_and_takes_the_socket(self, helper: HelperProcess) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with helper.connect() as peer:
                peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
                before = helper.place.traces()
                assert helper.end(number) == 0
                assert not helper.path.exists()
                assert helper.place.traces() == before
                assert peer.is_closed()
            helper.start()

    def test_killed_it_starts_again_where_it_was(self, helper: HelperProcess) -> None:
        with helper.connect() as peer:
            peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
            peer.send(encode("create_taps", bridge=BRIDGE, count=1))
            answer, held, _, _ = socket.recv_fds(peer.socket, 100_000, 64)
            (tap,) = json.loads(answer)["result"]["taps"]
            before = helper.place.traces()
            helper.end(signal.SIGKILL)
            assert peer.is_closed()
        assert helper.path.exists()
        helper.start()
        with helper.connect() as peer:
            peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
            assert peer.ask("list_taps", bridge=BRIDGE)["result"]["taps"] == [tap]
            assert helper.place.traces() == before
        os.close(held[0])

    def test_killed_at_any_moment_it_leaves_what_it_can_put_right(self, helper: HelperProcess) -> None:
        before = helper.place.traces()
        chance = random.Random(7)
        requests = (
            encode("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24"),
            encode("create_taps", bridge=BRIDGE, count=3),
            encode("apply_guests", bridge=BRIDGE, policy=POLICY, guests=[GUEST]),
            encode("release_guest", bridge=BRIDGE, guest=GUEST),
            encode("remove_bridge", bridge=BRIDGE),
            encode("ensure_bridge", bridge=f"{BRIDGE}2", address="10.210.0.1/16"),
        )
        for _ in range(12):
            with helper.connect() as peer:
                for message in requests:
                    peer.send(message)
                time.sleep(chance.uniform(0, 0.02))
                helper.end(signal.SIGKILL)
            helper.start()
            with helper.connect() as peer:
                assert "result" in peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
                assert "result" in peer.ask("create_taps", bridge=BRIDGE, count=1)
                assert "result" in peer.ask("apply_guests", bridge=BRIDGE, policy=POLICY, guests=[GUEST])
        wait_until(lambda: helper.place.traces() == before, "nothing is left")

    def test_a_second_one_refuses(self, helper: HelperProcess, peer: Connection) -> None:
        done = subprocess.run(
            helper.argv(), capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}
        )
        assert done.returncode == 75
        assert done.stderr.splitlines()[0] == f"banger-root: another root helper serves {helper.path}"
        assert "result" in peer.ask("hello")
        with helper.connect() as another:
            assert "result" in another.ask("hello")

    def test_it_tells_systemd_that_it_is_ready(self, host: Place, request: pytest.FixtureRequest) -> None:
        helper = HelperProcess(host)
        request.addfinalizer(helper.close)
        for address in (f"\0banger-test-{os.getpid()}", str(helper.directory / "notify")):
            with host.open_socket(socket.SOCK_DGRAM, socket.AF_UNIX) as notified:
                notified.bind(address)
                helper.start(NOTIFY_SOCKET=address.replace("\0", "@"))
                assert notified.recv(100) == b"READY=1"
                assert _is_served(helper)
                helper.end()

    def test_what_nobody_uses_goes_when_the_last_daemon_has_gone(self, helper: HelperProcess) -> None:
        before = helper.place.traces()
        with helper.connect() as peer:
            peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
            made = helper.place.traces()
        with helper.connect() as peer:  # within the second
            peer.ask("hello")
            assert helper.place.traces() == made
        wait_until(lambda: helper.place.traces() == before, "the bridge is gone")

    def test_what_a_vm_uses_stays_when_the_last_daemon_has_gone(self, helper: HelperProcess) -> None:
        with helper.connect() as peer:
            peer.ask("ensure_bridge", bridge=BRIDGE, address="10.209.0.1/24")
            held = []
            for number in (2, 3):
                peer.send(encode("create_taps", bridge=BRIDGE, count=1))
                answer, (descriptor,), _, _ = socket.recv_fds(peer.socket, 100_000, 64)
                held.append(descriptor)
                (tap,) = json.loads(answer)["result"]["taps"]
                guest = {
                    "tap": tap["name"],
                    "mac": f"02:00:00:00:00:0{number}",
                    "address": f"10.209.0.{number}",
                    "nat": True,
                }
                assert "result" in peer.ask("admit_guest", bridge=BRIDGE, guest=guest)
        os.close(held[1])
        wait_until(
            lambda: "10.209.0.3" not in helper.place.traces()[1],
            "the elements of the tap that is gone are gone",
        )
        links, ruleset, _ = helper.place.traces()
        assert BRIDGE in links
        assert ruleset.count("10.209.0.2") == 2
        os.close(held[0])


@pytest.mark.usefixtures("host")
class TestStart:
    """It refuses to listen where somebody other than root could take its place."""

    def start(self, path: Path | str, *, owner: int = OWNER, extra: tuple[str, ...] = ()) -> tuple[int, str]:
        done = subprocess.run(
            (*MODULE, "--owner", str(owner), "--socket", str(path), *extra),
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT / "src")},
            cwd="/",
            timeout=20,
        )
        return done.returncode, done.stderr

    @pytest.fixture
    def directory(self, host: Place) -> Iterator[Path]:
        helper = HelperProcess(host)
        yield helper.directory
        helper.close()

    def test_in_a_directory_that_others_can_write(self, directory: Path) -> None:
        for mode in (0o777, 0o775, 0o1777):
            directory.chmod(mode)
            status, said = self.start(directory / "root.sock")
            assert status == 77
            assert f"banger-root: {directory} cannot be trusted: a directory of it has mode" in said
            assert "hint: " in said
        assert list(directory.iterdir()) == []

    def test_below_a_directory_that_others_can_write(self, directory: Path) -> None:
        directory.chmod(0o777)
        assert self.start(directory / "run" / "root.sock")[0] == 77
        assert list(directory.iterdir()) == []

    def test_in_a_directory_of_somebody_elses(self, directory: Path) -> None:
        os.chown(directory, OWNER, OWNER)
        status, said = self.start(directory / "root.sock")
        assert (status, f"belongs to uid {OWNER}" in said) == (77, True)
        assert self.start(directory / "run" / "root.sock")[0] == 77
        assert list(directory.iterdir()) == []

    def test_by_way_of_a_symbolic_link(self, directory: Path) -> None:
        real = directory / "real"
        (real / "deep").mkdir(parents=True)
        (directory / "link").symlink_to(real)
        for path in (directory / "link" / "root.sock", directory / "link" / "deep" / "root.sock"):
            status, said = self.start(path)
            assert (status, "link is a symbolic link or no directory" in said) == (77, True)
        assert list((real / "deep").iterdir()) == []

    def test_at_something_that_is_no_socket(self, directory: Path) -> None:
        (directory / "root.sock").write_text("precious")
        (directory / "link.sock").symlink_to(directory / "root.sock")
        for name in ("root.sock", "link.sock"):
            status, said = self.start(directory / name)
            assert (status, "is not a socket" in said) == (75, True)
        assert (directory / "root.sock").read_text() == "precious"

    def test_with_a_lock_that_is_a_link(self, directory: Path) -> None:
        (directory / "victim").write_text("precious")
        (directory / "root.lock").symlink_to(directory / "victim")
        assert self.start(directory / "root.sock")[0] != 0
        assert (directory / "victim").read_text() == "precious"

    @pytest.mark.parametrize(
        "path", ["root.sock", "/run/../tmp/x/root.sock", "/tmp//x/root.sock", "/tmp/" + "x" * 120]
    )
    def test_at_a_path_that_is_none(self, path: str) -> None:
        assert self.start(path)[0] == 64

    def test_for_root_only_when_that_is_meant(self, directory: Path) -> None:
        status, said = self.start(directory / "root.sock", owner=0)
        assert (status, "--allow-root-owner" in said) == (2, True)
        assert self.start(directory / "root.sock", owner=-1)[0] == 2
        assert self.start(directory / "root.sock", owner=2**32)[0] == 2
        assert (
            self.start(directory / "none" / "deeper" / "root.sock", owner=0, extra=("--allow-root-owner",))[0]
            == 77
        )

    def test_as_somebody_else_than_root(self) -> None:
        code = "import os; from banger.privileged.helper.__main__ import main; os.setuid(64999); main(['--owner', '5'])"
        done = subprocess.run(
            (sys.executable, "-c", code),
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT / "src")},
        )
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            77,
            "banger-root: the root helper runs as root",
        )

    def test_as_one_file_with_the_systems_python_alone(
        self, host: Place, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        """What `system install` lays down: no package but its own, nothing of the user's."""
        package = tmp_path / "tree" / "banger"
        for name in ("privileged/helper", "privileged/contract"):
            (package / name).mkdir(parents=True)
            for file in (ROOT / "src" / "banger" / name).glob("*.py"):
                (package / name / file.name).write_bytes(file.read_bytes())
        for name in ("__init__.py", "privileged/__init__.py"):
            (package / name).write_bytes((ROOT / "src" / "banger" / name).read_bytes())
        target = tmp_path / "banger-root"
        zipapp.create_archive(tmp_path / "tree", target, main="banger.privileged.helper.__main__:main")
        helper = HelperProcess(host)
        request.addfinalizer(helper.close)
        helper.start((SYSTEM_PYTHON, "-I", "-S", str(target)))
        with helper.connect() as peer:
            build = peer.ask("hello")["result"]["build"]
            assert len(build) == 16
            assert int(build, 16)
            assert "result" in peer.ask("ensure_bridge", bridge=BRIDGE, address=f"{ADDRESS}/24")


def _is_served(helper: HelperProcess) -> bool:
    try:
        with helper.connect() as connection:
            return "result" in connection.ask("hello")
    except (OSError, EOFError):
        return False
