"""The loop with work that is made up, as whoever runs the tests."""

import json
import os
import resource
import signal
import socket
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from banger.privileged.contract.base import VERSION, Done, Reply, Request
from banger.privileged.contract.codec import encode_request
from banger.privileged.contract.processes import Greeting, Hello
from banger.privileged.contract.values import Refusal
from banger.privileged.helper import server as module
from banger.privileged.helper.log import Log, shorten
from banger.privileged.helper.server import Server

HELLO = encode_request(Hello(), "op-1")


class MadeUpWork:
    def __init__(self) -> None:
        self.answer: Callable[[], Reply[Any]] = lambda: Reply(
            Greeting(version=VERSION, build="", pid=1, owner=0)
        )
        self.released = threading.Event()
        self.given: list[tuple[int, ...]] = []
        self.failing = False

    def handle(self, request: Request[Any], descriptors: tuple[int, ...]) -> Reply[Any]:
        assert isinstance(request, Hello)
        self.given.append(descriptors)
        return self.answer()

    def release_abandoned(self) -> bool:
        self.released.set()
        if self.failing:
            raise Refusal("internal", "it does not go")
        return True


class Place:
    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "s")
        self.log_path = directory / "log"
        self.work = MadeUpWork()
        self.owner = os.getuid()

    def serve(self, script: Callable[[], None]) -> list[dict[str, Any]]:
        """Runs the loop here and the script in a thread; returns the log."""
        failures: list[BaseException] = []

        def run_script() -> None:
            try:
                script()
            except BaseException as failure:  # noqa: BLE001 - it is raised again by the test
                failures.append(failure)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=run_script)
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self.path)
            listener.listen()
            listener.setblocking(False)
            Server(listener, self.work, self.owner, Log(log)).run(thread.start)
        thread.join()
        os.close(log)
        if failures:
            raise failures[0]
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connected.settimeout(5)
        connected.connect(self.path)
        return connected

    def say(self, message: bytes, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        with self.connect() as connected:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
            connected.sendmsg([message], rights)
            answer: dict[str, Any] = json.loads(connected.recv(100_000))
            return answer


def _own_descriptors() -> int:
    """Sockets left out: connections that the loop has not seen the end of yet, and may see meanwhile."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            count += not os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_signals_are_as_before_when_it_has_ended(place: Place) -> None:
    before = signal.getsignal(signal.SIGTERM)
    place.serve(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_call_is_one_line_of_the_log(place: Place) -> None:
    (line,) = place.serve(lambda: place.say(HELLO) and None)
    assert line["time"].endswith("Z")
    assert {key: line[key] for key in ("op", "method", "peer_pid", "peer_uid", "level")} == {
        "op": "op-1", "method": "hello", "peer_pid": os.getpid(), "peer_uid": os.getuid(), "level": "info"
    }  # fmt: skip
    assert "code" not in line


def test_a_refusal_is_the_answer_and_in_the_log(place: Place) -> None:
    def refuse() -> Reply[Any]:
        raise Refusal("conflict", "taken by \u202e\n" + "x" * 500, "try another")

    def script() -> None:
        answer = place.say(HELLO)
        assert answer["op"] == "op-1"
        assert answer["error"]["code"] == "conflict"
        assert answer["error"]["hint"] == "try another"

    place.work.answer = refuse
    (line,) = place.serve(script)
    assert (line["code"], line["level"]) == ("conflict", "warning")
    assert line["message"].startswith("taken by \\u202e\\nxxx")
    assert len(line["message"]) == 200


def test_a_bug_is_an_answer_too_and_the_next_call_is_served(place: Place) -> None:
    def script() -> None:
        place.work.answer = lambda: 1 // 0  # type: ignore[assignment,return-value]
        answer = place.say(HELLO)["error"]
        assert answer["code"] == "internal"
        assert "ZeroDivisionError" in answer["message"]
        place.work.answer = lambda: Reply(Done())
        assert place.say(HELLO) == {"op": "op-1", "result": {}}

    log = place.serve(script)
    assert [line.get("code") for line in log] == [None, "internal", None]
    assert "ZeroDivisionError" in log[0]["traceback"]


def test_the_method_of_a_request_that_is_wrong_is_in_the_log(place: Place) -> None:
    log = place.serve(
        lambda: (
            place.say(HELLO.replace(b"{}", b'{"x":1}'))
            and place.say(HELLO.replace(b"hello", b"jump"))
            and None
        )
    )
    assert [(line["op"], line["method"], line["code"]) for line in log] == [
        ("op-1", "hello", "bad_request"),
        ("op-1", "", "unknown_method"),
    ]


def test_a_long_refusal_fits_into_its_answer(place: Place) -> None:
    """What was refused is quoted; as JSON it is three times as long as it came."""
    params = {"bridge": "\u00e9" * 60_000}
    message = {"v": VERSION, "op": "op-2", "method": "remove_bridge", "params": params}
    answers: list[dict[str, Any]] = []

    def script() -> None:
        with place.connect() as peer:
            for request in (json.dumps(message, ensure_ascii=False).encode(), HELLO):
                peer.send(request)
                answers.append(json.loads(peer.recv(module.MESSAGE_BYTES_MAX)))

    place.serve(script)
    assert [answer["op"] for answer in answers] == ["op-2", "op-1"]
    assert answers[0]["error"]["code"] == "bad_request"


def test_another_uid_is_turned_away(place: Place) -> None:
    if os.getuid() == 0:
        pytest.skip("root is always served")
    place.owner = os.getuid() + 1

    def script() -> None:
        with place.connect() as connected:
            assert connected.recv(10) == b""

    (line,) = place.serve(script)
    assert (line["code"], line["peer_uid"]) == ("unauthorized", os.getuid())


def test_descriptors_are_closed_whatever_happens(place: Place) -> None:
    def script() -> None:
        reader, writer = os.pipe()
        place.say(b"junk")
        before = _own_descriptors()
        for message in (HELLO, b"junk", HELLO.replace(b"hello", b"jump"), b"x" * 140_000):
            assert place.say(message, (reader, writer))["error"]["code"] in ("bad_request", "unknown_method")
        place.work.answer = lambda: Reply(Done(), (os.dup(reader), os.dup(writer)))
        with place.connect() as connected:
            connected.send(HELLO)
            _, held, _, _ = socket.recv_fds(connected, 1000, 10)
            assert len(held) == 2
            for descriptor in held:
                os.close(descriptor)
        place.say(b"junk")
        assert _own_descriptors() == before
        os.close(reader)
        os.close(writer)

    place.serve(script)


def test_what_is_abandoned_is_released_after_the_last_peer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SOON_S", 0.2)

    def script() -> None:
        with place.connect() as connected:
            with place.connect():
                pass
            assert not place.work.released.wait(0.5)
            connected.send(HELLO)
        assert place.work.released.wait(5)

    place.serve(script)


def test_what_cannot_be_released_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON_S", 0.05)
    monkeypatch.setattr(module, "LATER_S", 0.05)
    monkeypatch.setattr(module, "FIRST_S", 0.05)
    place.work.failing = True

    def script() -> None:
        for _ in range(3):
            assert place.work.released.wait(5)
            place.work.released.clear()

    log = place.serve(script)
    assert log[0]["why"] == "it does not go"


def test_a_peer_that_does_not_read_is_dropped(place: Place) -> None:
    def script() -> None:
        with place.connect() as mute, pytest.raises(OSError):
            for _ in range(10_000):
                mute.send(HELLO)
        assert "result" in place.say(HELLO)

    assert [line for line in place.serve(script) if line.get("message") == "a peer is dropped"]


@pytest.mark.parametrize(
    ("text", "plain"),
    [("plain", "plain"), ("\x1b[31m\n", "\\x1b[31m\\n"), ("\u202e", "\\u202e"), ("'\"", "'\"")],
)
def test_text_of_peers_is_plain_and_short(text: str, plain: str) -> None:
    assert shorten(text).replace("\\'", "'") == plain
    assert len(shorten(text * 1000)) <= 200


def test_without_a_descriptor_left_a_caller_is_turned_away_and_the_helper_lives(place: Place) -> None:
    def script() -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            lowest = os.dup(caller.fileno())
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
            try:
                caller.settimeout(20)
                caller.connect(place.path)
                assert caller.recv(1) == b""
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert "result" in place.say(HELLO)

    log = place.serve(script)
    assert "no descriptors left" in log[0]["message"]
