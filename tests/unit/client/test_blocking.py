import json
import os
import sys

import pytest

from banger.client import places, statuses, wire
from banger.client.blocking import Connection, find_connection, open_connection
from banger.client.wire import Failure, RemoteProblem


def test_calls_follow_one_another_on_a_connection(daemon):
    daemon.answers["daemon.ping"] = {"n": 1}
    with open_connection() as connection:
        assert connection.call("daemon.ping", {"a": "ä\n"}) == {"n": 1}
        assert connection.call("daemon.ping", op="mine", detach=True) == {"n": 1}
    assert daemon.requests[0] == {"v": 1, "method": "daemon.ping", "params": {"a": "ä\n"}}
    assert daemon.requests[1] == {"v": 1, "method": "daemon.ping", "params": {}, "op": "mine", "detach": True}


def test_events_come_before_the_result_and_idling_is_noticed(daemon):
    import threading

    noticed = threading.Event()

    def work(call):
        call.stage("one")
        assert noticed.wait(5)
        call.send({"result": {"done": True}})

    daemon.answers["vm.create"] = work
    events = []
    with open_connection() as connection:
        assert connection.call("vm.create", on_event=events.append, on_idle=noticed.set) == {"done": True}
    assert [event["state"] for event in events] == ["begin", "end"]


def test_nothing_is_imported_between_the_question_and_the_answer(daemon, monkeypatch):
    """A Ctrl-C that comes in the midst of an import can get lost."""
    daemon.answers["vm.create"] = {}
    loaded = []
    send = Connection._send
    monkeypatch.setattr(Connection, "_send", lambda *words: (loaded.append(set(sys.modules)), send(*words)))
    monkeypatch.delitem(sys.modules, "select")
    with open_connection() as connection:
        connection.call("vm.create", on_idle=lambda: None)
    assert set(sys.modules) - loaded[0] == set()


def test_an_error_carries_everything_the_daemon_said(daemon):
    error = {
        "code": "conflict",
        "message": "busy",
        "hint": "wait",
        "detail": "d",
        "outcome": "not_started",
        "op": "o",
    }
    daemon.answers["vm.stop"] = {"error": error}
    with open_connection() as connection, pytest.raises(RemoteProblem) as caught:
        connection.call("vm.stop")
    assert caught.value.as_data() == error
    assert caught.value.exit_status == 75


@pytest.mark.parametrize("code", ["bad_version", "unknown_method"])
def test_another_version_is_explained(daemon, code):
    daemon.answers["vm.list"] = {"error": {"code": code, "message": "version 2 is spoken here"}}
    with open_connection() as connection, pytest.raises(RemoteProblem) as caught:
        connection.call("vm.list")
    assert "banger daemon stop" in caught.value.hint


def test_a_lost_connection_leaves_the_outcome_unknown(daemon):
    daemon.answers["vm.create"] = lambda call: "close"
    with open_connection() as connection, pytest.raises(Failure) as caught:
        connection.call("vm.create")
    assert (caught.value.code, caught.value.outcome) == ("unavailable", "unknown")


@pytest.mark.parametrize(
    "line", [b"garbage\n", b"[1]\n", b'{"a": 1} {}\n', b"\xff\n", b"\n", b'{"a": nul}\n']
)
def test_garbage_from_the_daemon_is_a_failure(daemon, line):
    daemon.answers["vm.list"] = lambda call: call.connection.sendall(line)
    with open_connection() as connection, pytest.raises(Failure, match="not understood"):
        connection.call("vm.list")


def test_an_endless_line_is_a_failure(daemon):
    daemon.answers["vm.list"] = lambda call: call.connection.sendall(b"x" * (2 << 20))
    with open_connection() as connection, pytest.raises(Failure, match="longer than 1 MiB"):
        connection.call("vm.list")


def test_an_oversized_request_is_refused_here(daemon):
    with open_connection() as connection, pytest.raises(Failure) as caught:
        connection.call("vm.list", {"x": "y" * (1 << 20)})
    assert caught.value.exit_status == 64
    assert daemon.requests == []


def test_nobody_there_is_none(runtime):
    assert find_connection() is None


def test_a_dead_socket_is_nobody_there(runtime, daemon):
    daemon.close()
    assert (runtime / "daemon.sock").exists()
    assert find_connection() is None


def test_a_path_too_long_for_a_socket_is_explained(monkeypatch):
    monkeypatch.setenv("BANGER_RUNTIME_DIR", "/tmp/" + "x" * 200)
    with pytest.raises(Failure) as caught:
        find_connection()
    assert "BANGER_RUNTIME_DIR" in caught.value.hint


