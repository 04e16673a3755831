"""The daemon killed after each named stage and each writing of a row, with real guests in QEMU.

As `tests/load/test_crash_matrix.py` on the fake, with fewer points: a boot takes seconds here. One VM lives through all
of them; what is created or deleted is another.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.banger import ROOT, Banger, open_home
from tests.support.load import traps
from tests.support.load.matrix import GONE, OTHER, SAME, STOPPED, Found, write_results
from tests.support.load.world import wait_until_empty

from banger.api.system import OperationList
from banger.api.vm import VmCreate, VmDelete, VmExec, VmKill, VmList, VmSet, VmShow, VmStart, VmStop
from banger.base.problem import Code, Problem
from banger.client.typed import Client
from banger.model.operation import OperationState
from banger.model.vm import VmRecord, VmState

BOX, NEW, DATA = "box", "new", "what the user wrote"
_MEMORY_MIB = 256
_READY_S = 60.0
_SETTLED = (VmState.CREATED, VmState.STOPPED, VmState.ERROR)


class Crashing:
    """A user's banger whose daemon may be told where to die."""

    def __init__(self, banger: Banger) -> None:
        self.banger = banger
        self.socket = str(banger.home / "run" / "daemon.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._write_orders({})
        reader, writer = os.pipe()
        path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
        environment = {**self.banger.environment, "PYTHONPATH": path, traps.ORDERS: str(self._orders)}
        self._process = subprocess.Popen(
            (sys.executable, "-m", "tests.support.load.crashing", "--keep-vms", "--ready-fd", str(writer)),
            env=environment,
            pass_fds=(writer,),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(writer)
        with os.fdopen(reader, "rb") as ready:
            assert select.select([ready], [], [], _READY_S)[0], "the daemon is not ready"
            line = ready.readline()
        assert json.loads(line).get("ready"), line

    def set_traps(self, orders: Mapping[str, str]) -> None:
        assert self._process is not None
        self._write_orders(orders)
        self._process.send_signal(signal.SIGUSR1)

    def has_died(self, *, within_s: float) -> bool:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return self._process.returncode is not None

    @property
    def _orders(self) -> Path:
        return self.banger.home / "traps.json"

    def _write_orders(self, orders: Mapping[str, str]) -> None:
        self._orders.write_text(json.dumps(dict(orders)))


@pytest.fixture(scope="module")
def crashing(material: Path) -> Iterator[Crashing]:
    for banger in open_home():
        banger.configure('network = "user"\n')
        made = Crashing(banger)
        made.start()
        yield made


def find_vms(client: Client) -> dict[str, VmRecord]:
    return {vm.name: client.call(VmShow(vm=vm.id)).vm for vm in client.call(VmList(all=True)).vms}


def find_leaks(banger: Banger, client: Client) -> list[str]:
    vms = find_vms(client)
    running = {vm.id: vm for vm in vms.values() if vm.state is VmState.RUNNING}
    found = [
        f"{vm.name} is {vm.state.value}"
        for vm in vms.values()
        if vm.state not in (*_SETTLED, VmState.RUNNING)
    ]
    processes = sorted(banger.vmm_processes())
    expected = sorted(vm.runtime.pid for vm in running.values() if vm.runtime)
    found += [] if processes == expected else [f"QEMU processes {processes} instead of {expected}"]
    ids = {vm.id for vm in vms.values()}
    found += [str(path) for path in banger.vm_directories() if path.name not in ids]
    found += [str(path) for path in banger.vm_directories() for path in path.glob(".*.tmp")]
    found += [
        str(path)
        for path in banger.vm_directories()
        if path.name not in running
        for path in path.glob("*")
        if path.is_socket()
    ]
    found += [
        f"operation {operation.kind} is still running"
        for operation in client.call(OperationList()).operations
        if operation.state is OperationState.RUNNING
    ]
    return found


def run(client: Client, name: str, command: str) -> str:
    done = client.run_command(VmExec(vm=name, argv=["sh", "-c", command]))
    assert done.status == 0, done
    return done.stdout.decode().strip()


def find_boot_id(client: Client, name: str) -> str:
    """A daemon serves before it has met an agent that is slow to answer."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return run(client, name, "cat /proc/sys/kernel/random/boot_id")
        except Problem as problem:
            if problem.code is not Code.UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def ensure_running(client: Client) -> str:
    if find_vms(client)[BOX].state is not VmState.RUNNING:
        client.call(VmStart(vm=BOX))
    return find_boot_id(client, BOX)


def ensure_stopped(client: Client) -> str:
    if find_vms(client)[BOX].state is VmState.RUNNING:
        client.call(VmKill(vm=BOX))
    return ""


def ensure_no_new(client: Client) -> str:
    with suppress(Problem):
        client.call(VmDelete(vm=NEW, force=True))
    return ""


def ensure_new(client: Client) -> str:
    if NEW not in find_vms(client):
        client.call(VmCreate(name=NEW, memory_mib=_MEMORY_MIB, start=False))
    return ""


Call = Callable[[Client], object]
_SIZES = iter(range(_MEMORY_MIB, 10 * _MEMORY_MIB))


class Script:
    """`ready` gives the boot_id that the VM has before, if it runs."""

    def __init__(self, name: str, ready: Callable[[Client], str], call: Call, ends: tuple[str, ...]) -> None:
        self.name = name
        self.ready = ready
        self.call = call
        self.ends = ends


SCRIPTS = {
    "create": Script(
        NEW,
        ensure_no_new,
        lambda client: client.call(VmCreate(name=NEW, memory_mib=_MEMORY_MIB)),
        (GONE, STOPPED, OTHER),
    ),
    "start": Script(BOX, ensure_stopped, lambda client: client.call(VmStart(vm=BOX)), (STOPPED, OTHER)),
    "stop": Script(BOX, ensure_running, lambda client: client.call(VmStop(vm=BOX)), (STOPPED, SAME)),
    "delete": Script(NEW, ensure_new, lambda client: client.call(VmDelete(vm=NEW)), (STOPPED, GONE)),
    "set sizes": Script(
        BOX,
        ensure_stopped,
        lambda client: client.call(VmSet(vm=BOX, memory_mib=next(_SIZES))),
        (STOPPED,),
    ),
}


def list_points(crashing: Crashing, script: Script) -> list[str]:
    """The ends of stages, and what is behind each writing of a row, of a run in which nothing happens."""
    record = crashing.banger.home / "points"
    record.unlink(missing_ok=True)
    with Client(crashing.socket) as client:
        script.ready(client)
        crashing.set_traps({"record": str(record)})
        script.call(client)
        crashing.set_traps({})
    points = record.read_text().splitlines()
    return [
        point
        for point in points
        if point.startswith("end stage") or (" row of " in point and point.startswith("after"))
    ]


def try_point(crashing: Crashing, script: Script, point: str) -> Found:
    with Client(crashing.socket) as client:
        before = script.ready(client)
        crashing.set_traps({"at": point})
        with suppress(Problem):
            script.call(client)
    if not crashing.has_died(within_s=2):
        crashing.set_traps({})
        return Found(point, "not reached", [])
    crashing.start()
    with Client(crashing.socket) as client:
        problems = wait_until_empty(lambda: find_leaks(crashing.banger, client), timeout_s=60)
        vm = find_vms(client).get(script.name)
        if vm is None:
            outcome = GONE
        elif vm.state is VmState.RUNNING:
            outcome = SAME if find_boot_id(client, vm.name) == before else OTHER
        else:
            outcome = STOPPED
    if outcome not in script.ends:
        problems.append(f"{outcome} is none of {script.ends}: {vm}")
    return Found(point, outcome, problems)


def test_the_box_is_made(crashing: Crashing):
    with Client(crashing.socket) as client:
        client.call(VmCreate(name=BOX, memory_mib=_MEMORY_MIB))
        run(client, BOX, f"printf %s '{DATA}' > /root/data && sync")


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_a_daemon_killed_after_a_stage_or_a_row_leaves_nothing(crashing: Crashing, name: str):
    script = SCRIPTS[name]
    points = list_points(crashing, script)
    if name == "create":  # what a start does too is tried there
        of_start = set(list_points(crashing, SCRIPTS["start"]))
        points = [point for point in points if point not in of_start]
    found = [try_point(crashing, script, point) for point in points]
    write_results("QEMU", "plain", name, traps.DAEMON, found)
    wrong = [f"{each.point}: {each.outcome}: {'; '.join(each.problems)}" for each in found if each.problems]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(found)} points:", *wrong])
    assert found


def test_and_the_users_data_is_there(crashing: Crashing):
    with Client(crashing.socket) as client:
        ensure_no_new(client)
        ensure_running(client)
        assert run(client, BOX, "cat /root/data") == DATA
        client.call(VmDelete(vm=BOX, force=True))
        assert find_leaks(crashing.banger, client) == []
    log = crashing.banger.log.read_text()
    assert "Traceback" not in log
