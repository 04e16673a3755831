"""A daemon from start to end: directories, lock, socket, ready line, signals, order of the shutdown."""

import asyncio
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from daemon_harness import LAUNCH, FakeServices, Wire, make_paths

from banger.base.problem import Code, Problem
from banger.daemon.main import main, serve
from banger.daemon.shutdown import Shutdown
from banger.daemon.startup import Herald, hold_lock
from banger.model.operation import Operation, OperationState
from banger.store.sqlite import open_store


@pytest.fixture(autouse=True)
def root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def paths(tmp_path):
    return make_paths(tmp_path)


class Daemon:
    def __init__(self, paths, shutdown, services, task):
        self.paths = paths
        self.shutdown = shutdown
        self.services = services
        self.task = task
        self.clients = []

    async def connect(self):
        client = Wire(*await asyncio.open_unix_connection(self.paths.socket))
        self.clients.append(client)
        return client


@asynccontextmanager
async def running_daemon(paths, *, keep_vms=False):
    ready, told = os.pipe()
    services, shutdown = FakeServices(), Shutdown(keep_vms=keep_vms)
    loop = asyncio.get_running_loop()
    is_ready = asyncio.Event()
    loop.add_reader(ready, is_ready.set)
    task = asyncio.create_task(serve(paths, services.open, herald=Herald(told), shutdown=shutdown))
    waiting = asyncio.create_task(is_ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    loop.remove_reader(ready)
    waiting.cancel()
    try:
        if task.done():
            await task
        line = os.read(ready, 4096)
        assert json.loads(line) == {"ready": True, "socket": paths.socket}
        assert os.read(ready, 1) == b""  # closed after the line
        daemon = Daemon(paths, shutdown, services, task)
        yield daemon
        shutdown.ask()
        await asyncio.wait_for(task, 10)
        for client in daemon.clients:
            client.writer.close()
    finally:
        os.close(ready)
        task.cancel()


async def test_start_serve_stop_leaves_nothing(paths):
    async with running_daemon(paths) as daemon:
        client = await daemon.connect()
        assert (await client.call("daemon.ping"))["result"] == {}
        assert stat.S_IMODE(os.stat(paths.socket).st_mode) == 0o600
        assert Path(paths.lock).read_text() == f"{os.getpid()}\n{paths.socket}\n"
        assert (await client.call("daemon.stop"))["result"] == {}
        assert await client.at_end()
        await asyncio.wait_for(daemon.task, 5)
        assert daemon.services.stopped.is_set()
    assert not Path(paths.socket).exists()
    records = [json.loads(line) for line in Path(paths.log).read_text().splitlines()]
    assert [record["message"] for record in records] == ["ready", "shutting down", "ended"]
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in (paths.database, paths.log)} == {0o600}


async def test_who_asked_for_the_stop_sees_the_end_when_all_is_over(paths):
    async with running_daemon(paths) as daemon:
        client = await daemon.connect()
        await client.call("daemon.stop")
        assert await client.at_end()
        async with running_daemon(paths):  # at once: lock, socket and store are free
            pass


async def test_the_shutdown_undoes_operations_ends_calls_and_tells_both(paths):
    async with running_daemon(paths) as daemon:
        attached, call, stream, other = [await daemon.connect() for _ in range(4)]
        await attached.send({"v": 1, "method": "vm.create", "params": {"name": "web"}, "op": "op-a"})
        await daemon.services.began.wait()
        daemon.services.began.clear()
        await call.send({"v": 1, "method": "vm.show", "params": {"vm": "wait"}})
        await daemon.services.began.wait()
        await stream.send({"v": 1, "method": "vm.exec", "params": {"vm": "web", "argv": ["sink"]}})
        await stream.receive()
        await other.call("daemon.stop")
        assert (await other.call("daemon.ping"))["error"]["code"] == "unavailable"
        while "event" in (line := await attached.receive()):
            pass
        assert line["error"]["code"] == "cancelled"
        assert (await call.receive())["error"]["code"] == "cancelled"
        kind, payload = await stream.receive_frame()
        assert (kind, json.loads(payload)["error"]["code"]) == (4, "cancelled")
        assert daemon.services.undone.is_set()
        await asyncio.wait_for(daemon.task, 5)
    store = open_store(Path(paths.database))
    assert store.operations.find("op-a").state is OperationState.CANCELLED
    store.close()


async def test_a_second_daemon_on_the_same_directories_is_refused(paths):
    async with running_daemon(paths) as daemon:
        with pytest.raises(Problem) as caught:
            await serve(paths, FakeServices().open)
        assert caught.value.code is Code.CONFLICT
        assert f"pid {os.getpid()}" in caught.value.brief
        assert (await (await daemon.connect()).call("daemon.ping"))["result"] == {}


