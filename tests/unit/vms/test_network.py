"""VMs on the bridge, on the fakes of VMM and root: their addresses, what they hold on the host, and its end."""

import asyncio
import socket

import msgspec
import pytest
from tests.unit.hostnet.places import (
    REFUSED,
    FakeNames,
    SlowRoot,
    free_ports,
    is_free,
    list_open,
    settle,
)
from tests.unit.vms.bridged import (
    QUIET,
    Inheritance,
    create,
    find,
    leftovers,
    names_of,
    open_again,
    open_without_pool,
    wait_state,
)

from banger.api.vm import VmCreate, VmDelete, VmKill, VmList, VmRestart, VmStart, VmStop
from banger.base.problem import Code, Problem
from banger.model.machine import TapNetwork
from banger.model.vm import NetworkMode, VmState


@pytest.fixture
def privileged():
    return SlowRoot()


@pytest.fixture(autouse=True)
def _plain_names(monkeypatch):
    monkeypatch.setattr("banger.services.hostnet.zone.NameServer", FakeNames)


@pytest.fixture
def vmm(world):
    return Inheritance(world.vmm)


@pytest.fixture
def no_pool(monkeypatch):
    monkeypatch.setattr("tests.unit.vms.conftest.open_networks", open_without_pool)


# What a VM gets


async def test_a_vm_has_an_address_of_its_own(vms, privileged, world, vmm):
    details = await vms.create(VmCreate(name="web", nat=True), QUIET)
    vm = details.vm
    assert vm.address == "10.209.0.2"
    assert (vm.runtime.network_mode, vm.runtime.address, vm.runtime.ssh_port) == (
        NetworkMode.BRIDGE,
        "10.209.0.2",
        22,
    )
    assert list(privileged.guests) == privileged.up == [vm.runtime.tap]
    guest = privileged.guests[vm.runtime.tap]
    assert (guest.address, guest.mac, guest.nat) == ("10.209.0.2", "02:62:0a:d1:00:02", True)
    assert names_of(vms).addresses == {"web": "10.209.0.2"}
    assert (details.ssh.host, details.ssh.port) == ("10.209.0.2", 22)
    assert [row.address for row in vms.list_vms(VmList()).vms] == ["10.209.0.2"]


async def test_the_vmm_is_handed_the_tap_and_the_guest_its_address(vms, privileged, world, vmm):
    vm = await create(vms, "web")
    ((machine, descriptor),) = vmm.started
    assert machine.network == TapNetwork(mac="02:62:0a:d1:00:02", tap=vm.runtime.tap)
    with socket.socket(fileno=descriptor) as holder:
        privileged.taps[vm.runtime.tap].kernel.send(b"to the guest")
        assert holder.recv(20) == b"to the guest"
        holder.detach()
    archive = open(machine.initramfs, "rb").read()
    for line in (b"address=10.209.0.2/24\n", b"gateway=10.209.0.1\n", b"dns=10.209.0.1\n"):
        assert line in archive


async def test_the_guest_is_admitted_before_its_vmm_starts(vms, privileged, world, vmm):
    world.vmm.faults.hang_start = True
    creating = asyncio.create_task(create(vms, "web"))
    async with asyncio.timeout(5):
        while not vmm.started:
            await asyncio.sleep(0.001)
    assert len(privileged.guests) == 1
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert leftovers(privileged) == []


# Addresses


async def test_an_address_is_written_down_before_anything_uses_it(vms, privileged, world):
    privileged.before["admit_guest"] = gate = asyncio.Event()
    creating = asyncio.create_task(create(vms, "web"))
    async with asyncio.timeout(5):
        while "admit_guest" not in privileged.begun:
            await asyncio.sleep(0.001)
    (row,) = world.store.vms.list()
    assert (row.address, row.state, row.runtime) == ("10.209.0.2", VmState.STARTING, None)
    assert privileged.guests == {}
    gate.set()
    await creating


async def test_an_address_is_the_vms_until_it_is_deleted(vms, privileged):
    await create(vms, "one")
    two = await create(vms, "two")
    await vms.stop(VmStop(vm="one"), QUIET)
    assert find(vms, "one").address == "10.209.0.2"
    assert (await create(vms, "three")).address == "10.209.0.4"  # not that of one that is stopped
    assert (await vms.start(VmStart(vm="one"), QUIET)).vm.runtime.address == "10.209.0.2"
    assert (await vms.restart(VmRestart(vm="two"), QUIET)).vm.address == two.address == "10.209.0.3"
    await vms.delete(VmDelete(vm="one", force=True), QUIET)
    assert (
        await create(vms, "four")
    ).address == "10.209.0.5"  # in turn, not again what somebody had just now


async def test_a_vm_that_was_never_started_has_no_address(vms):
    assert (await create(vms, "cold", start=False)).address == ""
    assert (await create(vms, "warm")).address == "10.209.0.2"
    assert (await vms.start(VmStart(vm="cold"), QUIET)).vm.address == "10.209.0.3"


