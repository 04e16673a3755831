import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from tests.unit.vms.conftest import Recorder

from banger.api.vm import (
    VmCreate,
    VmDelete,
    VmKill,
    VmList,
    VmPrune,
    VmRestart,
    VmShow,
    VmSsh,
    VmStart,
    VmStop,
)
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.base.units import GIB, MIB
from banger.model.vm import Origin, VmState

QUIET = Silent()


async def test_create_boots_and_reports_every_stage(vms, world):
    progress = Recorder()
    details = await vms.create(VmCreate(name="web", memory_mib=256), progress)
    assert details.vm.state is VmState.RUNNING
    assert progress.stages == [
        "prepare disks",
        "preflight",
        "attach root",
        "network",
        "configure guest",
        "start vmm",
        "boot guest",
    ]
    assert [stage.name for stage in details.vm.boot_stages] == progress.stages[1:]
    assert [stage.name for stage in details.vm.guest_stages] == ["root", "agent"]
    assert details.vm.runtime.boot_id == world.guests[0].boot_id
    assert details.vm.spec.origins["memory_mib"] is Origin.FLAG
    assert details.ssh.port == details.vm.runtime.ssh_port


async def test_the_guest_gets_its_name_keys_and_disks(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    (machine,) = world.vmm.machines.values()
    archive = open(machine.initramfs, "rb").read()
    for expected in (
        b"hostname=web\n",
        b"root=root\n",
        b"work=work\n",
        b"BEGIN OPENSSH PRIVATE KEY",
        b"ssh-ed25519 ",
    ):
        assert expected in archive
    assert [(disk.serial, disk.read_only) for disk in machine.disks] == [("root", False), ("work", False)]
    assert machine.network.restricted
    assert os.stat(machine.initramfs).st_mode & 0o777 == 0o600


async def test_nat_lifts_the_restriction(vms, world):
    await vms.create(VmCreate(name="web", nat=True), QUIET)
    (machine,) = world.vmm.machines.values()
    assert not machine.network.restricted


async def test_stop_and_start_keep_the_disks_and_the_port(vms, world):
    before = (await vms.create(VmCreate(name="web"), QUIET)).vm
    disk = world.root / "vms" / before.id / "work.img"
    with disk.open("r+b") as file:
        file.write(b"precious")
    stopped = (await vms.stop(VmStop(vm="web"), QUIET)).vm
    assert (stopped.state, stopped.runtime) == (VmState.STOPPED, None)
    assert world.vmm.host.alive() == []
    after = (await vms.start(VmStart(vm="web"), QUIET)).vm
    assert after.state is VmState.RUNNING
    assert after.runtime.ssh_port == before.runtime.ssh_port
    with disk.open("rb") as file:
        assert file.read(8) == b"precious"


async def test_stop_is_idempotent_and_start_is_not(vms):
    await vms.create(VmCreate(name="web"), QUIET)
    with pytest.raises(Problem, match="running already") as caught:
        await vms.start(VmStart(vm="web"), QUIET)
    assert caught.value.hint == "banger vm show web"
    await vms.stop(VmStop(vm="web"), QUIET)
    assert (await vms.stop(VmStop(vm="web"), QUIET)).vm.state is VmState.STOPPED


async def test_stop_kills_at_the_deadline_when_the_agent_is_silent(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    world.guests[0].is_silent = True
    details = await vms.stop(VmStop(vm="web", timeout_s=0.2), QUIET)
    assert details.vm.state is VmState.STOPPED
    assert world.vmm.host.alive() == []


async def test_a_stop_whose_caller_leaves_is_finished_all_the_same(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    world.guests[0].is_silent = True
    call = asyncio.create_task(vms.stop(VmStop(vm="web", timeout_s=0.2), QUIET))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    again = await vms.stop(VmStop(vm="web"), QUIET)
    assert again.vm.state is VmState.STOPPED
    assert world.vmm.host.alive() == []


async def test_restart_and_kill(vms, world):
    first = (await vms.create(VmCreate(name="web"), QUIET)).vm
    second = (await vms.restart(VmRestart(vm="web"), QUIET)).vm
    assert second.runtime.pid != first.runtime.pid
    killed = (await vms.kill(VmKill(vm="web"), QUIET)).vm
    assert killed.state is VmState.STOPPED
    assert world.vmm.host.alive() == []


async def test_delete_leaves_nothing(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    with pytest.raises(Problem) as caught:
        await vms.delete(VmDelete(vm="web"), QUIET)
    assert caught.value.hint == "banger vm delete --force web"
    await vms.delete(VmDelete(vm="web", force=True), QUIET)
    assert world.leftovers() == []


async def test_prune_takes_only_what_does_not_run(vms, world):
    await vms.create(VmCreate(name="up"), QUIET)
    await vms.create(VmCreate(name="down", start=False), QUIET)
    assert (await vms.prune(VmPrune(dry_run=True))).vms == ["down"]
    assert (await vms.prune(VmPrune())).vms == ["down"]
    assert [vm.name for vm in vms.list_vms(VmList(all=True)).vms] == ["up"]


async def test_list_shows_the_running_ones_unless_asked(vms):
    await vms.create(VmCreate(name="up"), QUIET)
    await vms.create(VmCreate(name="down", start=False), QUIET)
    assert [vm.name for vm in vms.list_vms(VmList()).vms] == ["up"]
    assert [vm.name for vm in vms.list_vms(VmList(all=True)).vms] == ["down", "up"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (VmCreate(name="Bad_Name"), "VM name"),
        (VmCreate(vcpus=0), "0 vCPUs"),
        (VmCreate(vcpus=1000), "1000 vCPUs"),
        (VmCreate(memory_mib=0), "0 MiB"),
        (VmCreate(memory_mib=512 * 1024), "more than this host has"),
        (VmCreate(disk_size_bytes=0), "a disk of 0 B"),
        (VmCreate(disk_size_bytes=15 * 1024 * GIB), "do not fit"),
        (VmCreate(disk_size_bytes=64 * MIB - 1), "a disk of"),
        (VmCreate(system_overlay_size_bytes=10**18), "a disk of"),
        (VmCreate(image="nope"), "'nope'"),
        (VmCreate(kernel="nope"), "'nope'"),
    ],
)
async def test_a_refused_specification_leaves_nothing(vms, world, request_, words):
    with pytest.raises(Problem, match=words) as caught:
        await vms.create(request_, QUIET)
    assert caught.value.outcome.value == "not_started"
    assert caught.value.hint
    assert world.leftovers() == []


async def test_a_second_vm_of_one_name_is_refused_and_the_first_unharmed(vms):
    await vms.create(VmCreate(name="web"), QUIET)
    with pytest.raises(Problem) as caught:
        await vms.create(VmCreate(name="web"), QUIET)
    assert caught.value.code is Code.ALREADY_EXISTS
    assert vms.show(VmShow(vm="web")).vm.state is VmState.RUNNING


async def test_of_two_simultaneous_creations_of_one_name_one_wins(vms, world):
    outcomes = await asyncio.gather(
        *(vms.create(VmCreate(name="web"), QUIET) for _ in range(4)), return_exceptions=True
    )
    problems = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    assert [problem.code for problem in problems] == [Code.ALREADY_EXISTS] * 3
    assert len(world.vmm.host.alive()) == 1


async def test_generated_names_do_not_collide(vms):
    made = [await vms.create(VmCreate(start=False), QUIET) for _ in range(10)]
    assert len({details.vm.name for details in made}) == 10


@pytest.mark.parametrize("fault", ["missing", "fail_start", "die_after_start"])
async def test_a_creation_that_fails_undoes_everything(vms, world, fault):
    broken = Problem(Code.OPERATION_FAILED, "the VMM is broken")
    setattr(world.vmm.faults, fault, broken if fault == "fail_start" else True)
    with pytest.raises(Problem):
        await vms.create(VmCreate(name="web"), QUIET)
    assert world.leftovers() == []


async def test_a_cancelled_creation_undoes_everything(vms, world):
    world.vmm.faults.hang_start = True
    progress = Recorder()
    task = asyncio.create_task(vms.create(VmCreate(name="web"), progress))
    while "start vmm" not in progress.stages:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.leftovers() == []


async def test_a_start_that_fails_leaves_the_vm_in_error_and_startable(vms, world):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    world.vmm.faults.fail_start = Problem(Code.OPERATION_FAILED, "the VMM is broken")
    with pytest.raises(Problem):
        await vms.start(VmStart(vm="web"), QUIET)
    vm = vms.show(VmShow(vm="web")).vm
    assert vm.state is VmState.ERROR
    assert vm.error["message"] == "the VMM is broken"
    world.vmm.faults.fail_start = None
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.state is VmState.RUNNING


async def test_a_port_that_was_snatched_away_is_replaced(vms, world):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    attempts = []
    start = world.vmm.start

    async def refuse_twice(machine, place, tap):
        attempts.append(machine.network.forwards[0].host_port)
        if len(attempts) < 3:
            raise Problem(Code.CONFLICT, "the port is taken")
        return await start(machine, place, tap)

    world.vmm.start = refuse_twice
    details = await vms.start(VmStart(vm="web"), QUIET)
    assert details.vm.runtime.ssh_port == attempts[-1]


async def test_a_vm_killed_from_outside_is_reported_cleaned_and_startable(vms, world):
    vm = (await vms.create(VmCreate(name="web"), QUIET)).vm
    world.vmm.host.kill(vm.runtime.pid)
    async with asyncio.timeout(5):
        while vms.show(VmShow(vm="web")).vm.state is VmState.RUNNING:
            await asyncio.sleep(0.001)
    found = vms.show(VmShow(vm="web")).vm
    assert found.state is VmState.ERROR
    assert "SIGKILL" in found.error["message"]
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.state is VmState.RUNNING


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("on_power_off", "the guest powered off"),
        ("on_reboot", "the guest rebooted, which ends a VM here (banger vm start web)"),
    ],
)
async def test_a_guest_that_ends_by_itself_is_stopped_and_says_why(vms, world, way, why):
    await vms.create(VmCreate(name="web"), QUIET)
    getattr(world.guests[0], way)()
    async with asyncio.timeout(5):
        while vms.show(VmShow(vm="web")).vm.state is VmState.RUNNING:
            await asyncio.sleep(0.001)
    found = vms.show(VmShow(vm="web")).vm
    assert (found.state, found.stopped_because) == (VmState.STOPPED, why)
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.stopped_because == ""


async def test_ssh_waits_for_a_listener_and_says_what_it_waited_for(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    target = await vms.ssh(VmSsh(vm="web"))
    assert (target.host, target.user) == ("127.0.0.1", "root")
    assert target.host_key_alias in open(target.known_hosts_file).read()
    world.guests[0].listeners = ()
    with pytest.raises(Problem, match="nothing listens"):
        await vms.ssh(VmSsh(vm="web", timeout_s=0.05))


@pytest.mark.parametrize("name", ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "known_hosts"])
async def test_a_host_key_that_somebody_has_removed_is_made_anew_and_known(vms, world, name: str):
    vm = (await vms.create(VmCreate(name="web", start=False), QUIET)).vm
    directory = world.root / "vms" / vm.id
    (directory / name).unlink()
    await vms.start(VmStart(vm="web"), QUIET)
    target = await vms.ssh(VmSsh(vm="web"))
    public = (directory / "ssh_host_ed25519_key.pub").read_text()
    assert (directory / "ssh_host_ed25519_key").is_file()
    assert " ".join(public.split()[:2]) in Path(target.known_hosts_file).read_text()


async def test_a_stopped_vm_has_no_ssh(vms):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    with pytest.raises(Problem) as caught:
        await vms.ssh(VmSsh(vm="web"))
    assert (caught.value.code, caught.value.hint) == (Code.NOT_RUNNING, "banger vm start web")


async def test_another_daemon_takes_over_what_runs_and_buries_what_does_not(world):
    async with world.open() as first:
        alive = (await first.create(VmCreate(name="alive"), QUIET)).vm
        dead = (await first.create(VmCreate(name="dead"), QUIET)).vm
    world.vmm.host.kill(dead.runtime.pid)
    async with world.open() as second:
        await second.recover()
        assert second.show(VmShow(vm="alive")).vm.runtime.pid == alive.runtime.pid
        assert second.show(VmShow(vm="dead")).vm.state is VmState.ERROR
        await second.stop(VmStop(vm="alive"), QUIET)
    assert world.vmm.host.alive() == []


async def test_shutting_down_stops_all_and_hurrying_kills(vms, world):
    for name in ("one", "two"):
        await vms.create(VmCreate(name=name), QUIET)
    world.guests[1].is_silent = True
    hurry = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, hurry.set)
    async with asyncio.timeout(10):
        await vms.stop_all(hurry)
    assert {vm.state for vm in world.store.vms.list()} == {VmState.STOPPED}
    assert world.vmm.host.alive() == []