@pytest.mark.parametrize(
    ("named", "runtime", "hint"),
    [
        (False, "/run/user/7/banger", "export XDG_RUNTIME_DIR=/run/user/7"),
        (True, "/run/user/7/banger", "export BANGER_RUNTIME_DIR=/run/user/7/banger"),
        (False, "/tmp/banger-7", "export BANGER_RUNTIME_DIR=/tmp/banger-7"),
    ],
)
def test_who_listens_elsewhere_is_named_with_the_way_there(tmp_path, monkeypatch, named, runtime, hint):
    monkeypatch.delenv("BANGER_RUNTIME_DIR", raising=False)
    if named:
        monkeypatch.setenv("BANGER_RUNTIME_DIR", str(tmp_path))
    lock, other = tmp_path / "daemon.lock", f"{runtime}/daemon.sock"
    with hold_lock(lock, other):
        words = f"pid {os.getpid()}.* listens at {other}, not at /here"
        with pytest.raises(Problem, match=words) as refused, hold_lock(lock, "/here"):
            pass
        assert refused.value.hint == hint
        lock.write_text(f"1\n{other}\n")  # of somebody before, who has left
        with pytest.raises(Problem, match=f"pid {os.getpid()}") as refused, hold_lock(lock, "/here"):
            pass
        assert refused.value.hint == "banger daemon status"


async def test_a_stale_socket_is_replaced(paths):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(paths.socket)
    async with running_daemon(paths) as daemon:
        assert (await (await daemon.connect()).call("daemon.ping"))["result"] == {}


async def test_operations_of_a_daemon_that_died_are_unknown_at_start(paths):
    store = open_store(Path(paths.database))
    store.operations.save(
        Operation(id="op-x", kind="vm.create", subject="web", state=OperationState.RUNNING, started_at="t")
    )
    store.close()
    async with running_daemon(paths) as daemon:
        shown = (await (await daemon.connect()).call("operation.show", {"operation": "op-x"}))["result"]
        assert shown["state"] == "unknown"
        assert shown["error"]["outcome"] == "unknown"
        assert shown["finished_at"]


async def test_a_runtime_directory_that_others_may_enter_is_refused(paths):
    os.chmod(paths.runtime, 0o755)
    with pytest.raises(Problem, match="0755"):
        await serve(paths, FakeServices().open)


async def test_a_socket_path_that_is_too_long_is_refused_and_nothing_stays(tmp_path):
    paths = make_paths(tmp_path / ("x" * 100))
    with pytest.raises(Problem, match="too long for sockets"):
        await serve(paths, FakeServices().open)
    with hold_lock(Path(paths.lock), paths.socket):
        pass


async def test_services_that_fail_to_open_end_the_daemon(paths):
    Path(paths.database).write_bytes(b"this is no database")
    with pytest.raises(Problem) as caught:
        await serve(paths, FakeServices().open)
    assert caught.value.code is Code.UNAVAILABLE


async def test_the_second_signal_hurries(paths):
    shutdown = Shutdown()
    with shutdown.handle_signals():
        for event in (shutdown.asked, shutdown.hurry):
            assert not event.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(event.wait(), 5)


@pytest.mark.parametrize(("by_signal", "stopped"), [(True, False), (False, True)])
async def test_a_system_service_leaves_its_vms_unless_its_owner_stops_it(paths, by_signal, stopped):
    async with running_daemon(paths, keep_vms=True) as daemon:
        (daemon.shutdown.ask_by_signal if by_signal else daemon.shutdown.ask)()
        await asyncio.wait_for(daemon.task, 5)
        assert daemon.services.stopped.is_set() is stopped


async def test_a_request_may_leave_the_vms_to_the_next_daemon(paths):
    async with running_daemon(paths) as daemon:
        client = await daemon.connect()
        await client.call("daemon.stop", {"keep_vms": True})
        await asyncio.wait_for(daemon.task, 5)
        assert not daemon.services.stopped.is_set()


