"""VMs whose root disk is a device of root's: attached for a start, and for no longer than the VMM runs."""

import asyncio
import os
import struct

import msgspec
import pytest
from tests.unit.hostnet.places import SlowRoot, settle
from tests.unit.vms.bridged import find, wait_state
from tests.unit.vms.conftest import Recorder

from banger.api.vm import VmCreate, VmDelete, VmKill, VmPrune, VmShow, VmStart, VmStop
from banger.base.problem import Code, Problem, conflict, unavailable
from banger.base.progress import Silent
from banger.base.tasks import Supervisor
from banger.base.units import MIB
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.model.vm import VmState
from banger.privileged.contract.machines import AttachSnapshot, DetachSnapshot
from banger.services.vms import roots
from banger.storage.clone import CopyDriver
from banger.storage.qcow2 import Qcow2Driver
from banger.storage.snapshot import SnapshotDriver
from banger.vmm.contract import Capability, GuestView
from banger.vmm.fake import FakeVmm

QUIET = Silent()
LIMIT = 64 * MIB


class Devices(SlowRoot):
    """Root, and what it was asked about root disks."""

    def of_roots(self):
        return [
            request.method for request in self.calls if isinstance(request, AttachSnapshot | DetachSnapshot)
        ]


@pytest.fixture
def privileged():
    return Devices()


@pytest.fixture
def drivers(privileged):
    return [SnapshotDriver(privileged, LIMIT), Qcow2Driver(), CopyDriver()]


@pytest.fixture
def world(world):
    """Its VMM ends at a reset only."""
    _teach(world.vmm)
    return world


def _teach(vmm):
    """The fake becomes one that is given devices by root, and sees its disks as Firecracker does."""
    start = vmm.start
    vmm.told = []

    async def start_with_device(machine, place, tap=None):
        vmm.told.append(machine)
        files = tuple(disk for disk in machine.disks if disk.format is not DiskFormat.SNAPSHOT)
        return await start(msgspec.structs.replace(machine, disks=files), place, tap)

    async def capabilities():
        return await FakeVmm.capabilities(vmm) - {Capability.POWER_OFF, Capability.QCOW2_DISKS} | {
            Capability.SNAPSHOT_DISKS
        }

    vmm.start = start_with_device
    vmm.capabilities = capabilities
    vmm.view_guest = lambda machine: GuestView(
        ("vsock:1024",),
        {disk.serial: f"/dev/vd{'abc'[index]}" for index, disk in enumerate(machine.disks)},
    )


async def create(vms, **fields):
    return (await vms.create(VmCreate(name="web", **fields), QUIET)).vm


async def test_the_root_disk_is_attached_before_the_network_and_told_to_vmm_and_guest(vms, world, privileged):
    progress = Recorder()
    vm = (await vms.create(VmCreate(name="web"), progress)).vm
    assert progress.stages.index("attach root") + 1 == progress.stages.index("network")
    assert vm.root_driver is StorageDriver.SNAPSHOT
    assert list(privileged.snapshots.attached) == [vm.id]
    assert privileged.snapshots.attached[vm.id].size_bytes == vm.spec.system_overlay_size_bytes
    (machine,) = world.vmm.told
    assert [disk.format for disk in machine.disks] == [DiskFormat.SNAPSHOT, DiskFormat.RAW]
    archive = open(machine.initramfs, "rb").read()
    assert b"root=/dev/vda\n" in archive
    assert b"work=/dev/vdb\n" in archive
    assert b"channel=vsock:1024\n" in archive


async def test_stop_start_kill_and_delete_leave_nothing_attached(vms, world, privileged):
    vm = await create(vms)
    stopped = (await vms.stop(VmStop(vm="web"), QUIET)).vm
    assert (stopped.state, privileged.snapshots.attached) == (VmState.STOPPED, {})
    await vms.start(VmStart(vm="web"), QUIET)
    assert list(privileged.snapshots.attached) == [vm.id]
    await vms.kill(VmKill(vm="web"), QUIET)
    assert privileged.snapshots.attached == {}
    await vms.start(VmStart(vm="web"), QUIET)
    await vms.delete(VmDelete(vm="web", force=True), QUIET)
    assert privileged.snapshots.attached == {}
    assert world.leftovers() == []


async def test_a_vmm_that_ends_at_a_reset_only_is_asked_for_one(vms, world):
    await create(vms)
    asked = []
    guest = world.guests[0]
    guest.on_power_off = lambda: asked.append("power off")
    reset = guest.on_reboot
    guest.on_reboot = lambda: (asked.append("reset"), reset())
    stopped = (await vms.stop(VmStop(vm="web", timeout_s=5), QUIET)).vm
    assert (stopped.state, asked) == (VmState.STOPPED, ["reset"])


async def test_a_vmm_that_could_not_be_started_any_more_is_stopped_all_the_same(vms, world):
    await create(vms)

    async def capabilities():
        raise unavailable("Firecracker is not installed")

    world.vmm.capabilities = capabilities
    assert (await vms.stop(VmStop(vm="web", timeout_s=5), QUIET)).vm.state is VmState.STOPPED
    assert world.vmm.host.alive() == []


