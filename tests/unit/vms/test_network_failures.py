"""Boots on the bridge that fail or are cancelled at any step, and the mode that each start gets."""

import asyncio
import socket

import pytest
from tests.unit.hostnet.places import (
    REFUSED,
    FakeNames,
    SlowRoot,
    free_ports,
    is_free,
    lose_tables,
    settle,
)
from tests.unit.vms.bridged import (
    QUIET,
    Inheritance,
    create,
    find,
    leftovers,
    names_of,
    open_without_pool,
)

from banger.api.vm import VmDelete, VmRestart, VmStart
from banger.base.problem import Code, Problem
from banger.model.machine import UserNetwork
from banger.model.vm import NetworkMode, VmState


@pytest.fixture
def privileged():
    return SlowRoot()


@pytest.fixture(autouse=True)
def _plain_names(monkeypatch):
    monkeypatch.setattr("banger.services.hostnet.zone.NameServer", FakeNames)


# Boots that fail


def take_a_port(privileged, world, ports):
    server = socket.create_server(("127.0.0.1", int(ports[0].partition(":")[0])))
    return server.close


def break_root(method):
    def make_it_fail(privileged, world, ports):
        privileged.missing[method] = REFUSED
        return privileged.missing.clear

    return make_it_fail


def break_vmm(fault):
    def make_it_fail(privileged, world, ports):
        broken = Problem(Code.OPERATION_FAILED, "the VMM is broken")
        setattr(world.vmm.faults, fault, broken if fault == "fail_start" else True)
        return lambda: setattr(world.vmm.faults, fault, None if fault == "fail_start" else False)

    return make_it_fail


def break_the_agent(privileged, world, ports):
    async def refuse(handle):
        raise Problem(Code.NOT_RUNNING, "no agent")

    connect, world.vmm.connect_agent = world.vmm.connect_agent, refuse
    return lambda: setattr(world.vmm, "connect_agent", connect)


FAILURES = {
    "no tap": break_root("create_taps"),
    "not admitted": break_root("admit_guest"),
    "not published": break_root("publish_ports"),
    "a port is taken": take_a_port,
    "no vmm": break_vmm("missing"),
    "vmm fails": break_vmm("fail_start"),
    "vmm dies": break_vmm("die_after_start"),
    "no agent": break_the_agent,
}


@pytest.fixture
def no_pool(monkeypatch):
    monkeypatch.setattr("tests.unit.vms.conftest.open_networks", open_without_pool)


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_boot_that_fails_gives_everything_back_and_may_be_repeated(
    world, privileged, no_pool, monkeypatch, failure
):
    monkeypatch.setattr("banger.services.vms.boot._ENDING_S", 0.05)
    vmm = Inheritance(world.vmm)
    ports = free_ports(2)
    async with world.open() as vms:
        await create(vms, "web", start=False, publish=ports, nat=True)
        mend = FAILURES[failure](privileged, world, ports)
        with pytest.raises(Problem):
            await vms.start(VmStart(vm="web"), QUIET)
        await settle()
        assert leftovers(privileged) == []
        assert privileged.taps == {}
        assert world.vmm.host.alive() == []
        expected = VmState.CREATED if failure == "no vmm" else VmState.ERROR
        assert (find(vms, "web").state, find(vms, "web").runtime) == (expected, None)
        mend()
        assert all(map(is_free, ports))
        again = (await vms.start(VmStart(vm="web"), QUIET)).vm
        assert list(privileged.guests) == [again.runtime.tap]
        assert len(privileged.published) == 2
        assert len(vmm.started) >= 1
        await vms.delete(VmDelete(vm="web", force=True), QUIET)
        await settle()
        assert privileged.taps == {}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_creation_that_fails_leaves_nothing(world, privileged, no_pool, monkeypatch, failure):
    monkeypatch.setattr("banger.services.vms.boot._ENDING_S", 0.05)
    Inheritance(world.vmm)
    ports = free_ports(2)
    async with world.open() as vms:
        mend = FAILURES[failure](privileged, world, ports)
        with pytest.raises(Problem):
            await create(vms, "web", publish=ports)
        mend()
        await settle()
        assert world.leftovers() == leftovers(privileged) == []
        assert privileged.taps == {}
        assert all(map(is_free, ports))
        assert (await create(vms, "next")).address in {"10.209.0.2", "10.209.0.3"}