async def test_twenty_at_once_have_twenty_addresses_and_taps(vms, privileged, vmm):
    made = await asyncio.gather(*(create(vms, f"vm{number}") for number in range(20)))
    expected = {f"10.209.0.{number}" for number in range(2, 22)}
    assert {vm.address for vm in made} == expected
    assert {guest.address for guest in privileged.guests.values()} == expected
    assert len({vm.runtime.tap for vm in made}) == len({tap for _, tap in vmm.started}) == 20
    assert privileged.count("create_taps") < 20
    await asyncio.gather(*(vms.delete(VmDelete(vm=vm.id, force=True), QUIET) for vm in made))
    await settle()
    assert leftovers(privileged) == []
    assert len(privileged.taps) == 2


async def test_an_address_that_the_subnet_has_no_more_is_replaced(vms, world):
    await create(vms, "web", start=False)
    (row,) = world.store.vms.list()
    for last, foreign in enumerate(("10.8.0.2", "10.209.0.1", "10.209.0.255"), start=2):
        world.store.vms.save(msgspec.structs.replace(row, address=foreign))
        assert (await vms.start(VmStart(vm="web"), QUIET)).vm.address == f"10.209.0.{last}"
        row = (await vms.stop(VmStop(vm="web"), QUIET)).vm


async def test_of_two_rows_with_one_address_one_gets_another(vms, world):
    await create(vms, "one")
    cold = await create(vms, "two", start=False)
    world.store.vms.save(msgspec.structs.replace(cold, address="10.209.0.2"))
    assert (await vms.start(VmStart(vm="two"), QUIET)).vm.address == "10.209.0.3"


async def test_a_full_subnet_is_refused_and_leaves_nothing(vms, world, privileged):
    template = await create(vms, "template", start=False)
    for number in range(2, 255):
        row = msgspec.structs.replace(
            template, id=f"{number:012x}", name=f"vm{number}", address=f"10.209.0.{number}"
        )
        world.store.vms.insert(row)
    with pytest.raises(Problem) as caught:
        await create(vms, "web")
    assert caught.value.code is Code.NO_SPACE
    assert "bridge_cidr" in caught.value.hint
    assert len(world.store.vms.list()) == 254
    assert leftovers(privileged) == []


# The end of a VM, however it comes


async def power_off(vms, world, vm):
    world.guests[0].on_power_off()
    await wait_state(vms, "web", VmState.STOPPED)


async def kill_from_outside(vms, world, vm):
    world.vmm.host.kill(vm.runtime.pid)
    await wait_state(vms, "web", VmState.ERROR)


async def stop_a_silent_one(vms, world, vm):
    world.guests[0].is_silent = True
    await vms.stop(VmStop(vm="web", timeout_s=0.1), QUIET)


ENDINGS = {
    "stop": lambda vms, _, __: vms.stop(VmStop(vm="web"), QUIET),
    "stop at the deadline": stop_a_silent_one,
    "kill": lambda vms, _, __: vms.kill(VmKill(vm="web"), QUIET),
    "delete": lambda vms, _, __: vms.delete(VmDelete(vm="web", force=True), QUIET),
    "power-off by the guest": power_off,
    "kill from outside": kill_from_outside,
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_everything_is_given_back(no_pool, vms, world, privileged, vmm, ending):
    await vms._around.networks.choose()
    before = list_open()
    ports = free_ports(2) + free_ports(1, ":53/udp")
    vm = await create(vms, "web", nat=True, publish=ports)
    assert (len(privileged.guests), len(privileged.published)) == (1, 3)
    assert not any(map(is_free, ports))
    await ENDINGS[ending](vms, world, vm)
    await settle()
    assert leftovers(privileged) == []
    assert names_of(vms).addresses == {}
    assert all(map(is_free, ports))
    assert privileged.taps == {}
    async with asyncio.timeout(5):
        while list_open() - before:  # the agent's streams close a little later
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != "delete"])
async def test_what_ended_starts_again_with_all_it_had(vms, world, privileged, vmm, ending):
    vm = await create(vms, "web", publish=free_ports(1))
    await ENDINGS[ending](vms, world, vm)
    again = (await vms.start(VmStart(vm="web"), QUIET)).vm
    assert again.address == vm.address
    assert list(privileged.guests) == privileged.up == [again.runtime.tap]
    assert len(privileged.published) == 1


@pytest.mark.parametrize("method", ["stop", "kill"])
async def test_a_vmm_that_cannot_be_ended_keeps_its_place_until_it_is(vms, world, privileged, method):
    vm = await create(vms, "web", publish=free_ports(1))
    end = getattr(world.vmm, method)

    async def fail(handle, **_):
        raise Problem(Code.OPERATION_FAILED, "the VMM does not listen")

    setattr(world.vmm, method, fail)
    attempt = VmStop(vm="web") if method == "stop" else VmKill(vm="web")
    with pytest.raises(Problem, match="does not listen"):
        await getattr(vms, method)(attempt, QUIET)
    assert list(privileged.guests) == [vm.runtime.tap]
    setattr(world.vmm, method, end)
    await getattr(vms, method)(attempt, QUIET)
    await settle()
    assert leftovers(privileged) == []
    assert find(vms, "web").state is VmState.STOPPED
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.state is VmState.RUNNING


