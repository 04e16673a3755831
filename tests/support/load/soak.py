"""Life cycles without end, and whether anything grows: `make soak`, `python -m tests.support.load.soak [SECONDS]`.

Two daemons at once: one on the fake host at full speed, one with real guests in QEMU. Every round ends with a rest in
which no VM is there, and then everything is counted; so what is there in the rest and was not there before is a leak.
Fails when what is counted in the later half is beyond BOUNDS. The first quarter is warm-up.
"""

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.support.banger import Banger, make_material, open_home
from tests.support.load.leaks import find_leaks
from tests.support.load.world import JAILED, POOL, World, open_world, wait_until_empty

from banger.api.system import DaemonStatus, OperationList
from banger.api.vm import VmCreate, VmDelete, VmExec, VmList, VmPublish, VmSet, VmStart, VmStop
from banger.base.process import find_tool
from banger.client.typed import Client

DEFAULT_S = 3600.0
ROUNDS = 40
ROUND_S = (3.0, 60.0)
WORKERS = 4
OPERATIONS_MAX = 200  # the daemon keeps so many that have ended
MIB = 1024 * 1024
THREADS = 2 + min(
    32, (os.cpu_count() or 1) + 4
)  # main, the store's, asyncio's executor: it makes them by and by
BOUNDS = {"rss_mib": 5.0, "descriptors": 0, "threads": 0, "rows": 0, "objects": 0, "files": 0}


class Sample(NamedTuple):
    """What a daemon has in a rest. `objects` are processes, taps and everything else of its host's; `files` those below
    its state directory; old logs, which are bounded, are none."""

    at_s: float
    cycles: int
    rss_mib: float
    descriptors: int
    threads: int
    rows: int
    objects: int
    files: int
    operations: int
    database_kib: int


class Side:
    """One of the two daemons. `pool` is how many objects are there in a rest."""

    def __init__(
        self, name: str, socket: str, state: Path, workers: int, count_objects: Callable[[], int], pool: int
    ) -> None:
        self.name = name
        self.socket = socket
        self.state = state
        self.workers = workers
        self._port = (30_000 if name == "qemu" else 20_000) + os.getpid() % 2_000  # both are the host's own
        self.cycles = 0
        self.samples: list[Sample] = []
        self.problems: list[str] = []
        self._count_objects = count_objects
        self._pool = pool

    def work_until(self, end: float) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._work, args=(number, end)) for number in range(self.workers)]
        for thread in threads:
            thread.start()
        return threads

    def _work(self, number: int, end: float) -> None:
        try:
            with Client(self.socket) as client:
                while time.monotonic() < end:
                    live_once(client, f"{self.name}{number}", self._port + number)
                    self.cycles += 1
        except Exception as error:  # noqa: BLE001 - told at the end, with the table
            self.problems.append(f"{self.name}: a life cycle failed: {error!r}")

    def rest(self, since: float) -> None:
        """Counts. What is done in the background has a moment to end."""
        with Client(self.socket) as client:
            left = wait_until_empty(lambda: [vm.name for vm in client.call(VmList(all=True)).vms])
            status = client.call(DaemonStatus())
            process = Path(f"/proc/{status.pid}")
            wait_until_empty(lambda: ["busy"] if self._count_objects() > self._pool else [])
            fields = dict(
                line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
            )
            self.samples.append(
                Sample(
                    at_s=round(time.monotonic() - since, 1),
                    cycles=self.cycles,
                    rss_mib=round(int(fields["VmRSS"].split()[0]) / 1024, 1),
                    descriptors=len(list((process / "fd").iterdir())),
                    threads=int(fields["Threads"]),
                    rows=len(left),
                    objects=self._count_objects(),
                    files=len(self._list_files()),
                    operations=len(client.call(OperationList(all=True, limit=1000)).operations),
                    database_kib=(self.state / "banger.db").stat().st_size // 1024,
                )
            )

    def _list_files(self) -> list[Path]:
        """A log that is full is renewed, and the old ones are kept beside it."""
        return [path for path in self.state.rglob("*") if not path.name.startswith("daemon.log.")]