@pytest.mark.parametrize("step", ["create_taps", "admit_guest", "publish_ports", "vmm", "agent"])
async def test_a_creation_that_is_cancelled_leaves_nothing(world, privileged, no_pool, step):
    vmm = Inheritance(world.vmm)
    ports = free_ports(2)
    async with world.open() as vms:
        gate = asyncio.Event()
        if step == "vmm":
            world.vmm.faults.hang_start = True
        elif step == "agent":
            world.vmm.connect_agent = lambda handle: gate.wait()
        else:
            privileged.after[step] = gate
        creating = asyncio.create_task(create(vms, "web", publish=ports))
        async with asyncio.timeout(5):
            while not (vmm.started if step in ("vmm", "agent") else step in privileged.begun):
                await asyncio.sleep(0.001)
        await settle()
        creating.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await settle()
        assert world.leftovers() == leftovers(privileged) == []
        assert privileged.taps == {}
        assert names_of(vms).addresses == {}
        assert all(map(is_free, ports))


async def test_a_failed_start_keeps_the_address(vms, privileged):
    await create(vms, "web", start=False)
    privileged.fail_next("admit_guest", REFUSED)
    with pytest.raises(Problem):
        await vms.start(VmStart(vm="web"), QUIET)
    assert find(vms, "web").address == "10.209.0.2"
    assert (await create(vms, "other")).address == "10.209.0.3"
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.address == "10.209.0.2"


async def test_a_start_survives_a_host_that_has_lost_its_tables(vms, privileged):
    one = await create(vms, "one", publish=free_ports(1))
    lose_tables(privileged)
    two = await create(vms, "two")
    assert set(privileged.guests) == {one.runtime.tap, two.runtime.tap}
    assert len(privileged.published) == 1


# The mode of each start


async def test_without_the_bridge_it_is_user_mode_and_the_next_start_has_the_bridge(world, privileged):
    privileged.missing["ensure_bridge"] = REFUSED
    async with world.open() as vms:
        vm = await create(vms, "web")
        assert (vm.runtime.network_mode, vm.address, vm.runtime.tap) == (NetworkMode.USER, "", "")
        assert isinstance(world.vmm.machines[vm.runtime.pid].network, UserNetwork)
        assert vm.ssh_port == vm.runtime.ssh_port != 22
        privileged.missing.clear()
        other = await create(vms, "other")
        assert other.runtime.network_mode is NetworkMode.BRIDGE
        assert find(vms, "web").runtime == vm.runtime
        again = (await vms.restart(VmRestart(vm="web"), QUIET)).vm
        assert (again.runtime.network_mode, again.runtime.ssh_port) == (NetworkMode.BRIDGE, 22)
        assert again.ssh_port == vm.ssh_port  # for the day that it is in user mode again
        for name in ("web", "other"):
            await vms.delete(VmDelete(vm=name, force=True), QUIET)


async def test_published_ports_come_along_from_mode_to_mode(world, privileged):
    privileged.missing["ensure_bridge"] = REFUSED
    async with world.open() as vms:
        vm = await create(vms, "web", publish=free_ports(1))
        forwards = world.vmm.machines[vm.runtime.pid].network.forwards
        assert [forward.guest_port for forward in forwards] == [22, 80]
        privileged.missing.clear()
        again = (await vms.restart(VmRestart(vm="web"), QUIET)).vm
        assert [port for _, _, port in privileged.published] == [vm.spec.publish[0].host_port]
        assert again.spec.publish == vm.spec.publish
        await vms.delete(VmDelete(vm="web", force=True), QUIET)