async def test_a_vmm_that_ends_after_a_failed_stop_gives_its_place_back(vms, world, privileged):
    vm = await create(vms, "web")

    async def fail(handle, **_):
        raise Problem(Code.OPERATION_FAILED, "the VMM does not listen")

    stop, world.vmm.stop = world.vmm.stop, fail
    world.guests[0].is_silent = True
    with pytest.raises(Problem):
        await vms.stop(VmStop(vm="web", timeout_s=0.1), QUIET)
    world.vmm.stop = stop
    world.vmm.host.kill(vm.runtime.pid)
    await wait_state(vms, "web", VmState.ERROR)
    await settle()
    assert leftovers(privileged) == []


async def test_a_helper_that_fails_does_not_keep_a_vm_from_stopping(vms, privileged):
    await create(vms, "web", publish=free_ports(1))
    privileged.missing = dict.fromkeys(("unpublish_ports", "release_guest", "delete_taps"), REFUSED)
    assert (await vms.stop(VmStop(vm="web"), QUIET)).vm.state is VmState.STOPPED
    privileged.missing.clear()
    again = (await vms.start(VmStart(vm="web"), QUIET)).vm
    assert list(privileged.guests) == [again.runtime.tap]
    assert len(privileged.published) == 1


# Another daemon


async def test_another_daemon_takes_over_the_places_of_what_runs(world, privileged, vmm):
    ports = free_ports(1)
    async with world.open() as first:
        web = await create(first, "web", nat=True, publish=ports)
        dead = await create(first, "dead")
        await settle()
    vmm.forget_daemon()
    assert privileged.bridge == "br-banger"
    assert set(privileged.guests) == {web.runtime.tap, dead.runtime.tap}
    world.vmm.host.kill(dead.runtime.pid)
    privileged.forget()
    async with open_again(world, privileged) as second:
        # the dead one's place is given back; nothing else is changed before all that runs is known
        assert privileged.begun == ["release_guest", "list_jails", "list_snapshots"]
        assert await second._around.networks.choose() == (NetworkMode.BRIDGE, "", "")
        await settle()
        assert list(privileged.guests) == [web.runtime.tap]
        assert privileged.guests[web.runtime.tap].nat
        assert len(privileged.published) == 1
        assert not is_free(ports[0])
        assert names_of(second).addresses == {"web": "10.209.0.2"}
        assert find(second, "web").runtime == web.runtime
        assert (await create(second, "next")).address == "10.209.0.4"  # dead has its own still
        await second.stop(VmStop(vm="web"), QUIET)
        await settle()
        assert [guest.address for guest in privileged.guests.values()] == ["10.209.0.4"]
        assert privileged.published == {}
        assert is_free(ports[0])
        assert web.runtime.tap not in privileged.taps  # it went with the VMM that held it
        await second.delete(VmDelete(vm="next", force=True), QUIET)
    assert (privileged.bridge, privileged.taps) == ("", {})


@pytest.mark.parametrize("ending", ["power-off", "kill"])
async def test_an_adopted_vm_that_ends_by_itself_gives_its_place_back(world, privileged, vmm, ending):
    async with world.open() as first:
        web = await create(first, "web", publish=free_ports(1))
    vmm.forget_daemon()
    async with open_again(world, privileged) as second:
        await second._around.networks.choose()
        if ending == "kill":
            world.vmm.host.kill(web.runtime.pid)
            await wait_state(second, "web", VmState.ERROR)
        else:
            world.guests[-1].on_power_off()
            await wait_state(second, "web", VmState.STOPPED)
        await settle()
        assert leftovers(privileged) == []
        assert names_of(second).addresses == {}
        again = (await second.start(VmStart(vm="web"), QUIET)).vm
        assert again.address == web.address
        await second.delete(VmDelete(vm="web", force=True), QUIET)


async def test_another_daemon_deletes_what_was_half_made_and_the_host_knows_nothing_of_it(
    world, privileged, vmm
):
    async with world.open() as first:
        web = await create(first, "web")
    vmm.forget_daemon()
    world.store.vms.save(msgspec.structs.replace(web, prepared=False))
    async with open_again(world, privileged) as second:
        await second._around.networks.choose()
        assert leftovers(privileged) == []
        assert (await create(second, "next")).address == "10.209.0.2"
        await second.delete(VmDelete(vm="next", force=True), QUIET)


async def test_a_daemon_that_stops_its_vms_takes_the_bridge_along(world, privileged):
    async with world.open() as vms:
        for name in ("one", "two"):
            await create(vms, name)
        async with asyncio.timeout(10):
            await vms.stop_all(asyncio.Event())
    assert (privileged.bridge, privileged.taps, privileged.guests) == ("", {}, {})