def live_once(client: Client, name: str, port: int) -> None:
    client.call(VmCreate(name=name, memory_mib=256))
    assert client.run_command(VmExec(vm=name, argv=["true"])).status == 0
    client.call(VmPublish(vm=name, port=f"{port}:80"))
    client.call(VmStop(vm=name))
    client.call(VmSet(vm=name, memory_mib=257))
    client.call(VmStart(vm=name))
    assert client.run_command(VmExec(vm=name, argv=["true"])).status == 0
    client.call(VmDelete(vm=name, force=True))


@contextmanager
def open_fake() -> Iterator[Side]:
    with open_world(JAILED) as world:
        world.start_daemon()
        side = Side(
            "fake", world.socket, world.home / "state" / "banger", WORKERS, lambda: count_objects(world), POOL
        )
        yield side
        with world.client() as client:
            side.problems += find_leaks(world, client)


def count_objects(world: World) -> int:
    host = world.describe_host()
    return sum(len(host[what]) for what in ("vmms", "taps", "guests", "published", "jails", "snapshots"))


@contextmanager
def open_qemu() -> Iterator[Side]:
    make_material("vm")
    for banger in open_home():
        banger.configure('network = "user"\n')
        banger.run("daemon", "start")
        yield Side(
            "qemu",
            str(banger.home / "run" / "daemon.sock"),
            banger.state / "banger",
            1,
            partial(_count, banger),
            0,
        )


def _count(banger: Banger) -> int:
    return len(banger.vmm_processes()) + len(banger.vm_directories())


def judge(side: Side) -> list[str]:
    """What has grown, by the samples after the warm-up: the later half of them against the earlier."""
    samples = side.samples[len(side.samples) // 4 :]
    half = len(samples) // 2
    problems = list(side.problems)
    if half == 0:
        return [*problems, f"{side.name}: {len(side.samples)} rounds are too few to judge by"]
    for name, bound in BOUNDS.items():
        pick = statistics.median if name == "rss_mib" else max
        earlier, later = (
            pick(getattr(each, name) for each in part) for part in (samples[:half], samples[half:])
        )
        allowed = max(earlier, THREADS) if name == "threads" else earlier
        if later > allowed + bound:
            problems.append(f"{side.name}: {name} has grown from {earlier} to {later}")
    if (most := max(sample.operations for sample in samples)) > OPERATIONS_MAX:
        problems.append(f"{side.name}: {most} operations are kept")
    return problems


def render(sides: list[Side]) -> str:
    names = Sample._fields
    lines = [f"{'':6}" + "".join(f"{name:>13}" for name in names)]
    lines += [
        f"{side.name:6}" + "".join(f"{value:>13}" for value in sample)
        for side in sides
        for sample in side.samples
    ]
    return "\n".join(lines)


def soak(seconds: float) -> int:
    with ExitStack() as opened:
        sides = [opened.enter_context(open_fake())]
        if find_tool("qemu-system-x86_64") is None:
            print("without QEMU: it is not installed")
        else:
            sides.append(opened.enter_context(open_qemu()))
        began = time.monotonic()
        round_s = min(max(seconds / ROUNDS, ROUND_S[0]), ROUND_S[1])
        while time.monotonic() < began + seconds and not any(side.problems for side in sides):
            end = time.monotonic() + round_s
            for thread in [thread for side in sides for thread in side.work_until(end)]:
                thread.join()
            for side in sides:
                side.rest(began)
    problems = [problem for side in sides for problem in judge(side)]
    print(render(sides))
    print("\n".join(problems) if problems else f"nothing has grown in {seconds:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(soak(float(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SOAK_S") or DEFAULT_S)))
