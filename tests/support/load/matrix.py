"""Kills at every point of an operation, and what is found afterwards.

A `Script` is one operation on the VM `box`: how the world is made ready, what is called, and how it may end. For each
point: ready, traps set, called, killed, the daemon started again, everything looked at, the VM used and deleted.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from tests.support.load.leaks import find_leaks, list_vms, read_bugs
from tests.support.load.traps import DAEMON, VMM
from tests.support.load.world import JAILED, PLAIN, ROOT, DaemonDied, World, open_world, wait_until_empty

from banger.api.system import DaemonReconcile, OperationList
from banger.api.vm import (
    VmCreate,
    VmDelete,
    VmExec,
    VmKill,
    VmPublish,
    VmRename,
    VmRestart,
    VmSet,
    VmStart,
    VmStop,
    VmUnpublish,
)
from banger.base.problem import Problem
from banger.client.typed import Client
from banger.model.operation import ENDED, Operation
from banger.model.vm import VmRecord, VmState

RESULTS = ROOT / "build" / "crashes"
HELPER = "helper"
BOX, DATA = "box", "what the user wrote"
GONE, STOPPED, FAILED = "gone", "stopped", "stopped, with an error"
SAME, OTHER = "running, same boot", "running, another boot"
RECOVERY = "a daemon's start"
BY_RECONCILE = "; the rest by reconcile"
_BEGUN = "after save row of the operation (running) 1"
_OFFSET = 50_000_000  # free in a new file system, and zeros
_LOOK_S = 2.0


class Script(NamedTuple):
    """`ready` makes the world: the VM, if it makes one, has the user's data. `call` is the operation, `done` its outcome
    when it succeeds; `ends` are those that are right when it does not, by what was killed."""

    ready: Callable[[World, Client], object]
    call: Callable[[Client], object]
    done: str
    ends: Mapping[str, frozenset[str]]

    def list_ends(self, what: str, *, succeeded: bool) -> frozenset[str]:
        """A VM that is told to run, and whose VMM was killed then, has failed, whatever the call came to."""
        if not succeeded:
            return self.ends[what]
        loses_vmm = what == VMM and self.done in (SAME, OTHER)
        return frozenset({self.done, FAILED}) if loses_vmm else frozenset({self.done})


class Found(NamedTuple):
    """What became of one point. `problems` are why it is not good enough; empty: it is."""

    point: str
    outcome: str
    problems: list[str]


def create(client: Client, *, start: bool = True, publish: Sequence[str] = ()) -> None:
    client.call(VmCreate(name=BOX, start=start, publish=list(publish)))


def list_operations(client: Client) -> list[Operation]:
    return client.call(OperationList(all=True, limit=1000)).operations


def write_data(client: Client) -> None:
    run(client, f"printf %s '{DATA}' | dd of=work bs=1 seek={_OFFSET} conv=notrunc status=none && sync work")


def read_data(client: Client) -> str:
    return run(client, f"dd if=work bs=1 skip={_OFFSET} count={len(DATA)} status=none")


def run(client: Client, command: str) -> str:
    """In the one VM that there is, whatever its name is now."""
    (vm,) = list_vms(client)
    done = client.run_command(VmExec(vm=vm.id, argv=["sh", "-c", command]))
    assert done.status == 0, done
    return done.stdout.decode("utf-8", "replace")


def _run_once(client: Client) -> None:
    """As the CLI does it: a VM in which the command could not be begun is deleted by who made it."""
    client.call(VmCreate(name=BOX, ephemeral=True))
    try:
        client.run_command(VmExec(vm=BOX, argv=["true"], delete_after=True))
    except Problem:
        with suppress(Problem):
            client.call(VmDelete(vm=BOX, force=True))
        raise


def _port() -> str:
    """One of this process's own, so that worlds do not meet, below those of the state machine, which runs beside it."""
    return f"{20_000 + os.getpid() % 6_000}:80"


def _running(world: World, client: Client, publish: Sequence[str] = ()) -> None:
    create(client, publish=publish)
    write_data(client)


def _stopped(world: World, client: Client, publish: Sequence[str] = ()) -> None:
    _running(world, client, publish)
    client.call(VmStop(vm=BOX))