async def test_a_vm_that_ends_by_itself_gives_its_disk_back(vms, world, privileged):
    vm = await create(vms)
    world.vmm.host.kill(vm.runtime.pid)
    await wait_state(vms, "web", VmState.ERROR)
    await settle()
    assert privileged.snapshots.attached == {}


@pytest.mark.parametrize(
    "fault", ["attach_snapshot", "admit_guest", "fail_start", "die_after_start", "files"]
)
async def test_a_start_that_fails_at_any_step_leaves_nothing_attached(vms, world, privileged, fault):
    await create(vms, start=False)
    broken = Problem(Code.OPERATION_FAILED, "it is broken")
    if fault in {"fail_start", "die_after_start"}:
        setattr(world.vmm.faults, fault, broken if fault == "fail_start" else True)
    elif fault == "files":
        (world.root / "kernel" / "base.cpio").unlink()
    else:
        privileged.missing[fault] = broken
    with pytest.raises((Problem, OSError)):
        await vms.start(VmStart(vm="web"), QUIET)
    await settle()
    assert privileged.snapshots.attached == {}
    assert world.vmm.host.alive() == []


@pytest.mark.parametrize("stage", ["attach_snapshot", "admit_guest", "vmm"])
async def test_a_cancelled_creation_leaves_nothing(vms, world, privileged, stage):
    gate = asyncio.Event()
    if stage == "vmm":
        world.vmm.faults.hang_start = True
    else:
        privileged.after[stage] = gate
    task = asyncio.create_task(vms.create(VmCreate(name="web"), QUIET))
    while not (world.vmm.told if stage == "vmm" else stage in privileged.begun):
        await asyncio.sleep(0)
    task.cancel()
    await settle()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert privileged.snapshots.attached == {}
    assert world.leftovers() == []


async def test_another_daemon_holds_what_runs_and_gives_it_back(world, privileged):
    async with world.open() as first:
        vm = await create(first)
    assert list(privileged.snapshots.attached) == [vm.id]
    async with world.open() as second:
        await second.recover()
        assert list(privileged.snapshots.attached) == [vm.id]
        assert privileged.of_roots() == ["attach_snapshot"]
        await second.stop(VmStop(vm="web"), QUIET)
    assert privileged.snapshots.attached == {}


async def test_another_daemon_gives_back_what_a_dead_one_held(world, privileged):
    async with world.open() as first:
        vm = await create(first)
    world.vmm.host.kill(vm.runtime.pid)
    async with world.open() as second:
        await second.recover()
        assert find(second, "web").state is VmState.ERROR
    assert privileged.snapshots.attached == {}


async def test_devices_and_jails_that_no_vm_owns_go_when_a_daemon_starts(world, privileged):
    async with world.open() as first:
        vm = await create(first)
    image, layer = world.root / "image" / "rootfs.ext4", world.root / "layer"
    layer.write_bytes(bytes(MIB))
    with image.open("rb") as below, layer.open("r+b") as above:
        descriptors = (below.fileno(), above.fileno())
        await privileged.call(AttachSnapshot(vm="ffffffffffff", size_bytes=64 * MIB), descriptors)
    async with world.open() as second:
        await second.recover()
        assert list(privileged.snapshots.attached) == [vm.id]
        assert find(second, "web").state is VmState.RUNNING


async def test_a_host_that_cannot_be_asked_is_served_all_the_same(world, privileged, caplog):
    async with world.open() as first:
        await create(first, start=False)
    for method in ("list_jails", "list_snapshots"):
        privileged.missing[method] = unavailable("the helper does not run")
        async with world.open() as second:
            await second.recover()
            assert find(second, "web").state is VmState.CREATED
        assert "is not looked for" in caplog.text


async def test_a_disk_that_cannot_be_detached_is_replaced_at_the_next_start(vms, privileged, caplog):
    vm = await create(vms)
    privileged.fail_next("detach_snapshot", conflict("it is in use"))
    assert (await vms.stop(VmStop(vm="web"), QUIET)).vm.state is VmState.STOPPED
    assert "something may be left" in caplog.text
    assert list(privileged.snapshots.attached) == [vm.id]
    assert (await vms.start(VmStart(vm="web"), QUIET)).vm.state is VmState.RUNNING


# Full


