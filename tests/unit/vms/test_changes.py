"""`vm set`, `vm publish` and `vm unpublish`: what changes at once, what waits for a stop, what is refused."""

import asyncio
import socket

import msgspec
import pytest
from tests.unit.hostnet.places import REFUSED, FakeNames, SlowRoot, free_ports, is_free
from tests.unit.vms.bridged import QUIET, create, find, names_of

from banger.api.vm import VmPublish, VmSet, VmStart, VmStop, VmUnpublish
from banger.base.problem import Code, Outcome, Problem
from banger.base.units import GIB, MIB
from banger.model.ports import PORTS_MAX, parse_publish, render_publish
from banger.model.sizing import HostSize
from banger.model.vm import NetworkMode, Origin
from banger.services.vms.room import Room


@pytest.fixture(params=["bridge", "user"])
def mode(request):
    return request.param


@pytest.fixture
def privileged(mode):
    return SlowRoot() if mode == "bridge" else None


on_the_bridge = pytest.mark.parametrize("mode", ["bridge"], indirect=True)
in_user_mode = pytest.mark.parametrize("mode", ["user"], indirect=True)


@pytest.fixture(autouse=True)
def _plain_names(monkeypatch):
    monkeypatch.setattr("banger.services.hostnet.zone.NameServer", FakeNames)


@pytest.fixture
def host(world, privileged):
    return Host(world, privileged)


class Host:
    """Where published ports lead, in either mode."""

    def __init__(self, world, privileged):
        self._world = world
        self._privileged = privileged

    def published(self):
        if self._privileged is not None:
            return sorted(
                f"{address}:{number}:{to[1]}" + ("/udp" if protocol == "udp" else "")
                for (protocol, address, number), to in self._privileged.published.items()
            )
        processes = self._world.vmm.host.processes.values()
        return sorted(
            render_publish(port)
            for process in processes
            if not process.exit.done()
            for port in process.forwards
        )


def work_disk(world, vm):
    return world.root / "vms" / vm.id / "work.img"


async def refuse(call):
    with pytest.raises(Problem) as caught:
        await call
    assert caught.value.outcome is Outcome.NOT_STARTED
    return caught.value


# Sizes


async def test_sizes_of_a_stopped_vm_are_its_next_starts(vms, world):
    vm = await create(vms, "web", start=False, memory_mib=256)
    details = await vms.set(VmSet(vm="web", vcpus=3, memory_mib=512, disk_size_bytes=16 * GIB))
    spec = details.vm.spec
    assert (spec.vcpus, spec.memory_mib, spec.disk_size_bytes) == (3, 512, 16 * GIB)
    assert {spec.origins[name] for name in ("vcpus", "memory_mib", "disk_size_bytes")} == {Origin.FLAG}
    assert "system_overlay_size_bytes" in spec.origins
    assert work_disk(world, vm).stat().st_size == 16 * GIB
    started = (await vms.start(VmStart(vm="web"), QUIET)).vm
    machine = world.vmm.machines[started.runtime.pid]
    assert (machine.vcpus, machine.memory_mib) == (3, 512)


async def test_what_is_not_named_stays(vms):
    before = (await create(vms, "web", start=False, nat=True, publish=free_ports(1))).spec
    after = (await vms.set(VmSet(vm="web", vcpus=2))).vm.spec
    assert after == msgspec.structs.replace(before, vcpus=2, origins=after.origins)


@pytest.mark.parametrize(
    "change", [{"vcpus": 2}, {"memory_mib": 512}, {"disk_size_bytes": 32 * GIB}, {"vcpus": 2, "nat": True}]
)
async def test_sizes_of_a_running_vm_are_refused_with_the_way_there(vms, world, change):
    vm = await create(vms, "web")
    problem = await refuse(vms.set(VmSet(vm="web", **change)))
    assert (problem.code, problem.hint) == (Code.CONFLICT, "banger vm stop web")
    assert "web is running" in problem.brief
    assert find(vms, "web").spec == vm.spec
    assert work_disk(world, vm).stat().st_size == vm.spec.disk_size_bytes


