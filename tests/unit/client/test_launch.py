"""Starting a daemon on demand: daemons that come up, that refuse, that die silently, and a race of two."""

import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from banger.client import launch
from banger.client.blocking import open_connection
from banger.client.wire import Failure, RemoteProblem

LISTENING = """
    import json, os, socket
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["BANGER_RUNTIME_DIR"] + "/daemon.sock")
    listener.listen()
    tell({"ready": True, "socket": "x"})
    while True:
        connection, _ = listener.accept()
        line = connection.makefile().readline()
        if line:
            result = {"pid": os.getpid(), "sid": os.getsid(0), "stdin": os.readlink("/proc/self/fd/0")}
            connection.sendall(json.dumps({"op": "o", "result": result}).encode() + b"\\n")
            break
"""


@pytest.fixture
def program(tmp_path):
    """A daemon whose body is the given text; `tell` writes one line to the ready descriptor and closes it."""

    def write(body):
        path = tmp_path / "daemon.py"
        path.write_text(
            "import json, os, sys\n"
            "def tell(line):\n"
            "    ready = int(sys.argv[sys.argv.index('--ready-fd') + 1])\n"
            "    os.write(ready, json.dumps(line).encode() + b'\\n')\n"
            "    os.close(ready)\n"
            "open(os.environ['XDG_STATE_HOME'] + '/starts', 'a').write('x')\n" + textwrap.dedent(body)
        )
        return (sys.executable, str(path))

    return write


def wait_reaped(pid):
    """Returns when the process has left no zombie behind either."""
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until, Path(f"/proc/{pid}/stat").read_text()
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def state(tmp_path, runtime):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_a_daemon_is_started_when_nobody_listens(program, monkeypatch):
    argv = program(LISTENING)
    monkeypatch.setattr(launch, "daemon_argv", lambda: argv)
    with open_connection() as connection:
        result = connection.call("daemon.status")
    assert result["sid"] == result["pid"] != os.getpid()
    assert result["stdin"] == "/dev/null"
    wait_reaped(result["pid"])


def test_a_daemon_that_refuses_is_quoted(program):
    argv = program(
        "tell({'error': {'code': 'unavailable', 'message': 'the database is newer', 'hint': 'upgrade'}})"
    )
    with pytest.raises(RemoteProblem) as caught:
        launch.start_daemon(argv)
    assert (caught.value.message, caught.value.hint) == ("the database is newer", "upgrade")


def test_a_daemon_that_finds_another_one_is_no_failure(program):
    launch.start_daemon(program("tell({'error': {'code': 'conflict', 'message': 'locked'}})"))


def test_a_daemon_that_dies_silently_is_told_with_its_last_words(program, state):
    with pytest.raises(Failure) as caught:
        launch.start_daemon(program("raise SystemExit('no such module')"))
    assert "ended before it was ready" in caught.value.message
    assert caught.value.detail == "no such module"
    assert (state / "banger/daemon.log").stat().st_mode & 0o777 == 0o600


def test_a_daemon_that_hangs_meets_the_deadline(program):
    argv = program("import signal; signal.alarm(5); signal.pause()")
    with pytest.raises(Failure) as caught:
        launch.start_daemon(argv, deadline_s=0.5)
    assert caught.value.outcome == "unknown"


def test_of_two_starters_one_starts(program, state):
    argv = program(LISTENING)
    threads = [threading.Thread(target=launch.start_daemon, args=(argv,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (state / "starts").read_text() == "x"
    with open_connection() as connection:
        pid = connection.call("daemon.status")["pid"]
    wait_reaped(pid)


@pytest.mark.parametrize("wrong", ["open", "link", "file"])
def test_a_runtime_directory_that_others_could_use_is_refused(runtime, wrong):
    if wrong == "open":
        runtime.chmod(0o755)
    else:
        runtime.rename(runtime.with_name("elsewhere"))
        runtime.symlink_to("elsewhere") if wrong == "link" else runtime.touch()
    with pytest.raises(Failure):
        launch.ensure_runtime_directory()


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        ('{"uid": %d}', True),
        ('{"uid": 4711}', False),
        ("{", False),
        ("[]", False),
        (None, False),
    ],
)
def test_where_the_system_runs_the_daemon_no_second_one_is_started(
    program, monkeypatch, tmp_path, runtime, content, refused
):
    record = tmp_path / "install.json"
    if content is not None:
        record.write_text(content % os.getuid() if "%" in content else content)
    monkeypatch.setattr(launch, "INSTALL_RECORD", str(record))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("BANGER_RUNTIME_DIR")
    argv = program("tell({'error': {'code': 'conflict', 'message': 'locked'}})")
    if refused:
        with pytest.raises(Failure, match="the daemon that the system runs for you is down") as caught:
            launch.start_daemon(argv)
        assert caught.value.hint in ("sudo systemctl start banger", "sudo banger system restart")
    else:
        launch.start_daemon(argv)
    monkeypatch.setenv("BANGER_RUNTIME_DIR", str(runtime))
    launch.start_daemon(argv)
