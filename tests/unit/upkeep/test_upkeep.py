"""Upkeep against VMs that remember what was asked of them, and a host whose clock and uptime are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import pytest
from tests.unit.model.rows import make_vm

from banger.base.problem import Problem, conflict, unavailable
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.model.moment import Moment, Ttl
from banger.model.vm import VmRecord, VmState
from banger.services.upkeep.service import Upkeep

HOUR = 3600.0
BOOT, NEXT_BOOT = "boot-1", "boot-2"


class Host:
    """Time as the tests want it. The clock and the uptime go on apart from one another."""

    def __init__(self) -> None:
        self.year, self.uptime_s, self.boot = 2026, 10 * HOUR, BOOT

    def now(self) -> Moment:
        return Moment(at=f"{self.year}-01-01T00:00:00.000Z", host_boot=self.boot, uptime_s=self.uptime_s)

    def reboot(self) -> None:
        self.boot, self.uptime_s = NEXT_BOOT, 20.0


class FakeVms:
    def __init__(self, host: Host, *rows: VmRecord) -> None:
        self.host = host
        self.rows = {vm.id: vm for vm in rows}
        self.done: list[str] = []
        self.refused: set[str] = set()
        self.slow: dict[str, asyncio.Event] = {}
        self.busy: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.operations: list[str] = []

    def list_rows(self) -> list[VmRecord]:
        return list(self.rows.values())

    def change(self, vm: VmRecord, **changes: object) -> None:
        self.rows[vm.id] = msgspec.structs.replace(self.rows[vm.id], **changes)

    def touch(self, vm_id: str) -> None:
        self.change(self.rows[vm_id], touched=self.host.now())

    async def end_if(self, vm_id, judge, progress):
        """Whoever has the VM's lock is done with it when its `slow` is set."""
        name = self.rows[vm_id].name
        if name in self.slow:
            self.asked.append(f"end {name}")
            await self.slow[name].wait()
        if (end := judge(self.rows[vm_id])) is None:
            return
        self.done.append(f"{'delete' if end.delete else 'stop'} {name}")
        if name in self.refused:
            raise conflict(f"{name} is busy")
        if end.delete:
            del self.rows[vm_id]
        else:
            self.change(self.rows[vm_id], state=VmState.STOPPED, stopped_because=end.reason)

    async def perform(self, kind, subject, work):
        """As the daemon's: a failure is the operation's."""
        self.operations.append(f"{kind} {subject}")
        with suppress(Problem):
            await work(Silent())

    async def is_busy(self, vm: VmRecord) -> bool:
        self.asked.append(vm.name)
        if vm.name in self.silent:
            raise unavailable(f"the agent of {vm.name} is silent")
        return vm.name in self.busy


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def tasks() -> AsyncIterator[Supervisor]:
    async with Supervisor() as supervisor:
        yield supervisor


@pytest.fixture
def watch(host, tasks):
    """Makes an upkeep of these rows, as a daemon does that starts now."""

    def make(*rows: VmRecord, stale_after_s: float | None = None) -> tuple[Upkeep, FakeVms]:
        vms = FakeVms(host, *rows)
        upkeep = Upkeep(vms, vms, tasks, vms.perform, stale_after_s=stale_after_s, now=host.now)
        return upkeep, vms

    return make


async def look(upkeep: Upkeep) -> None:
    await upkeep.look()
    for _ in range(10):
        await asyncio.sleep(0)


async def pass_time(host: Host, upkeep: Upkeep, seconds: float) -> None:
    """As the daemon lives through it: with a look every 30 s."""
    for _ in range(round(seconds / 30)):
        host.uptime_s += 30
        await look(upkeep)


def running(host: Host, name: str = "web", **changes: object) -> VmRecord:
    return make_vm(name, VmState.RUNNING, touched=host.now(), **changes)


def living(host: Host, seconds: float, name: str = "web", **changes: object) -> VmRecord:
    return running(host, name, ttl=Ttl(seconds=seconds, since=host.now()), **changes)