async def test_prune_spares_a_vm_that_was_started_meanwhile(vms, world):
    for name in ("one", "two"):
        await vms.create(VmCreate(name=name, start=False), QUIET)
    pruning = asyncio.create_task(vms.prune(VmPrune()))
    await asyncio.sleep(0)
    started = asyncio.create_task(vms.start(VmStart(vm="two"), QUIET))
    pruned = await pruning
    outcome = (await asyncio.gather(started, return_exceptions=True))[0]
    if "two" in pruned.vms:
        assert isinstance(outcome, Problem)
    else:
        assert outcome.vm.state is VmState.RUNNING
        assert [vm.name for vm in world.store.vms.list()] == ["two"]


async def test_a_stop_that_failed_can_be_repeated(vms, world):
    await vms.create(VmCreate(name="web"), QUIET)
    stop = world.vmm.stop

    async def fail(handle, *, deadline_s):
        raise Problem(Code.OPERATION_FAILED, "the VMM does not listen")

    world.vmm.stop = fail
    with pytest.raises(Problem):
        await vms.stop(VmStop(vm="web"), QUIET)
    world.vmm.stop = stop
    assert (await vms.stop(VmStop(vm="web"), QUIET)).vm.state is VmState.STOPPED
    assert world.vmm.host.alive() == []