async def test_a_work_disk_does_not_shrink(vms, world):
    vm = await create(vms, "web", start=False, disk_size_bytes=2 * GIB)
    problem = await refuse(vms.set(VmSet(vm="web", vcpus=2, disk_size_bytes=2 * GIB - 1)))
    assert problem.code is Code.BAD_REQUEST
    assert "cannot shrink" in problem.brief
    assert "--disk-size takes 2 GiB or more" in problem.hint
    assert work_disk(world, vm).stat().st_size == 2 * GIB
    assert find(vms, "web").spec == vm.spec


async def test_a_work_disk_that_grows_keeps_what_is_on_it(vms, world):
    vm = await create(vms, "web", start=False, disk_size_bytes=GIB)
    with work_disk(world, vm).open("r+b") as disk:
        disk.write(b"precious")
    await vms.set(VmSet(vm="web", disk_size_bytes=GIB + MIB))
    with work_disk(world, vm).open("rb") as disk:
        assert disk.read(8) == b"precious"
    assert work_disk(world, vm).stat().st_size == GIB + MIB


async def test_the_same_size_is_no_change_of_the_disk(vms, world):
    vm = await create(vms, "web", start=False, disk_size_bytes=GIB)
    changed = work_disk(world, vm).stat().st_mtime_ns
    await vms.set(VmSet(vm="web", disk_size_bytes=GIB))
    assert work_disk(world, vm).stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vcpus": 0}, "0 vCPUs"),
        ({"vcpus": 33}, "33 vCPUs"),
        ({"memory_mib": 1}, "1 MiB"),
        ({"memory_mib": 512 * 1024}, "more than this host has"),
        ({"disk_size_bytes": 10**18}, "a disk of"),
        ({"disk_size_bytes": 15 * 1024 * GIB}, "do not fit"),
    ],
)
async def test_sizes_that_cannot_be_are_refused_and_nothing_is_changed(vms, world, change, words):
    vm = await create(vms, "web", start=False)
    problem = await refuse(vms.set(VmSet(vm="web", nat=True, **change)))
    assert words in problem.brief
    assert problem.hint
    assert find(vms, "web").spec == vm.spec
    assert work_disk(world, vm).stat().st_size == vm.spec.disk_size_bytes


async def test_what_does_not_grow_needs_no_room(vms, world, privileged, monkeypatch):
    """The host may have filled up since the VM was made: that is no reason to refuse another change."""
    await create(vms, "web", start=False, memory_mib=512)
    monkeypatch.setattr("banger.services.vms.room.free_bytes", lambda _: 0)
    vms._room = Room(world.around._replace(host=HostSize(cpus=1, memory_bytes=64 * MIB)))
    assert (await vms.set(VmSet(vm="web", nat=True))).vm.spec.nat
    assert (await vms.set(VmSet(vm="web", vcpus=2))).vm.spec.vcpus == 2
    assert (await vms.set(VmSet(vm="web", memory_mib=256))).vm.spec.memory_mib == 256
    assert "memory" in (await refuse(vms.set(VmSet(vm="web", memory_mib=257)))).brief
    assert "do not fit" in (await refuse(vms.set(VmSet(vm="web", disk_size_bytes=32 * GIB)))).brief


async def test_nothing_to_change_is_told(vms):
    await create(vms, "web", start=False)
    problem = await refuse(vms.set(VmSet(vm="web")))
    assert (problem.code, problem.hint) == (Code.BAD_REQUEST, "banger vm set --help")
    assert "nothing to change" in problem.brief


async def test_a_vm_that_is_not_there_is_told(vms):
    for call in (
        vms.set(VmSet(vm="web", nat=True)),
        vms.publish(VmPublish(vm="web", port="8080:80")),
        vms.unpublish(VmUnpublish(vm="web", port="8080:80")),
    ):
        assert (await refuse(call)).code is Code.NOT_FOUND


# NAT


async def test_nat_of_a_stopped_vm_is_its_next_starts(vms, world, privileged, mode):
    await create(vms, "web", start=False)
    assert (await vms.set(VmSet(vm="web", nat=True))).vm.spec.nat
    vm = (await vms.start(VmStart(vm="web"), QUIET)).vm
    if mode == "bridge":
        assert privileged.guests[vm.runtime.tap].nat
    else:
        assert not world.vmm.machines[vm.runtime.pid].network.restricted
    await vms.stop(VmStop(vm="web"), QUIET)
    assert not (await vms.set(VmSet(vm="web", nat=False))).vm.spec.nat