def make_scripts(kind: str) -> dict[str, Script]:
    port = _port()
    resting = _ends(daemon={STOPPED}, helper=set(), vmm=set())
    running = _ends(daemon={SAME}, helper={SAME}, vmm={FAILED})
    bridged = kind == JAILED
    return {
        "create": Script(
            lambda *_: None,
            lambda client: create(client, publish=(port,)),
            OTHER,
            _ends(daemon={GONE, STOPPED, FAILED, OTHER}, helper={GONE}, vmm={GONE}),
        ),
        "create stopped": Script(
            lambda *_: None,
            lambda client: create(client, start=False),
            STOPPED,
            _ends(daemon={GONE, STOPPED}, helper={GONE}, vmm=set()),
        ),
        "start": Script(
            lambda world, client: _stopped(world, client, (port,)),
            lambda client: client.call(VmStart(vm=BOX)),
            OTHER,
            _ends(daemon={STOPPED, FAILED, OTHER}, helper={STOPPED, FAILED}, vmm={FAILED}),
        ),
        "stop": Script(
            _running,
            lambda client: client.call(VmStop(vm=BOX)),
            STOPPED,
            _ends(daemon={SAME, STOPPED}, helper=set(), vmm=set()),
        ),
        "kill": Script(
            _running,
            lambda client: client.call(VmKill(vm=BOX)),
            STOPPED,
            _ends(daemon={SAME, STOPPED}, helper=set(), vmm=set()),
        ),
        "restart": Script(
            _running,
            lambda client: client.call(VmRestart(vm=BOX)),
            OTHER,
            _ends(daemon={SAME, STOPPED, FAILED, OTHER}, helper={STOPPED, FAILED}, vmm={FAILED}),
        ),
        "delete": Script(
            _stopped,
            lambda client: client.call(VmDelete(vm=BOX)),
            GONE,
            _ends(daemon={STOPPED, GONE}, helper=set(), vmm=set()),
        ),
        "delete --force": Script(
            lambda world, client: _running(world, client, (port,)),
            lambda client: client.call(VmDelete(vm=BOX, force=True)),
            GONE,
            _ends(daemon={SAME, GONE}, helper=set(), vmm=set()),
        ),
        "set nat": Script(
            _running if bridged else _stopped,
            lambda client: client.call(VmSet(vm=BOX, nat=True)),
            SAME if bridged else STOPPED,
            running if bridged else resting,
        ),
        "rename": Script(_running, lambda client: client.call(VmRename(vm=BOX, name="crate")), SAME, running),
        "run --rm": Script(lambda *_: None, _run_once, GONE, _ends(daemon={GONE}, helper={GONE}, vmm={GONE})),
        "set sizes": Script(
            _stopped,
            lambda client: client.call(VmSet(vm=BOX, memory_mib=128, disk_size_bytes=128 << 20)),
            STOPPED,
            resting,
        ),
        "publish": Script(_running, lambda client: client.call(VmPublish(vm=BOX, port=port)), SAME, running),
        "unpublish": Script(
            lambda world, client: _running(world, client, (port,)),
            lambda client: client.call(VmUnpublish(vm=BOX, port=port)),
            SAME,
            running,
        ),
    }


def _ends(*, daemon: set[str], helper: set[str], vmm: set[str]) -> Mapping[str, frozenset[str]]:
    """Nothing: it succeeds all the same."""
    return {DAEMON: frozenset(daemon), HELPER: frozenset(helper), VMM: frozenset(vmm)}


