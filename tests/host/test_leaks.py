"""Taps, NAT entries, published ports: after many of them, and after a death in the middle, the host is as it was."""

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.host.world import BRIDGE, POOL, Traces, World, kill, wait_until

CHURN = Path(__file__).with_name("churn.py")
ROUNDS = [(victims, seed) for victims in ("daemon", "helper", "both") for seed in (1, 2)]


class Churn:
    """A run of `churn.py`, which stands for a daemon."""

    def __init__(self, world: World, count: int) -> None:
        argv = world.user.program(CHURN, str(world.helper.socket), str(count))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(argv, env=world.user.environment, **pipes)
        self.said: list[str] = []

    def wait_said(self, line: str) -> None:
        while not self.said or self.said[-1] != line:
            read = self.process.stdout.readline()
            assert read, f"it ended before it said {line!r}: {self.said[-3:]}"
            self.said.append(read.strip())

    def wait_leases(self, count: int) -> None:
        while sum(line.startswith("lease") for line in self.said) < count:
            self.said.append(self.process.stdout.readline().strip())

    def go_on(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        self.go_on()
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@contextmanager
def open_churn(world: World, count: int) -> Iterator[Churn]:
    churn = Churn(world, count)
    try:
        churn.wait_said("open")
        yield churn
    finally:
        churn.kill()


def wait_open(world: World) -> Traces:
    """The bridge without guests: its tables, and the pool at its target."""
    wait_until(lambda: world.traces().parked == POOL, "the pool of taps is full")
    return world.traces()


@pytest.fixture(scope="module")
def empty(world: World) -> Traces:
    """What an open bridge without guests leaves on the host, by a daemon that has had none."""
    with open_churn(world, 0) as churn:
        churn.go_on()
        churn.wait_said("idle")
        traces = wait_open(world)
        churn.end()
    world.wait_traces(world.pristine)
    assert BRIDGE in traces.links
    assert traces.ruleset
    return traces


def run_whole(world: World, empty: Traces, count: int) -> None:
    with open_churn(world, count) as churn:
        churn.go_on()
        churn.wait_said("idle")
        assert len([line for line in churn.said if line.startswith("lease")]) == count
        world.wait_traces(empty)
        churn.end()
    world.wait_traces(world.pristine)


def count_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_two_hundred_guests_leave_the_host_as_it_was(world: World, empty: Traces):
    before = count_descriptors(world.helper.pid)
    run_whole(world, empty, 200)
    wait_until(lambda: count_descriptors(world.helper.pid) == before, "the helper keeps no descriptor")


@pytest.mark.parametrize(("victims", "seed"), ROUNDS)
def test_a_death_in_the_middle_leaves_nothing_once_all_are_back(
    world: World, empty: Traces, victims: str, seed: int
):
    chance = random.Random(f"{victims} {seed}")
    with open_churn(world, 200) as churn:
        churn.go_on()
        churn.wait_leases(chance.randrange(10, 150))
        time.sleep(chance.random() / 50)
        if victims != "helper":
            churn.kill()
        if victims != "daemon":
            world.helper.kill()
            world.helper.start()
        if victims == "helper":
            churn.wait_said("idle")
            assert len([line for line in churn.said if line.startswith("lease")]) >= 200
            world.wait_traces(empty)
            churn.end()
    if victims != "both":  # a helper that nobody has asked for anything takes its time before it sweeps
        world.wait_traces(world.pristine)
    run_whole(world, empty, 20)


@pytest.mark.parametrize(("victims", "seed"), ROUNDS)
def test_a_death_while_a_vm_is_created_leaves_nothing_once_all_are_back(
    world: World, empty: Traces, victims: str, seed: int
):
    """The real daemon and a real guest; the VM is created, half-made and undone, or runs on: each is in order."""
    user, chance = world.user, random.Random(f"vm {victims} {seed}")
    user.run("daemon", "start")
    assert wait_open(world) == empty
    create = user.start(
        "vm", "create", "--nat", "--publish", "20000:80", "--memory", "256M", "k", stderr=subprocess.PIPE
    )
    time.sleep(chance.random() * 3)
    if victims != "helper":
        kill(user.daemon_pid())
    if victims != "daemon":
        world.helper.kill()
        world.helper.start()
    _, said = create.communicate(timeout=120)
    assert b"Traceback" not in said
    assert create.returncode == 0 or b"\nhint: " in said or victims != "helper", said.decode()
    for vm in user.json("vm", "list", "--all")["vms"]:
        user.delete(vm["name"])
    assert user.leftovers() == []
    world.wait_traces(empty)
    user.run("daemon", "stop")
    world.wait_traces(world.pristine)