@on_the_bridge
async def test_nat_of_a_vm_on_the_bridge_changes_at_once(vms, privileged):
    vm = await create(vms, "web")
    for nat in (True, False):
        privileged.forget()
        assert (await vms.set(VmSet(vm="web", nat=nat))).vm.spec.nat is nat
        assert privileged.list_methods() == ["admit_guest"]
        assert privileged.guests[vm.runtime.tap].nat is nat
        assert names_of(vms).forwarding == ({vm.address} if nat else set())
    assert find(vms, "web").runtime == vm.runtime


@on_the_bridge
async def test_nat_that_the_host_cannot_do_changes_nothing(vms, privileged):
    vm = await create(vms, "web")
    privileged.ip_forward = False
    problem = await refuse(vms.set(VmSet(vm="web", nat=True)))
    assert (problem.code, problem.hint) == (Code.UNAVAILABLE, "sudo sysctl -w net.ipv4.ip_forward=1")
    assert not find(vms, "web").spec.nat
    assert not privileged.guests[vm.runtime.tap].nat


@in_user_mode
async def test_nat_of_a_running_vm_in_user_mode_is_refused_with_the_way_there(vms, world):
    await create(vms, "web")
    problem = await refuse(vms.set(VmSet(vm="web", nat=True)))
    assert problem.code is Code.CONFLICT
    assert "user mode" in problem.brief
    assert "banger vm stop web" in problem.hint
    assert not find(vms, "web").spec.nat


async def test_nat_as_it_is_already_is_no_change(vms, privileged, mode):
    await create(vms, "web", nat=True)
    if mode == "bridge":
        privileged.forget()
    assert (await vms.set(VmSet(vm="web", nat=True))).vm.spec.nat
    if mode == "bridge":
        assert privileged.calls == []


# Publishing


async def test_udp_needs_nat_in_user_mode(vms, mode):
    """QEMU's restricted network would swallow the answers."""
    await create(vms, "web")
    (udp,) = free_ports(1, ":53/udp")
    if mode == "bridge":
        await vms.publish(VmPublish(vm="web", port=udp))
        return
    with pytest.raises(Problem) as caught:
        await vms.publish(VmPublish(vm="web", port=udp))
    assert caught.value.code is Code.BAD_REQUEST
    assert "--nat" in caught.value.hint


async def test_a_port_leads_to_a_running_vm_at_once_and_at_its_next_starts(vms, host, world, mode):
    await create(vms, "web", nat=True)
    (tcp,), (udp,) = free_ports(1), free_ports(1, ":53/udp")
    await vms.publish(VmPublish(vm="web", port=tcp))
    details = await vms.publish(VmPublish(vm="web", port=udp))
    assert details.vm.spec.publish == (parse_publish(tcp), parse_publish(udp))
    expected = sorted(render_publish(parse_publish(port)) for port in (tcp, udp))
    assert host.published() == expected
    await vms.stop(VmStop(vm="web"), QUIET)
    assert host.published() == []
    assert is_free(tcp)
    vm = (await vms.start(VmStart(vm="web"), QUIET)).vm
    if mode == "bridge":
        assert host.published() == expected
    else:
        forwards = world.vmm.machines[vm.runtime.pid].network.forwards[1:]
        assert sorted(map(render_publish, forwards)) == expected


async def test_a_port_is_taken_back_at_once_and_for_good(vms, host):
    first, second = free_ports(2)
    await create(vms, "web")
    for port in (first, second):
        await vms.publish(VmPublish(vm="web", port=port))
    details = await vms.unpublish(VmUnpublish(vm="web", port=first))
    assert details.vm.spec.publish == (parse_publish(second),)
    assert host.published() == [render_publish(parse_publish(second))]
    assert is_free(first)
    await vms.publish(VmPublish(vm="web", port=first))
    assert len(host.published()) == 2