class Trial:
    """One script in one world after the other: a world that is not clean any more is not used again."""

    def __init__(self, kind: str, name: str, what: str) -> None:
        self.kind = kind
        self.name = name
        self.what = what
        self.script = make_scripts(kind)[name]
        self._boot_id = ""
        self._has_data = False
        self._failure: Problem | None = None  # what became of the call
        self._recorded: list[str] = []  # points at which the operation is on record
        self._known: set[str] = set()

    def run(self) -> list[Found]:
        """All points of the script."""
        with open_world(self.kind) as world:
            world.start_daemon()
            first, later = self._list_points(world), self._list_points(world)
        found = [self._try_first(point) for point in first if point not in later]
        waiting = list(later)
        while waiting:
            with open_world(self.kind) as world:
                world.start_daemon()
                self._list_points(world)
                while waiting:
                    found.append(self.try_point(world, waiting.pop(0)))
                    if found[-1].problems:
                        break
        return found

    def _try_first(self, point: str) -> Found:
        """What is done once for all VMs, with the first one."""
        with open_world(self.kind) as world:
            world.start_daemon()
            return self.try_point(world, point)

    def _list_points(self, world: World) -> list[str]:
        """Of a run in which nothing happens."""
        record = world.home / "points"
        record.unlink(missing_ok=True)
        with world.client() as client:
            self._make_ready(world, client)
            world.set_traps({"record": str(record)})
            self.script.call(client)
        points = record.read_text().splitlines()
        self._recorded = points[points.index(_BEGUN) :] if _BEGUN in points else []
        self._clean_up(world)
        if self.what == HELPER:
            return [point for point in points if point.split()[1].startswith("helper.")]
        return points

    def _make_ready(self, world: World, client: Client) -> None:
        if self.kind == JAILED:
            left = wait_until_empty(lambda: [] if world.describe_host()["name_server"] else ["no names yet"])
            assert not left, left
        self.script.ready(world, client)
        before = {vm.name: vm for vm in list_vms(client)}
        runtime = before[BOX].runtime if BOX in before else None
        self._boot_id = runtime.boot_id if runtime else ""
        self._has_data = BOX in before
        self._known = {operation.id for operation in list_operations(client)}

    def try_point(self, world: World, point: str) -> Found:
        problems: list[str] = []
        outcome = "?"
        try:
            with world.client() as client:
                self._make_ready(world, client)
                reached = self._call(world, client, point)
            if self.what == DAEMON and not world.wait_daemon_end(0 if not reached else 5):
                return Found(point, "not reached", self._clean_up(world))
            if self.what == DAEMON:
                world.start_daemon()
            with world.client() as client:
                outcome, problems = self._look(world, client)
                problems += self._check_operation(client, point) + self._use(world, client)
        except (Problem, DaemonDied, AssertionError, OSError, KeyError, ValueError) as error:
            problems.append(f"{type(error).__name__}: {error} {getattr(error, 'detail', '') or ''}")
        problems += read_bugs(world)
        if problems:
            keep(world, f"{self.kind}-{self.name}-{self.what}-{point}")
        return Found(point, outcome, problems)

    def _call(self, world: World, client: Client, point: str) -> bool:
        """Whether the point was reached."""
        if self.what == HELPER:
            when, method, number = _parse_root_point(point)
            deaths = world.describe_host()["helper_deaths"]
            world.host.order("arm_helper", death=[method, number, when])
            self._failure = _try(self.script.call, client)
            world.host.order("arm_helper", death=None)
            return bool(world.describe_host()["helper_deaths"] > deaths)
        record = world.home / "reached"
        record.unlink(missing_ok=True)
        world.set_traps({"at": point, "what": self.what, "record": str(record)})
        self._failure = _try(self.script.call, client)
        if self.what == DAEMON:
            world.wait_daemon_end(0.05)
        else:
            world.set_traps({})
        return record.exists() and "reached" in record.read_text().splitlines()

    def _look(self, world: World, client: Client) -> tuple[str, list[str]]:
        """How the VM was found, and what is wrong with it or around it."""
        problems = wait_until_empty(lambda: find_leaks(world, client), timeout_s=_LOOK_S)
        mended = self.what == HELPER and bool(problems)
        if mended:  # what a helper that dies leaves is written down, and given back at the next chance
            client.call(DaemonReconcile())
            problems = wait_until_empty(lambda: find_leaks(world, client), timeout_s=_LOOK_S)
        vms = list_vms(client)
        (outcome,) = [self._judge(vm) for vm in vms] or [GONE]
        if outcome not in self.script.list_ends(self.what, succeeded=self._failure is None):
            told = "succeeded" if self._failure is None else f"failed ({self._failure.brief})"
            problems.append(
                f"{outcome} is not how {self.name} may end that {told}: {[vm.error for vm in vms]}"
            )
        if outcome in (SAME, OTHER) and self._has_data:
            problems += _check_data(client)
        return outcome + (BY_RECONCILE if mended else ""), problems

    def _check_operation(self, client: Client, point: str) -> list[str]:
        """What was begun is to be seen, and what came of it is known."""
        new = [operation for operation in list_operations(client) if operation.id not in self._known]
        if self.what == DAEMON and point in self._recorded and not new:
            return ["the operation is forgotten"]
        return [f"what came of {each.kind} is not told" for each in new if each.state not in ENDED]

    def _judge(self, vm: VmRecord) -> str:
        if vm.state in (VmState.STOPPED, VmState.CREATED):
            return STOPPED
        if vm.state is not VmState.RUNNING:
            return FAILED if vm.state is VmState.ERROR else vm.state.value
        assert vm.runtime is not None
        return SAME if vm.runtime.boot_id == self._boot_id else OTHER

    def _use(self, world: World, client: Client) -> list[str]:
        """It starts, runs a command, has its data, and is deleted without a trace."""
        problems: list[str] = []
        for vm in list_vms(client):
            if vm.state is not VmState.RUNNING:
                client.call(VmStart(vm=vm.id))
                problems += [
                    f"once started: {leak}"
                    for leak in wait_until_empty(lambda: find_leaks(world, client), timeout_s=_LOOK_S)
                ]
            run(client, "true")
            problems += _check_data(client) if self._has_data else []
            client.call(VmDelete(vm=vm.id, force=True))
        left = wait_until_empty(lambda: find_leaks(world, client), timeout_s=_LOOK_S)
        return problems + [f"once deleted: {leak}" for leak in left]

    def _clean_up(self, world: World) -> list[str]:
        world.set_traps({})
        with world.client() as client:
            for vm in list_vms(client):
                client.call(VmDelete(vm=vm.id, force=True))
            return wait_until_empty(lambda: find_leaks(world, client), timeout_s=_LOOK_S)