async def test_a_vm_is_stopped_when_its_time_is_over_and_says_why(host, watch):
    vm = living(host, 2 * HOUR)
    upkeep, vms = watch(vm)
    await pass_time(host, upkeep, 2 * HOUR - 30)
    assert vms.done == []
    await pass_time(host, upkeep, 60)
    assert vms.done == ["stop web"]
    assert vms.operations == ["vm.stop web"]
    assert vms.rows[vm.id].stopped_because == "its time to live, 2h, is over"


async def test_a_temporary_vm_is_deleted_whether_it_still_runs_or_not(host, watch):
    upkeep, vms = watch(
        living(host, 60, "up", ephemeral=True),
        msgspec.structs.replace(living(host, 60, "down", ephemeral=True), state=VmState.STOPPED),
    )
    await pass_time(host, upkeep, 60)
    assert sorted(vms.done) == ["delete down", "delete up"]
    assert sorted(vms.operations) == ["vm.delete down", "vm.delete up"]
    assert not vms.rows


async def test_a_stopped_vm_has_no_time_to_live(host, watch):
    upkeep, vms = watch(msgspec.structs.replace(living(host, 60), state=VmState.STOPPED))
    await pass_time(host, upkeep, HOUR)
    assert vms.done == []


@pytest.mark.parametrize("year", [2025, 2027])
async def test_a_clock_that_jumps_a_year_ends_nothing_and_delays_nothing(host, watch, year):
    upkeep, vms = watch(living(host, 2 * HOUR, "ttl"), running(host, "idle"), stale_after_s=2 * HOUR)
    await pass_time(host, upkeep, HOUR)
    host.year = year
    await pass_time(host, upkeep, HOUR - 30)
    assert vms.done == []
    await pass_time(host, upkeep, 60)
    assert sorted(vms.done) == ["stop idle", "stop ttl"]


@pytest.mark.parametrize("year", [2025, 2026, 2027])
async def test_after_a_reboot_ten_minutes_pass_at_least_whatever_the_clock_says(host, watch, year):
    vm, idle = living(host, 60, "ttl"), running(host, "idle")
    host.reboot()
    host.year = year
    upkeep, vms = watch(vm, idle, stale_after_s=HOUR)
    await pass_time(host, upkeep, 570)
    assert vms.done == []
    await pass_time(host, upkeep, 60)
    assert vms.done == ["stop ttl"]
    await pass_time(host, upkeep, HOUR)
    assert vms.done == ["stop ttl", "stop idle"]


async def test_after_a_restart_of_the_daemon_idle_vms_have_ten_minutes(host, watch):
    vm = running(host)
    host.uptime_s += 5 * HOUR
    upkeep, vms = watch(vm, stale_after_s=2 * HOUR)
    await pass_time(host, upkeep, 570)
    assert vms.done == []
    await pass_time(host, upkeep, 30)
    assert vms.done == ["stop web"]


async def test_a_time_to_live_goes_on_while_no_daemon_runs(host, watch):
    vm = living(host, HOUR)
    host.uptime_s += 2 * HOUR
    upkeep, vms = watch(vm)
    await look(upkeep)
    assert vms.done == ["stop web"]


async def test_a_host_that_slept_leaves_idle_vms_ten_minutes(host, watch):
    upkeep, vms = watch(running(host), stale_after_s=2 * HOUR)
    await pass_time(host, upkeep, HOUR)
    host.uptime_s += 8 * HOUR
    await pass_time(host, upkeep, 570)
    assert vms.done == []
    await pass_time(host, upkeep, 60)
    assert vms.done == ["stop web"]


async def test_an_idle_vm_is_stopped_and_says_why(host, watch):
    vm = running(host)
    upkeep, vms = watch(vm, stale_after_s=2 * HOUR)
    await pass_time(host, upkeep, 2 * HOUR)
    assert vms.done == ["stop web"]
    assert "nobody has used it for 2h (auto_stop_stale_after)" in vms.rows[vm.id].stopped_because


async def test_use_begins_the_time_anew(host, watch):
    vm = running(host)
    upkeep, vms = watch(vm, stale_after_s=HOUR)
    await pass_time(host, upkeep, HOUR - 60)
    vms.touch(vm.id)
    await pass_time(host, upkeep, HOUR - 60)
    assert vms.done == []
    await pass_time(host, upkeep, 60)
    assert vms.done == ["stop web"]