async def test_a_port_of_a_stopped_vm_is_taken_back_for_its_next_start(vms, host):
    first, second = free_ports(2)
    await create(vms, "web", start=False, publish=[first, second])
    details = await vms.unpublish(VmUnpublish(vm="web", port=first))
    assert details.vm.spec.publish == (parse_publish(second),)
    assert host.published() == []


async def test_the_same_port_again_is_no_change(vms, host, privileged, mode):
    (port,) = free_ports(1)
    await create(vms, "web")
    before = (await vms.publish(VmPublish(vm="web", port=port))).vm.spec
    if mode == "bridge":
        privileged.forget()
    again = (await vms.publish(VmPublish(vm="web", port=f"127.0.0.1:{port}/tcp"))).vm.spec
    assert again == before
    assert len(host.published()) == 1
    if mode == "bridge":
        assert privileged.calls == []


@pytest.mark.parametrize("port", ["80", "0:80", "8080:80/sctp", "localhost:8080:80", "8080:80/"])
async def test_what_is_no_port_is_refused_before_the_vm_is_looked_for(vms, port):
    for call in (
        vms.publish(VmPublish(vm="nobody", port=port)),
        vms.unpublish(VmUnpublish(vm="nobody", port=port)),
    ):
        assert (await refuse(call)).code is Code.BAD_REQUEST


async def test_publishing_to_a_stopped_vm_is_refused_with_the_way_there(vms):
    await create(vms, "web", start=False)
    problem = await refuse(vms.publish(VmPublish(vm="web", port="8080:80")))
    assert (problem.code, problem.hint) == (Code.NOT_RUNNING, "banger vm start web")
    assert find(vms, "web").spec.publish == ()


async def test_a_port_that_somebody_listens_on_is_refused_and_nothing_is_changed(vms, host):
    await create(vms, "web")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"{server.getsockname()[1]}:80"
        problem = await refuse(vms.publish(VmPublish(vm="web", port=port)))
    assert problem.code is Code.CONFLICT
    assert "is taken" in problem.brief
    assert "ss -ltnp" in problem.hint
    assert (find(vms, "web").spec.publish, host.published()) == ((), [])
    assert len((await vms.publish(VmPublish(vm="web", port=port))).vm.spec.publish) == 1


async def test_an_address_that_is_not_this_hosts_is_refused(vms, host):
    await create(vms, "web")
    problem = await refuse(vms.publish(VmPublish(vm="web", port="203.0.113.7:8080:80")))
    assert (problem.code, problem.hint) == (Code.BAD_REQUEST, "ip -brief address")
    assert "203.0.113.7" in problem.brief
    assert (find(vms, "web").spec.publish, host.published()) == ((), [])


async def test_one_host_port_of_one_vm_leads_to_one_place(vms, host):
    (port,) = free_ports(1)
    number = port.partition(":")[0]
    await create(vms, "web", publish=[port])
    for other in (f"{number}:81", f"0.0.0.0:{number}:80"):
        problem = await refuse(vms.publish(VmPublish(vm="web", port=other)))
        assert problem.code is Code.CONFLICT
        assert "want the same port" in problem.brief
        assert problem.hint == f"banger vm unpublish web {port}"
    assert find(vms, "web").spec.publish == (parse_publish(port),)


@on_the_bridge
async def test_a_port_of_another_vm_is_refused(vms, host):
    (port,) = free_ports(1)
    one = await create(vms, "one", publish=[port])
    await create(vms, "two")
    problem = await refuse(vms.publish(VmPublish(vm="two", port=port)))
    assert (problem.code, problem.hint) == (Code.CONFLICT, f"banger vm unpublish one {port}")
    assert problem.brief.endswith("of the host is published by one")
    assert len(host.published()) == 1
    await vms.stop(VmStop(vm="one"), QUIET)
    await vms.publish(VmPublish(vm="two", port=port))
    problem = await refuse_start(vms, "one")
    assert (problem.code, problem.hint) == (Code.CONFLICT, f"banger vm unpublish two {port}")
    assert find(vms, "one").address == one.address


async def refuse_start(vms, name):
    return await refuse(vms.start(VmStart(vm=name), QUIET))


async def test_there_is_a_most(vms, host):
    await create(vms, "web", publish=free_ports(PORTS_MAX))
    problem = await refuse(vms.publish(VmPublish(vm="web", port=free_ports(1)[0])))
    assert str(PORTS_MAX) in problem.brief
    assert len(find(vms, "web").spec.publish) == PORTS_MAX