def test_the_peer_is_known(daemon):
    with open_connection() as connection:
        assert connection.daemon_pid == os.getpid()


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, 'ä😀\x00"\\']}, {"n": {"m": []}}])
def test_json_is_that_of_the_standard_library(value):
    assert json.loads(wire.encode_json(value)) == value
    assert wire.decode_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"XDG_RUNTIME_DIR": "/run/user/7"},
        {"XDG_RUNTIME_DIR": "relative"},
        {"BANGER_RUNTIME_DIR": "/x"},
        {"XDG_STATE_HOME": "/s"},
        {"XDG_STATE_HOME": "s"},
    ],
)
def test_places_are_those_of_the_daemon(monkeypatch, environment):
    from banger.base.paths import find_paths

    for name in ("BANGER_RUNTIME_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for uid in (os.getuid(), 0, 1234):
        monkeypatch.setattr(os, "getuid", lambda uid=uid: uid)
        assert (places.socket_path(), places.log_path()) == (find_paths().socket, find_paths().log)


@pytest.mark.parametrize(
    ("owner", "uid", "environment", "expected"),
    [
        (1234, 1234, {}, "{system}"),
        (1234, 1234, {"XDG_RUNTIME_DIR": "/run/user/1234"}, "{system}"),
        (1234, 1234, {"BANGER_RUNTIME_DIR": "/x"}, "/x"),
        (1234, 1235, {}, "/tmp/banger-1235"),
        (1234, 1235, {"XDG_RUNTIME_DIR": "/run/user/1235"}, "/run/user/1235/banger"),
        (1234, 0, {}, "/run/banger-0"),
        (0, 0, {}, "/run/banger-0"),
        (None, 1234, {}, "/tmp/banger-1234"),
    ],
)
def test_the_owner_of_a_system_installation_finds_its_daemon(
    monkeypatch, tmp_path, owner, uid, environment, expected
):
    from banger.base import paths

    for name in ("BANGER_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    system = tmp_path / "system"
    if owner is not None:
        system.mkdir()
    found = os.lstat

    def lstat(path):
        state = found(path)
        return os.stat_result([*state[:4], owner, *state[5:]]) if path == str(system) else state

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(os, "getuid", lambda: uid)
    for module in (paths, places):
        assert module.SYSTEM_RUNTIME == "/run/banger"
        monkeypatch.setattr(module, "SYSTEM_RUNTIME", str(system))
    assert places.runtime_directory() == paths.find_paths().runtime == expected.format(system=system)


def test_what_is_no_directory_is_nobodys_runtime(monkeypatch, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.delenv("BANGER_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "link").lstat().st_uid or 1)
    monkeypatch.setattr(places, "SYSTEM_RUNTIME", str(tmp_path / "link"))
    assert places.runtime_directory() == "/run/user/7/banger"


def test_the_configuration_can_be_named(monkeypatch):
    from banger.base.paths import find_paths

    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    monkeypatch.delenv("BANGER_CONFIG_DIR", raising=False)
    assert find_paths().config_file == "/c/banger/config.toml"
    monkeypatch.setenv("BANGER_CONFIG_DIR", "/etc/banger")
    assert find_paths().config_file == "/etc/banger/config.toml"


def test_numbers_are_those_of_the_daemon():
    from banger.api import frames
    from banger.api.method import MAX_LINE_BYTES, PROTOCOL_VERSION
    from banger.base.problem import CODES

    assert (statuses.PROTOCOL_VERSION, statuses.MAX_LINE_BYTES) == (PROTOCOL_VERSION, MAX_LINE_BYTES)
    for name in ("STDIN", "STDOUT", "STDERR", "CONTROL", "END", "MAX_PAYLOAD_BYTES"):
        assert getattr(statuses, name) == getattr(frames, name)
    assert {code.value: info.exit_status for code, info in CODES.items()} == statuses.EXIT_STATUS


def test_frames_are_cut_wherever_the_bytes_were_split():
    stream = b"".join(
        wire.encode_header(kind, len(body)) + body for kind, body in [(1, b"ab"), (2, b""), (1, b"x" * 65536)]
    )
    for step in (1, 3, 7, 65536):
        buffer, seen = wire.FrameBuffer(stream[:2]), []
        for start in range(2, len(stream), step):
            piece = stream[start : start + step]
            buffer.room()[: len(piece)] = piece
            buffer.add(len(piece))
            seen += [(kind, bytes(payload)) for kind, payload in buffer.take_frames()]
        assert seen == [(1, b"ab"), (2, b""), (1, b"x" * 65536)]


def test_an_oversized_frame_is_a_failure():
    with pytest.raises(Failure):
        wire.FrameBuffer(wire.encode_header(1, 65537)).take_frames()