async def test_waiting_for_ssh_fails_when_nothing_listens(vms, world, monkeypatch):
    monkeypatch.setattr("banger.services.vms.capabilities.ssh._WAIT_S", 0.05)
    await vms.create(VmCreate(name="web", start=False), QUIET)
    task = asyncio.create_task(vms.start(VmStart(vm="web", wait_ssh=True), QUIET))
    while not world.guests:
        await asyncio.sleep(0)
    world.guests[0].listeners = ()
    with pytest.raises(Problem, match="nothing listens"):
        await task


async def test_half_made_and_half_removed_vms_are_finished_off_by_the_next_daemon(world):
    async with world.open() as first:
        for name in ("half-made", "half-gone", "whole"):
            await first.create(VmCreate(name=name, start=False), QUIET)
    for vm in world.store.vms.list():
        if vm.name == "half-made":
            world.store.vms.save(msgspec.structs.replace(vm, prepared=False))
        if vm.name == "half-gone":
            world.store.vms.save(msgspec.structs.replace(vm, removing=True))
    stray = world.root / "vms" / "0123456789ab"
    stray.mkdir()
    other = world.root / "vms" / "not-one-of-ours"
    other.mkdir()
    async with world.open() as second:
        await second.recover()
        assert [vm.name for vm in second.list_vms(VmList(all=True)).vms] == ["whole"]
    assert not stray.exists()
    assert other.exists()


async def test_an_image_that_is_gone_is_told_before_anything_starts(vms, world):
    await vms.create(VmCreate(name="web", start=False), QUIET)
    (world.root / "image").rename(world.root / "elsewhere")
    with pytest.raises(Problem) as caught:
        await vms.start(VmStart(vm="web"), QUIET)
    assert caught.value.code is Code.NOT_FOUND
    assert vms.show(VmShow(vm="web")).vm.state is VmState.CREATED


async def test_a_vmm_that_was_never_written_down_is_ended_by_the_next_daemon(world):
    async with world.open() as first:
        vm = (await first.create(VmCreate(name="web"), QUIET)).vm
    world.store.vms.save(msgspec.structs.replace(vm, state=VmState.STARTING, runtime=None))
    async with world.open() as second:
        await second.recover()
        assert second.show(VmShow(vm="web")).vm.state is VmState.ERROR
    assert world.vmm.host.alive() == []