@on_the_bridge
async def test_a_helper_that_refuses_leaves_the_row_as_it_was(vms, privileged):
    kept, other = free_ports(2)
    await create(vms, "web", publish=[kept])
    privileged.missing = dict.fromkeys(("publish_ports", "unpublish_ports"), REFUSED)
    assert await refuse(vms.publish(VmPublish(vm="web", port=other))) is REFUSED
    assert await refuse(vms.unpublish(VmUnpublish(vm="web", port=kept))) is REFUSED
    assert find(vms, "web").spec.publish == (parse_publish(kept),)
    assert (is_free(kept), is_free(other)) == (False, True)
    privileged.missing.clear()
    assert (await vms.unpublish(VmUnpublish(vm="web", port=kept))).vm.spec.publish == ()


async def test_what_is_not_published_cannot_be_taken_back_and_what_is_is_told(vms):
    (port,) = free_ports(1)
    await create(vms, "web")
    problem = await refuse(vms.unpublish(VmUnpublish(vm="web", port=port)))
    assert (problem.code, problem.hint) == (Code.NOT_FOUND, "banger vm show web")
    await vms.publish(VmPublish(vm="web", port=port))
    number = port.partition(":")[0]
    for other in (f"{number}:81", f"{number}:80/udp", f"0.0.0.0:{number}:80"):
        problem = await refuse(vms.unpublish(VmUnpublish(vm="web", port=other)))
        assert problem.code is Code.NOT_FOUND
        assert f"published: 127.0.0.1:{number}:80" in problem.hint
    assert len(find(vms, "web").spec.publish) == 1


@on_the_bridge
async def test_changes_of_one_vm_take_turns(vms, privileged):
    ports = free_ports(8)
    await create(vms, "web")
    await asyncio.gather(
        vms.set(VmSet(vm="web", nat=True)), *(vms.publish(VmPublish(vm="web", port=port)) for port in ports)
    )
    spec = find(vms, "web").spec
    assert spec.nat
    assert set(spec.publish) == set(map(parse_publish, ports))
    assert len(privileged.published) == 8


@on_the_bridge
async def test_a_change_whose_caller_leaves_is_finished_all_the_same(vms, privileged):
    (port,) = free_ports(1)
    await create(vms, "web")
    privileged.before["publish_ports"] = gate = asyncio.Event()
    call = asyncio.create_task(vms.publish(VmPublish(vm="web", port=port)))
    while "publish_ports" not in privileged.begun:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    details = await vms.set(VmSet(vm="web", nat=True))  # waits for the VM's lock
    assert details.vm.spec.publish == (parse_publish(port),)
    assert len(privileged.published) == 1


async def test_a_vm_without_a_work_disk_has_none_that_could_grow(vms, world):
    vm = await create(vms, "web", start=False)
    work_disk(world, vm).unlink()
    world.store.vms.save(msgspec.structs.replace(vm, has_work_disk=False))
    grown = await vms.set(VmSet(vm="web", disk_size_bytes=32 * GIB))
    assert grown.vm.spec.disk_size_bytes == 32 * GIB
    assert not work_disk(world, vm).exists()


@on_the_bridge
async def test_a_vm_in_user_mode_beside_a_bridge_has_its_ports_from_its_vmm(world, privileged):
    """It was started before the bridge could be had."""
    privileged.missing["ensure_bridge"] = REFUSED
    (port,) = free_ports(1)
    async with world.open() as vms:
        vm = await create(vms, "web")
        assert vm.runtime.network_mode is NetworkMode.USER
        privileged.missing.clear()
        await create(vms, "other")
        await vms.publish(VmPublish(vm="web", port=port))
        assert privileged.published == {}
        (process,) = [p for p in world.vmm.host.processes.values() if p.handle.pid == vm.runtime.pid]
        assert process.forwards == {parse_publish(port)}
        assert (await refuse(vms.set(VmSet(vm="web", nat=True)))).code is Code.CONFLICT
        await vms.unpublish(VmUnpublish(vm="web", port=port))
        assert process.forwards == set()
