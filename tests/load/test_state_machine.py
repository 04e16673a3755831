"""A long random life, call by call, against a model of three fields: whatever was called, killed or restarted, the VMs
are what the model says, and nothing is there that no VM accounts for.

The steps are the same in every run (`derandomize`); BANGER_TEST_SEED makes another life.
"""

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.load.leaks import find_leaks, list_vms, read_bugs
from tests.support.load.world import JAILED, PLAIN, World, open_world, wait_until_empty

from banger.api.method import Request
from banger.api.system import DaemonReconcile, OperationCancel, OperationShow
from banger.api.vm import (
    VmCreate,
    VmDelete,
    VmExec,
    VmKill,
    VmPrune,
    VmPublish,
    VmRename,
    VmRestart,
    VmSet,
    VmStart,
    VmStop,
    VmUnpublish,
)
from banger.base.problem import Code, Problem
from banger.client.typed import Client
from banger.model.operation import OperationState
from banger.model.vm import VmRecord, VmState

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]

EXAMPLES, STEPS = 50, 50
STEPS_MIN = 2000  # of each kind of world
NAMES = st.sampled_from(["ada", "bob", "cyd"])
_PORT = (
    26_000 + os.getpid() % 3_000 * 2
)  # this process's own: whether they are free is asked of the real host
PORTS = st.sampled_from([_PORT, _PORT + 1])
_OFFSET = 50_000_000  # free in a new file system, and zeros
_WAIT_S = 5.0
_REFUSALS = frozenset({Code.NOT_FOUND, Code.ALREADY_EXISTS, Code.CONFLICT, Code.NOT_RUNNING})


@dataclass
class Expected:
    """One VM as it must be. `boot_id` is empty when it does not run."""

    boot_id: str = ""
    memory_mib: int = 64
    nat: bool = False
    ports: set[int] = field(default_factory=set)
    data: str = ""