async def test_hurrying_does_not_wait_for_an_undo(paths):
    async with running_daemon(paths) as daemon:
        client = await daemon.connect()
        await client.send({"v": 1, "method": "vm.create", "params": {"name": "slow-undo"}, "detach": True})
        await daemon.services.began.wait()
        daemon.shutdown.ask_by_signal()
        await asyncio.wait_for(daemon.services.undoing.wait(), 5)
        assert not daemon.services.stopped.is_set()
        daemon.shutdown.ask_by_signal()
        await asyncio.wait_for(daemon.task, 5)
        assert daemon.services.stopped.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_tells_that_it_is_ready_and_ends_by_a_signal(tmp_path, number):
    environment = {
        **os.environ,
        "BANGER_RUNTIME_DIR": f"{tmp_path}/run",
        "XDG_STATE_HOME": f"{tmp_path}/state",
    }
    argv = [sys.executable, "-c", LAUNCH, str(Path(__file__).with_name("harness.py"))]

    def launch():
        ready, told = os.pipe()
        daemon = subprocess.Popen(
            [*argv, "--ready-fd", str(told)], env=environment, pass_fds=[told], stderr=subprocess.PIPE
        )
        os.close(told)
        with os.fdopen(ready) as reader:
            return daemon, json.loads(reader.read())

    daemon, line = launch()
    with daemon:
        try:
            assert line["ready"] is True
            second, line = launch()
            with second:
                assert second.wait(10) == Code.CONFLICT.info.exit_status
            assert line["error"]["message"] == f"another daemon runs (pid {daemon.pid})"
        finally:
            daemon.send_signal(number)
        assert daemon.wait(10) == 0
        assert daemon.stderr.read() == b""
    assert not (tmp_path / "run/daemon.sock").exists()


def test_of_daemons_started_at_once_one_runs_and_the_others_say_which(tmp_path):
    """The lock's file is there with a pid of old: nobody may be told that one."""
    environment = os.environ | {
        "BANGER_RUNTIME_DIR": f"{tmp_path}/run",
        "XDG_STATE_HOME": f"{tmp_path}/state",
    }
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run/daemon.lock").write_text("1\n")
    ready, told = os.pipe()
    argv = [
        sys.executable,
        "-c",
        LAUNCH,
        str(Path(__file__).with_name("harness.py")),
        "--ready-fd",
        str(told),
    ]
    daemons = [
        subprocess.Popen(argv, env=environment, pass_fds=[told], stderr=subprocess.DEVNULL) for _ in range(4)
    ]
    os.close(told)
    try:
        with os.fdopen(ready) as reader:
            lines = [json.loads(reader.readline()) for _ in daemons]
        assert sum(line.get("ready", False) for line in lines) == 1
        winner = int((tmp_path / "run/daemon.lock").read_text().splitlines()[0])
        refusals = [line["error"] for line in lines if "error" in line]
        assert {refusal["message"] for refusal in refusals} == {f"another daemon runs (pid {winner})"}
        assert {refusal["hint"] for refusal in refusals} == {"banger daemon status"}
        statuses = [daemon.wait(10) for daemon in daemons if daemon.pid != winner]
        assert statuses == [Code.CONFLICT.info.exit_status] * 3
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait(10)


def test_a_daemon_that_cannot_start_says_so_on_stderr(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir(mode=0o755)
    os.chmod(tmp_path / "run", 0o755)
    monkeypatch.setenv("BANGER_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    wiring = type(sys)("banger.daemon.wiring")
    wiring.open_services = None
    monkeypatch.setitem(sys.modules, "banger.daemon.wiring", wiring)
    assert main([]) == Code.UNAUTHORIZED.info.exit_status
    error = capsys.readouterr().err
    assert "error: " in error
    assert "hint: " in error


@pytest.mark.parametrize(
    "arguments", [["--nope"], ["--ready-fd"], ["--ready-fd", "x"], ["--ready-fd=-1"], ["x"]]
)
def test_unknown_arguments_are_refused(arguments, capsys):
    assert main(arguments) == Code.BAD_REQUEST.info.exit_status
    assert "--foreground" in capsys.readouterr().err


def test_a_ready_descriptor_that_is_not_open_harms_nothing():
    assert not Herald(9999).tell_problem(Problem(Code.INTERNAL, "x"))


async def test_what_services_begin_by_themselves_is_an_operation_that_may_fail(paths):
    async def work(progress):
        progress.enter("power off")
        progress.leave()
        progress.tell("its time to live, 25s, is over")

    async def fail(progress):
        await work(progress)
        raise Problem(Code.CONFLICT, "it is busy")

    async with running_daemon(paths) as daemon:
        for each in (work, fail):
            await daemon.services.perform("vm.stop", "web", each)
        client = await daemon.connect()
        listed = (await client.call("operation.list"))["result"]["operations"]
    assert sorted((each["kind"], each["subject"], each["state"]) for each in listed) == [
        ("vm.stop", "web", "failed"),
        ("vm.stop", "web", "succeeded"),
    ]
    assert {each["detail"] for each in listed} == {"its time to live, 25s, is over"}