async def test_a_busy_vm_stays_and_its_time_begins_when_that_ends(host, watch):
    upkeep, vms = watch(running(host), stale_after_s=HOUR)
    vms.busy.add("web")
    await pass_time(host, upkeep, 3 * HOUR)
    vms.busy.clear()
    await pass_time(host, upkeep, HOUR - 30)
    assert vms.done == []
    await pass_time(host, upkeep, 30)
    assert vms.done == ["stop web"]


async def test_a_vm_that_does_not_say_whether_it_is_busy_is_left_alone(host, watch):
    upkeep, vms = watch(running(host, "silent"), running(host, "idle"), stale_after_s=HOUR)
    vms.silent.add("silent")
    await pass_time(host, upkeep, 2 * HOUR)
    assert vms.done == ["stop idle"]


async def test_who_was_used_while_its_agent_was_asked_stays(host, watch):
    vm = running(host)
    upkeep, vms = watch(vm, stale_after_s=HOUR)
    await pass_time(host, upkeep, HOUR - 30)
    host.uptime_s += 30

    async def is_busy(asked: VmRecord) -> bool:
        vms.touch(asked.id)
        return False

    vms.is_busy = is_busy
    await look(upkeep)
    assert vms.done == []


async def test_without_a_limit_nobody_is_asked_and_nobody_is_idle(host, watch):
    upkeep, vms = watch(running(host))
    await pass_time(host, upkeep, 100 * HOUR)
    assert (vms.done, vms.asked) == ([], [])


async def test_a_stop_that_fails_is_tried_again_and_hinders_no_other(host, watch, caplog):
    upkeep, vms = watch(living(host, 60, "bad"), living(host, 60, "good"))
    vms.refused.add("bad")
    await pass_time(host, upkeep, 60)
    assert sorted(vms.done) == ["stop bad", "stop good"]
    vms.refused.clear()
    await pass_time(host, upkeep, 60)
    assert vms.done.count("stop bad") == 2
    assert vms.done.count("stop good") == 1
    assert {vm.state for vm in vms.list_rows()} == {VmState.STOPPED}


async def test_a_stop_that_takes_long_is_begun_once_and_hinders_no_other(host, watch):
    upkeep, vms = watch(living(host, 60, "slow"), living(host, 120, "quick"))
    vms.slow["slow"] = asyncio.Event()
    await pass_time(host, upkeep, 600)
    assert (vms.asked, vms.done) == (["end slow"], ["stop quick"])
    vms.slow["slow"].set()
    await look(upkeep)
    assert {vm.state for vm in vms.list_rows()} == {VmState.STOPPED}


@pytest.mark.parametrize("stale_after_s", [None, HOUR])
async def test_who_is_wanted_again_while_upkeep_waits_for_the_lock_stays(host, watch, stale_after_s):
    vm = running(host) if stale_after_s else living(host, HOUR, ephemeral=True)
    upkeep, vms = watch(vm, stale_after_s=stale_after_s)
    vms.slow["web"] = asyncio.Event()
    await pass_time(host, upkeep, HOUR)
    assert "end web" in vms.asked
    vms.change(vm, touched=host.now(), ttl=vm.ttl and Ttl(seconds=HOUR, since=host.now()))
    vms.slow["web"].set()
    await look(upkeep)
    assert vms.done == []
    await pass_time(host, upkeep, HOUR)
    assert vms.done == ["stop web" if stale_after_s else "delete web"]


async def test_the_watch_goes_on_when_a_look_fails(host, tasks):
    vms = FakeVms(host, living(host, 0.001))
    broken = [True]

    def list_rows() -> list[VmRecord]:
        if broken:
            broken.pop()
            raise OSError("the disk is gone")
        return list(vms.rows.values())

    vms.list_rows = list_rows
    upkeep = Upkeep(vms, vms, tasks, vms.perform, stale_after_s=None, now=host.now, interval_s=0.001)
    host.uptime_s += 1
    upkeep.open()
    async with asyncio.timeout(5):
        while not vms.done:
            await asyncio.sleep(0.001)
    assert vms.done == ["stop web"]