def step(**strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that is noted, and whose failure is kept: hypothesis repeats a life that went wrong, and it may not go
    wrong twice."""

    def decorate(act: Callable[..., None]) -> Any:
        @rule(**strategies)
        @wraps(act)
        def noted(self: "Life", **values: Any) -> None:
            self.story.append(
                f"{act.__name__}({', '.join(f'{key}={value!r}' for key, value in values.items())})"
            )
            with self.witnessed():
                act(self, **values)

        return noted

    return decorate


class Life(RuleBasedStateMachine):
    world: World
    steps = 0
    failure = ""

    def __init__(self) -> None:
        super().__init__()
        self.vms: dict[str, Expected] = {}
        self.boots: set[str] = set()  # all that have ever been seen
        self.story: list[str] = []
        self.client = Client(self.world.socket)

    @contextmanager
    def witnessed(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            cls = type(self)
            cls.failure = cls.failure or "\n".join([*self.story, traceback.format_exc()])
            raise

    @initialize()
    def begin(self) -> None:
        assert not self.failure  # it has been told; no more of it
        for vm in list_vms(self.client):
            self.client.call(VmDelete(vm=vm.id, force=True))

    def teardown(self) -> None:
        self.client.close()

    # What everybody may call

    @step(name=NAMES, start=st.booleans())
    def create(self, name: str, start: bool) -> None:
        made = self.call(VmCreate(name=name, start=start), Code.ALREADY_EXISTS if name in self.vms else None)
        if made is not None:
            self.vms[name] = Expected(boot_id=boot_id_of(made.vm))

    @step(name=NAMES)
    def start(self, name: str) -> None:
        vm = self.vms.get(name)
        done = self.call(
            VmStart(vm=name), self.missing(name) or (Code.CONFLICT if vm and vm.boot_id else None)
        )
        if done is not None:
            self.vms[name].boot_id = boot_id_of(done.vm)
            assert self.vms[name].boot_id

    @step(name=NAMES, kill=st.booleans())
    def stop(self, name: str, kill: bool) -> None:
        if self.call(VmKill(vm=name) if kill else VmStop(vm=name), self.missing(name)) is not None:
            self.vms[name].boot_id = ""

    @step(name=NAMES)
    def restart(self, name: str) -> None:
        done = self.call(VmRestart(vm=name), self.missing(name))
        if done is not None:
            assert boot_id_of(done.vm) not in ("", self.vms[name].boot_id)
            self.vms[name].boot_id = boot_id_of(done.vm)

    @step(name=NAMES, force=st.booleans())
    def delete(self, name: str, force: bool) -> None:
        vm = self.vms.get(name)
        refused = self.missing(name) or (Code.CONFLICT if vm and vm.boot_id and not force else None)
        if self.call(VmDelete(vm=name, force=force), refused) is not None:
            del self.vms[name]

    @step(name=NAMES, memory_mib=st.sampled_from([64, 128]))
    def set_memory(self, name: str, memory_mib: int) -> None:
        vm = self.vms.get(name)
        refused = self.missing(name) or (Code.CONFLICT if vm and vm.boot_id else None)
        if self.call(VmSet(vm=name, memory_mib=memory_mib), refused) is not None:
            self.vms[name].memory_mib = memory_mib

    @step(name=NAMES, nat=st.booleans())
    def set_nat(self, name: str, nat: bool) -> None:
        vm = self.vms.get(name)
        fixed = self.world.kind == PLAIN and vm is not None and vm.boot_id and nat != vm.nat
        if (
            self.call(VmSet(vm=name, nat=nat), self.missing(name) or (Code.CONFLICT if fixed else None))
            is not None
        ):
            self.vms[name].nat = nat

    @step(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        refused = self.missing(name) or (Code.ALREADY_EXISTS if new in self.vms and new != name else None)
        if self.call(
            VmRename(vm=name, name=new), refused, may_refuse=Code.BAD_REQUEST if new == name else None
        ):
            self.vms[new] = self.vms.pop(name)

    @step(name=NAMES, port=PORTS)
    def publish(self, name: str, port: int) -> None:
        vm = self.vms.get(name)
        refused = self.missing(name) or (Code.NOT_RUNNING if vm and not vm.boot_id else None)
        taken = any(port in other.ports and other.boot_id for key, other in self.vms.items() if key != name)
        if not refused and vm and taken and port not in vm.ports:
            refused = Code.CONFLICT
        if self.world.kind == PLAIN and refused is Code.CONFLICT:
            return  # nobody listens behind a fake VMM
        if self.call(VmPublish(vm=name, port=f"{port}:80"), refused) is not None:
            self.vms[name].ports.add(port)

    @step(name=NAMES, port=PORTS)
    def unpublish(self, name: str, port: int) -> None:
        vm = self.vms.get(name)
        refused = self.missing(name) or (Code.NOT_FOUND if vm and port not in vm.ports else None)
        if self.call(VmUnpublish(vm=name, port=f"{port}:80"), refused) is not None:
            self.vms[name].ports.discard(port)

    @step(name=NAMES, word=st.sampled_from(["north", "south"]))
    def execute(self, name: str, word: str) -> None:
        """Writes to the work disk what the next one reads."""
        vm = self.vms.get(name)
        command = (
            f"dd if=work bs=1 skip={_OFFSET} count=5 status=none;"
            f" printf {word} | dd of=work bs=1 seek={_OFFSET} conv=notrunc status=none"
        )
        request = VmExec(vm=name, argv=["sh", "-c", command])
        if vm is None or not vm.boot_id:
            with pytest.raises(Problem) as refused:
                self.client.run_command(request)
            assert refused.value.code is (Code.NOT_RUNNING if vm else Code.NOT_FOUND)
            return
        done = self.client.run_command(request)
        assert done.stdout.replace(b"\0", b"").decode() == vm.data
        vm.data = word

    @step(dry_run=st.booleans())
    def prune(self, dry_run: bool) -> None:
        self.call(VmPrune(dry_run=dry_run), None)
        if not dry_run:
            self.vms = {name: vm for name, vm in self.vms.items() if vm.boot_id}

    @step(name=NAMES, delay_ms=st.integers(0, 60))
    def cancel(self, name: str, delay_ms: int) -> None:
        """A create that takes its time, cancelled on the way, or just too late."""
        if name in self.vms:
            return
        self.world.host.order("delay", low_ms=20, high_ms=20)
        creating = self.client.begin(VmCreate(name=name))
        time.sleep(delay_ms / 1000)
        with suppress(Problem):
            self.client.call(OperationCancel(operation=creating.id))
        ended = self.wait_ended(creating.id)
        self.world.host.order("delay", low_ms=0, high_ms=0)
        found = {vm.name: vm for vm in list_vms(self.client)}.get(name)
        assert (found is not None) == (ended is OperationState.SUCCEEDED), (found, ended)
        if found is not None:
            self.vms[name] = Expected(boot_id=boot_id_of(found))

    # What nobody asks for

    @step(in_order=st.booleans())
    def restart_daemon(self, in_order: bool) -> None:
        self.client.close()
        if in_order:
            self.world.end_daemon()
        else:
            self.world.kill_daemon()
        self.world.start_daemon()

    @step(
        name=NAMES,
        what=st.sampled_from(["create", "start", "stop", "kill", "restart", "delete", "nat", "publish"]),
        number=st.integers(1, 70),
    )
    def kill_daemon_within(self, name: str, what: str, number: int) -> None:
        """At a point of an operation, whichever it is that has the number. The VM may be as before or as after it."""
        before = self.vms.get(name)
        calls: dict[str, Request[object]] = {
            "create": VmCreate(name=name),
            "start": VmStart(vm=name),
            "stop": VmStop(vm=name),
            "kill": VmKill(vm=name),
            "restart": VmRestart(vm=name),
            "delete": VmDelete(vm=name, force=True),
            "nat": VmSet(vm=name, nat=not (before and before.nat)),
            "publish": VmPublish(vm=name, port=f"{_PORT}:80"),
        }
        self.world.set_traps({"at": str(number)})
        result: Any = None
        code: Code | None = None
        try:
            result = self.client.call(calls[what])  # type: ignore[arg-type]
        except Problem as problem:
            code = problem.code
        self.client.close()
        self.world.kill_daemon()
        self.world.start_daemon()
        assert wait_until_empty(lambda: find_leaks(self.world, self.client), timeout_s=_WAIT_S) == []
        found = {vm.name: vm for vm in list_vms(self.client)}.get(name)
        if code is not None or what == "delete":
            self.settle(name, before, "nothing" if code in _REFUSALS else what, found)
        else:
            assert found is not None
            assert boot_id_of(found) == boot_id_of(result.vm), (found, result)
            self.settle(name, before, what, found)
            assert what != "nat" or found.spec.nat == calls[what].nat  # type: ignore[attr-defined]
            assert what != "publish" or _PORT in self.vms[name].ports
        assert code is not None or what != "delete" or found is None

    @step(name=NAMES)
    def kill_vmm(self, name: str) -> None:
        vm = self.vms.get(name)
        if vm is None or not vm.boot_id:
            return
        pids = [vmm["pid"] for vmm in self.world.describe_host()["vmms"] if vmm["boot_id"] == vm.boot_id]
        self.world.host.order("kill_vmms", pids=pids)
        vm.boot_id = ""
        self.wait_states()

    @step()
    def kill_helper(self) -> None:
        self.world.host.order("kill_helper")

    @step()
    def reboot_host(self) -> None:
        self.client.close()
        self.world.kill_daemon()
        self.world.host.order("reboot")
        for vm in self.vms.values():
            vm.boot_id = ""
        self.world.start_daemon()

    @step()
    def reconcile(self) -> None:
        self.call(DaemonReconcile(), None)

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        type(self).steps += 1
        with self.witnessed():
            self.look()

    def look(self) -> None:
        assert wait_until_empty(lambda: find_leaks(self.world, self.client), timeout_s=_WAIT_S) == []
        found = {vm.name: vm for vm in list_vms(self.client)}
        assert set(found) == set(self.vms)
        for name, vm in self.vms.items():
            assert boot_id_of(found[name]) == vm.boot_id, (name, found[name])
            self.boots.add(vm.boot_id)
            spec = found[name].spec
            ports = {port.host_port for port in spec.publish}
            assert (spec.memory_mib, spec.nat, ports) == (vm.memory_mib, vm.nat, vm.ports), found[name]
        assert read_bugs(self.world) == []

    # Parts

    def call(
        self, request: Request[object], refused: Code | None, *, may_refuse: Code | None = None
    ) -> object | None:
        """The result, or None where it is refused as it should be."""
        try:
            result = self.client.call(request)  # type: ignore[arg-type]
        except Problem as problem:
            if problem.code in (refused, may_refuse):
                return None
            raise
        assert refused is None, f"{request} is not refused"
        return result

    def missing(self, name: str) -> Code | None:
        return None if name in self.vms else Code.NOT_FOUND

    def settle(self, name: str, before: Expected | None, what: str, found: VmRecord | None) -> None:
        """Takes over what the crash has left, if it is one of the two: as before, or as after a call that may be made."""
        if found is None:
            assert before is None or what == "delete", (before, what)
            self.vms.pop(name, None)
            return
        assert before is not None or what == "create", (found, what)
        expected = before or Expected()
        boot_id, running = boot_id_of(found), bool(expected.boot_id)
        may_end = what in {"stop", "kill", "restart"}
        may_boot = what == "restart" or (what, before is None) == ("create", True)
        may_boot = may_boot or (what == "start" and not running)
        is_right = boot_id == expected.boot_id or (
            may_boot and boot_id not in self.boots if boot_id else may_end
        )
        assert is_right, (found, before, what)
        expected.boot_id = boot_id
        if what == "nat" and not (self.world.kind == PLAIN and running):
            expected.nat = found.spec.nat
        if what == "publish" and running and _PORT in {port.host_port for port in found.spec.publish}:
            expected.ports.add(_PORT)
        self.vms[name] = expected

    def wait_ended(self, operation: str) -> OperationState:
        deadline = time.monotonic() + _WAIT_S
        while (state := self.client.call(OperationShow(operation=operation)).state) is OperationState.RUNNING:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return state

    def wait_states(self) -> None:
        """The end of a VMM is noticed, not announced."""

        def find() -> list[str]:
            return [
                vm.name
                for vm in list_vms(self.client)
                if vm.name in self.vms and boot_id_of(vm) != self.vms[vm.name].boot_id
            ]

        assert wait_until_empty(find, timeout_s=_WAIT_S) == []


def boot_id_of(vm: VmRecord) -> str:
    """Empty when it does not run."""
    return vm.runtime.boot_id if vm.state is VmState.RUNNING and vm.runtime else ""


@pytest.fixture(params=[JAILED, PLAIN])
def life(request: pytest.FixtureRequest) -> Iterator[type[Life]]:
    with open_world(request.param) as world:
        world.start_daemon()
        try:
            yield type("Life", (Life,), {"world": world, "steps": 0})
        finally:
            print(world.read_log()[-4000:])


def test_a_long_random_life_is_as_the_model_says(life: type[Life]):
    chosen = os.environ.get("BANGER_TEST_SEED")
    run: Callable[..., object] = seed(int(chosen))(life) if chosen else life
    try:
        run_state_machine_as_test(
            run,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                derandomize=chosen is None,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception:
        if not life.failure:
            raise
    assert not life.failure, life.failure
    print(f"{life.steps} steps")
    assert life.steps >= STEPS_MIN