class RecoveryTrial(Trial):
    """The daemon killed while it takes over from one that was killed: a VM that runs, one that rests, one half-made."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind, "start", DAEMON)
        self.name = RECOVERY

    def _list_points(self, world: World) -> list[str]:
        record = world.home / "points"
        record.unlink(missing_ok=True)
        self._leave_work(world)
        world.start_daemon({"record": str(record)})
        with world.client() as client:
            assert not wait_until_empty(lambda: find_leaks(world, client), timeout_s=_LOOK_S)
        self._clean_up(world)
        return record.read_text().splitlines()

    def _leave_work(self, world: World) -> None:
        """The daemon is dead afterwards."""
        with world.client() as client:
            create(client, publish=(_port(),))
            write_data(client)
            (box,) = list_vms(client)
            assert box.runtime is not None
            self._boot_id = box.runtime.boot_id
            client.call(VmCreate(name="rest", start=False))
            world.set_traps({"at": "after vmm.start 1"})
            with suppress(Problem):
                client.call(VmCreate(name="half"))
        assert world.wait_daemon_end()

    def try_point(self, world: World, point: str) -> Found:
        problems: list[str] = []
        outcome = "?"
        try:
            self._leave_work(world)
            ready = world.start_daemon({"at": point})
            if ready and not world.wait_daemon_end(_LOOK_S / 4):
                return Found(point, "not reached", self._clean_up(world))
            world.start_daemon()
            with world.client() as client:
                problems = wait_until_empty(lambda: find_leaks(world, client), timeout_s=_LOOK_S)
                vms = {vm.name: vm for vm in list_vms(client)}
                outcome = self._judge(vms[BOX])
                if outcome != SAME or self._judge(vms["rest"]) != STOPPED:
                    problems.append(f"box is {outcome}, rest is {vms['rest'].state.value}")
                client.call(VmDelete(vm="rest"))
                if "half" in vms:
                    client.call(VmDelete(vm="half", force=True))
                problems += _check_data(client)
            problems += self._clean_up(world)
        except (Problem, DaemonDied, AssertionError, OSError, KeyError, ValueError) as error:
            problems.append(f"{type(error).__name__}: {error}")
        problems += read_bugs(world)
        if problems:
            keep(world, f"{self.kind}-{self.name}-{self.what}-{point}")
        return Found(point, outcome, problems)


def _check_data(client: Client) -> list[str]:
    data = read_data(client)
    return [] if data == DATA else [f"the user's data is {data!r}"]


def _try(call: Callable[[Client], object], client: Client) -> Problem | None:
    """Why it did not succeed."""
    try:
        call(client)
    except Problem as problem:
        return problem
    return None


def _parse_root_point(point: str) -> tuple[str, str, int]:
    when, call, number = point.split()
    return when, call.removeprefix("helper."), int(number)


def make_trial(kind: str, name: str, what: str) -> Trial:
    return RecoveryTrial(kind) if name == RECOVERY else Trial(kind, name, what)


def keep(world: World, name: str) -> None:
    """The log, for who looks into it."""
    place = RESULTS / "logs"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name.replace(' ', '-').replace('/', '-')}.log").write_text(world.read_log())


def write_results(tier: str, kind: str, name: str, what: str, found: Sequence[Found]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        "tier": tier,
        "kind": kind,
        "operation": name,
        "killed": what,
        "points": [each._asdict() for each in found],
    }
    (RESULTS / f"{tier}-{kind}-{name.replace(' ', '-')}-{what}.json").write_text(
        json.dumps(content, indent=1)
    )


def iterate_trials() -> Iterator[tuple[str, str, str]]:
    """World, operation, what is killed. The helper has a part in jailed VMs only."""
    for kind in (JAILED, PLAIN):
        yield kind, RECOVERY, DAEMON
    for name in make_scripts(JAILED):
        for kind, what in ((JAILED, DAEMON), (PLAIN, DAEMON), (JAILED, HELPER), (JAILED, VMM)):
            yield kind, name, what