def fill(world, privileged, vm):
    """As the kernel does it: every access fails, and the layer's header says so."""
    privileged.snapshots.fill(vm.id)
    with (world.root / "vms" / vm.id / "root.cow").open("r+b") as layer:
        layer.write(struct.pack("<4sIII", b"SnAp", 0, 1, 8).ljust(4096, b"\0"))
        for _ in range(LIMIT // MIB):
            layer.write(b"x" * MIB)
        layer.truncate(LIMIT)
        os.fsync(layer)


async def test_a_full_root_disk_ends_its_vm_and_no_other(world, privileged, monkeypatch):
    monkeypatch.setattr(roots, "CHECK_S", 0.001)
    async with world.open() as vms:
        web = await create(vms)
        other = (await vms.create(VmCreate(name="other"), QUIET)).vm
        fill(world, privileged, web)
        await wait_state(vms, "web", VmState.ERROR)
        error = find(vms, "web").error
        assert error["code"] == "no_space"
        assert "web has changed more than 64 MiB of its root disk" in error["message"]
        for words in ("snapshot_limit", "/root is intact", "work.img"):
            assert words in error["hint"]
        assert list(privileged.snapshots.attached) == [other.id]
        assert find(vms, "other").state is VmState.RUNNING
        assert [handle.pid for handle in world.vmm.host.alive()] == [other.runtime.pid]


async def test_one_that_cannot_be_ended_keeps_nobody_from_the_others_and_is_tried_again(monkeypatch):
    monkeypatch.setattr(roots, "CHECK_S", 0.001)
    tried = []
    twice = asyncio.Event()

    class Lost:
        async def find_full(self):
            return {"stuck": None, "gone": None, "web": None}

    async def end(vm_id, driver):
        tried.append(vm_id)
        if tried.count("web") == 2:
            twice.set()
        if vm_id == "stuck":
            raise unavailable("it does not end")
        if vm_id == "gone":
            raise FileNotFoundError("root.cow")

    async with Supervisor() as tasks:
        tasks.start(roots.watch_roots(Lost(), end), name="watch")
        async with asyncio.timeout(5):
            await twice.wait()
    assert tried[:6] == ["stuck", "gone", "web"] * 2


async def test_a_vm_whose_root_disk_was_full_is_refused_with_the_same_words(world, privileged, monkeypatch):
    monkeypatch.setattr(roots, "CHECK_S", 0.001)
    async with world.open() as vms:
        web = await create(vms)
        fill(world, privileged, web)
        await wait_state(vms, "web", VmState.ERROR)
        told = find(vms, "web").error
        with pytest.raises(Problem) as caught:
            await vms.start(VmStart(vm="web"), QUIET)
        assert (caught.value.brief, caught.value.hint) == (told["message"], told["hint"])
        assert find(vms, "web").error["message"] == told["message"]
        await vms.delete(VmDelete(vm="web"), QUIET)
        assert world.leftovers() == []


async def test_one_look_is_for_all_and_none_without_such_a_vm(world, privileged, monkeypatch):
    monkeypatch.setattr(roots, "CHECK_S", 0.001)
    async with world.open() as vms:
        await vms.create(VmCreate(name="off", start=False), QUIET)
        await asyncio.sleep(0.02)
        assert "list_snapshots" not in privileged.begun
        for name in ("one", "two"):
            await vms.create(VmCreate(name=name), QUIET)
        privileged.begun.clear()
        gate = privileged.after["list_snapshots"] = asyncio.Event()
        while "list_snapshots" not in privileged.begun:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert privileged.begun.count("list_snapshots") == 1
        gate.set()


async def test_a_look_that_fails_is_repeated(world, privileged, monkeypatch, caplog):
    monkeypatch.setattr(roots, "CHECK_S", 0.001)
    async with world.open() as vms:
        web = await create(vms)
        privileged.fail_next("list_snapshots", unavailable("the helper does not run"))
        while "cannot be looked at" not in caplog.text:
            await asyncio.sleep(0.001)
        fill(world, privileged, web)
        await wait_state(vms, "web", VmState.ERROR)


# Other drivers


async def test_a_copy_is_measured_and_must_fit(vms, world, monkeypatch):
    world.around.backends.driver = world.around.storage.get(StorageDriver.COPY)
    with (world.root / "image" / "rootfs.ext4").open("r+b") as image:
        image.write(b"x" * MIB)
        os.fsync(image)
    details = await vms.create(VmCreate(name="web", start=False, disk_size_bytes=64 * MIB), QUIET)
    assert details.vm.root_driver is StorageDriver.COPY
    assert MIB <= details.disk_use.root_bytes < 2 * MIB
    assert (await vms.prune(VmPrune(dry_run=True))).freed_bytes >= MIB
    monkeypatch.setattr(CopyDriver, "estimate_bytes", lambda self, image: 1 << 60)
    with pytest.raises(Problem, match="a copy of the image") as caught:
        await vms.create(VmCreate(name="other", start=False, disk_size_bytes=64 * MIB), QUIET)
    assert caught.value.code is Code.NO_SPACE
    assert caught.value.hint
    assert [vm.name for vm in world.store.vms.list()] == ["web"]


async def test_a_vm_keeps_the_driver_it_was_made_with(vms, world, privileged):
    world.around.backends.driver = world.around.storage.get(StorageDriver.QCOW2)
    await create(vms)
    world.around.backends.driver = world.around.storage.get(StorageDriver.SNAPSHOT)
    await vms.stop(VmStop(vm="web"), QUIET)
    details = await vms.start(VmStart(vm="web"), QUIET)
    assert details.vm.root_driver is StorageDriver.QCOW2
    assert vms.show(VmShow(vm="web")).disk_use.root_bytes > 0
    assert privileged.of_roots() == []
