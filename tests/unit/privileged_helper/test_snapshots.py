import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from banger.base.problem import Code, Problem
from banger.privileged.contract.machines import (
    ACTIVE,
    FULL,
    AttachSnapshot,
    DetachSnapshot,
    InspectMachines,
    ListSnapshots,
    Snapshot,
)
from banger.privileged.contract.values import Refusal
from banger.privileged.fake import FakePrivileged
from banger.privileged.helper import machine_support, snapshots
from banger.privileged.helper.devmapper import Device, Target
from banger.privileged.helper.loop import LoopDevice
from banger.privileged.helper.snapshots import (
    describe_snapshot,
    plan_base,
    render_base,
    render_snapshot,
    verify_layer,
)

VM, OTHER = "0123456789ab", "ba9876543210"
ME = os.getuid()
IMAGE_BYTES, DISK_BYTES = 1 << 20, 2 << 20
LAYER = struct.Struct("<4I")


class Mapper:
    """Device-mapper as data. `fail` is (call, name) → errno, or how often it is busy."""

    def __init__(self) -> None:
        self.devices: dict[str, str] = {}  # UUID by name
        self.tables: dict[str, tuple[Target, ...]] = {}  # by UUID
        self.read_only: set[str] = set()
        self.resumed: set[str] = set()
        self.open: dict[str, int] = {}  # how often somebody has it open, by UUID
        self.status: dict[str, str] = {}  # of targets, by UUID
        self.fail: dict[tuple[str, str], int] = {}
        self.missing: set[str] = set()
        self.removed: list[str] = []

    def _enter(self, call: str, uuid: str) -> None:
        if number := self.fail.get((call, uuid)):
            raise OSError(number, os.strerror(number))

    def get_version(self) -> tuple[int, int, int]:
        return 4, 47, 0

    def has_target(self, kind: str) -> bool:
        return kind not in self.missing

    def create(self, name: str, uuid: str) -> None:
        self._enter("create", uuid)
        if name in self.devices:
            raise OSError(errno.EBUSY, "busy")
        self.devices[name] = uuid

    def load(self, uuid: str, targets: Sequence[Target], *, read_only: bool = False) -> None:
        self._enter("load", uuid)
        self.tables[uuid] = tuple(targets)
        if read_only:
            self.read_only.add(uuid)

    def resume(self, uuid: str) -> None:
        self._enter("resume", uuid)
        self.resumed.add(uuid)

    def remove(self, uuid: str) -> bool:
        name = next((name for name, known in self.devices.items() if known == uuid), None)
        if name is None:
            return False
        if uuid.endswith("-base") and uuid.removesuffix("-base") in self.tables:
            raise OSError(errno.EBUSY, "the snapshot has it open")
        if self.open.get(uuid, 0) > 0:
            raise OSError(errno.EBUSY, "busy")
        del self.devices[name]
        self.tables.pop(uuid, None)
        self.resumed.discard(uuid)
        self.removed.append(name)
        return True

    def find(self, uuid: str, *, loaded: bool = False) -> Device | None:
        if uuid not in self.devices.values():
            return None
        targets = self.tables.get(uuid, ()) if loaded != (uuid in self.resumed) else ()
        told = tuple(target._replace(text=self.status.get(uuid, "")) for target in targets)
        minor = sorted(self.devices.values()).index(uuid)
        return Device(253, minor, self.open.get(uuid, 0), 0, told)

    def list_names(self) -> tuple[str, ...]:
        return tuple(self.devices)


@pytest.fixture
def mapper(monkeypatch: pytest.MonkeyPatch) -> Mapper:
    mapper = Mapper()

    @contextmanager
    def open_mapper() -> Iterator[Mapper]:
        yield mapper

    monkeypatch.setattr(snapshots, "open_mapper", open_mapper)
    monkeypatch.setattr(snapshots, "is_loaded", lambda: True)
    return mapper


class Loops:
    """Pipes stand for devices: those that are still open are counted."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.fails_at = -1

    def attach(self, _: int, *, read_only: bool, owner: int) -> LoopDevice:
        assert (read_only, owner) == (not self.made, ME)
        if len(self.made) == self.fails_at:
            raise Refusal("unavailable", "no loop device")
        self.made.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        return LoopDevice(self.made[-1], 7, len(self.made) - 1)

    @property
    def open(self) -> int:
        return sum(os.path.exists(f"/proc/self/fd/{descriptor}") for descriptor in self.made)


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Loops:
    loops = Loops()
    monkeypatch.setattr(snapshots, "attach_loop", loops.attach)
    return loops


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(snapshots.time, "sleep", pauses.append)
    return pauses


class Files:
    def __init__(self, directory: Path) -> None:
        self.image, self.layer = directory / "image", directory / "layer"
        self.image.write_bytes(bytes(IMAGE_BYTES))
        self.layer.write_bytes(bytes(IMAGE_BYTES))

    def attach(self, vm: str = VM, size_bytes: int = DISK_BYTES) -> None:
        with self.image.open("rb") as image, self.layer.open("r+b") as layer:
            snapshots.attach_snapshot(vm, size_bytes, image.fileno(), layer.fileno(), owner=ME)

    def refuse(self, size_bytes: int = DISK_BYTES) -> Refusal:
        with pytest.raises(Refusal) as refusal:
            self.attach(size_bytes=size_bytes)
        return refusal.value


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


class TestAttach:
    def test_the_pair_is_what_it_should_be(self, mapper: Mapper, loops: Loops, files: Files) -> None:
        files.attach()
        assert mapper.devices == {
            f"banger-{VM}-base": f"BANGER-{VM}-base",
            f"banger-{VM}": f"BANGER-{VM}",
        }
        assert mapper.tables[f"BANGER-{VM}-base"] == (
            Target(0, 2048, "linear", "7:0 0"),
            Target(2048, 2048, "zero", ""),
        )
        assert mapper.tables[f"BANGER-{VM}"] == (Target(0, 4096, "snapshot", "253:0 7:1 P 8"),)
        assert mapper.read_only == {f"BANGER-{VM}-base"}
        assert mapper.resumed == set(mapper.devices.values())
        assert loops.open == 0

    @pytest.mark.parametrize("half", [f"banger-{VM}", f"banger-{VM}-base"])
    def test_a_name_that_is_taken_changes_nothing(
        self, mapper: Mapper, loops: Loops, files: Files, half: str
    ) -> None:
        mapper.create(half, half.replace("banger", "BANGER"))
        refusal = files.refuse()
        assert refusal.code == "conflict"
        assert refusal.hint == f"sudo dmsetup remove banger-{VM} banger-{VM}-base"
        assert (len(mapper.devices), mapper.removed, loops.made) == (1, [], [])

    def test_somebody_elses_device_of_the_name_is_left_alone(
        self, mapper: Mapper, loops: Loops, files: Files
    ) -> None:
        mapper.create(f"banger-{VM}", "LVM-theirs")
        assert files.refuse().code == "conflict"
        assert mapper.devices == {f"banger-{VM}": "LVM-theirs"}
        assert loops.open == 0

    @pytest.mark.parametrize("call", ["create", "load", "resume"])
    @pytest.mark.parametrize("uuid", [f"BANGER-{VM}", f"BANGER-{VM}-base"])
    def test_a_failure_at_any_step_leaves_nothing(
        self, mapper: Mapper, loops: Loops, files: Files, call: str, uuid: str
    ) -> None:
        mapper.fail[call, uuid] = errno.EIO
        with pytest.raises((Refusal, OSError)):
            files.attach()
        assert (mapper.devices, loops.open) == ({}, 0)

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_missing_loop_device_leaves_nothing(
        self, mapper: Mapper, loops: Loops, files: Files, which: int
    ) -> None:
        loops.fails_at = which
        assert files.refuse().code == "unavailable"
        assert (mapper.devices, loops.open) == ({}, 0)

    def test_a_layer_that_the_kernel_does_not_take_up(
        self, mapper: Mapper, loops: Loops, files: Files
    ) -> None:
        mapper.fail["load", f"BANGER-{VM}"] = errno.EIO
        refusal = files.refuse()
        assert (refusal.code, refusal.hint) == ("operation_failed", "sudo dmesg")
        assert "Input/output error" in refusal.message

    def test_a_missing_target_is_named(self, mapper: Mapper, loops: Loops, files: Files) -> None:
        mapper.fail["load", f"BANGER-{VM}"] = errno.EINVAL
        mapper.missing.add("snapshot")
        refusal = files.refuse()
        assert (refusal.code, refusal.hint) == ("unavailable", "sudo modprobe dm_snapshot")
        assert mapper.devices == {}

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
    def test_a_unit_that_may_not_open_what_was_made(
        self, mapper: Mapper, loops: Loops, files: Files, number: int
    ) -> None:
        mapper.fail["load", f"BANGER-{VM}-base"] = number
        refusal = files.refuse()
        assert (refusal.code, refusal.hint) == ("unavailable", "sudo systemctl restart banger-root")

    @pytest.mark.parametrize("status", ["Invalid", "Overflow"])
    def test_a_layer_that_the_kernel_has_given_up(
        self, mapper: Mapper, loops: Loops, files: Files, status: str
    ) -> None:
        mapper.status[f"BANGER-{VM}"] = status
        refusal = files.refuse()
        assert refusal.code == "operation_failed"
        assert "was full" in refusal.message
        assert (mapper.devices, loops.open) == ({}, 0)

    def test_what_is_busy_while_it_is_undone_is_tried_again(
        self, mapper: Mapper, loops: Loops, files: Files, pauses: list[float]
    ) -> None:
        mapper.fail["load", f"BANGER-{VM}"] = errno.EIO
        mapper.open[f"BANGER-{VM}-base"] = 1
        assert files.refuse().code == "operation_failed"
        assert len(pauses) > 3
        assert set(mapper.devices) == {f"banger-{VM}-base"}  # found by the list, and detached later

    def test_sizes_that_do_not_fit_change_nothing(self, mapper: Mapper, loops: Loops, files: Files) -> None:
        assert "smaller than its image" in files.refuse(IMAGE_BYTES - 512).message
        os.truncate(files.image, IMAGE_BYTES - 1)
        assert "whole number of sectors" in files.refuse().message
        assert (mapper.devices, loops.made) == ({}, [])

    def test_a_layer_of_another_make_changes_nothing(
        self, mapper: Mapper, loops: Loops, files: Files
    ) -> None:
        files.layer.write_bytes(b"text" * 1024)
        assert "neither empty nor a layer" in files.refuse().message
        assert (mapper.devices, loops.made) == ({}, [])


class TestDetach:
    @pytest.fixture(autouse=True)
    def attached(self, mapper: Mapper, loops: Loops, files: Files) -> None:
        files.attach()

    def test_the_snapshot_goes_before_its_base(self, mapper: Mapper, pauses: list[float]) -> None:
        snapshots.detach_snapshot(VM)
        assert mapper.removed == [f"banger-{VM}", f"banger-{VM}-base"]
        snapshots.detach_snapshot(VM)
        snapshots.detach_snapshot(OTHER)
        assert (mapper.devices, pauses) == ({}, [])

    def test_it_waits_for_who_has_it_open(self, mapper: Mapper, monkeypatch: pytest.MonkeyPatch) -> None:
        mapper.open[f"BANGER-{VM}"] = 3

        def let_go(_: float) -> None:
            mapper.open[f"BANGER-{VM}"] -= 1

        monkeypatch.setattr(snapshots.time, "sleep", let_go)
        snapshots.detach_snapshot(VM)
        assert mapper.devices == {}

    def test_what_stays_in_use_stays_whole(self, mapper: Mapper, pauses: list[float]) -> None:
        mapper.open[f"BANGER-{VM}"] = 1
        with pytest.raises(Refusal, match="is in use") as refusal:
            snapshots.detach_snapshot(VM)
        assert refusal.value.code == "conflict"
        assert len(mapper.devices) == 2
        assert pauses == sorted(pauses)
        assert 4 < sum(pauses) < 6

    def test_a_lone_base_goes(self, mapper: Mapper) -> None:
        mapper.remove(f"BANGER-{VM}")
        assert snapshots.find_snapshot_device(VM) is None
        snapshots.detach_snapshot(VM)
        assert mapper.devices == {}

    def test_only_what_nobody_has_open_is_abandoned(
        self, mapper: Mapper, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mapper.open[f"BANGER-{VM}"] = 1
        snapshots.detach_abandoned()
        assert len(mapper.devices) == 2
        mapper.open.clear()
        snapshots.detach_abandoned()
        assert (mapper.devices, pauses) == ({}, [])

    def test_an_abandoned_one_that_is_opened_meanwhile_is_left(
        self, mapper: Mapper, pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def busy(_: str) -> bool:
            raise OSError(errno.EBUSY, "busy")

        monkeypatch.setattr(mapper, "remove", busy)
        snapshots.detach_abandoned()
        assert (len(mapper.devices), pauses) == (2, [])

    def test_its_device_is_found(self, mapper: Mapper) -> None:
        assert snapshots.find_snapshot_device(VM) == (253, 0)
        assert snapshots.find_snapshot_device(OTHER) is None


class TestList:
    def test_ours_alone(self, mapper: Mapper, loops: Loops, files: Files) -> None:
        files.attach()
        mapper.create("banger-nothing", "LVM-1")
        mapper.create(f"banger-{OTHER}", "LVM-2")
        mapper.create("vg-root", "LVM-3")
        mapper.status[f"BANGER-{VM}"] = "16/2048 16"
        mapper.open[f"BANGER-{VM}-base"] = 1
        assert snapshots.list_snapshots() == (
            Snapshot(vm=VM, state=ACTIVE, used_bytes=8192, size_bytes=IMAGE_BYTES, in_use=False),
        )

    def test_nothing_is_loaded_to_find_that_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise AssertionError("the control node loads the module")

        monkeypatch.setattr(snapshots, "is_loaded", lambda: False)
        monkeypatch.setattr(snapshots, "open_mapper", fail)
        assert snapshots.list_snapshots() == ()
        assert snapshots.find_snapshot_device(VM) is None
        snapshots.detach_snapshot(VM)
        snapshots.detach_abandoned()

    @pytest.mark.parametrize(
        ("status", "state", "used_bytes", "size_bytes"),
        [
            ("16/2048 16", ACTIVE, 8192, IMAGE_BYTES),
            ("2048/2048 24", ACTIVE, IMAGE_BYTES, IMAGE_BYTES),
            ("Invalid", FULL, 0, 0),
            ("Overflow", FULL, 0, 0),
            ("Unknown", ACTIVE, 0, 0),
        ],
    )
    def test_the_kernels_words(self, status: str, state: str, used_bytes: int, size_bytes: int) -> None:
        disk = Device(253, 1, 1, 0, (Target(0, 4096, "snapshot", status),))
        expected = Snapshot(vm=VM, state=state, used_bytes=used_bytes, size_bytes=size_bytes, in_use=True)
        assert describe_snapshot(VM, disk, None) == expected

    def test_half_made_pairs(self) -> None:
        half = Snapshot(vm=VM, state=ACTIVE, used_bytes=0, size_bytes=0, in_use=False)
        base = Device(253, 0, 0, 0, (Target(0, 2048, "linear", ""),))
        assert describe_snapshot(VM, None, base) == half
        assert describe_snapshot(VM, Device(253, 1, 0, 0, ()), base._replace(open_count=1)) == half
        assert describe_snapshot(VM, None, None) is None


class TestLayers:
    def test_an_empty_one_is_new(self) -> None:
        verify_layer(VM, bytes(16))

    def test_one_used_before(self) -> None:
        verify_layer(VM, LAYER.pack(0x70416E53, 1, 1, 8))

    def test_one_that_has_been_full(self) -> None:
        with pytest.raises(Refusal, match=f"VM {VM} is lost") as refusal:
            verify_layer(VM, LAYER.pack(0x70416E53, 0, 1, 8))
        assert refusal.value.code == "operation_failed"

    @pytest.mark.parametrize(
        "begin",
        [
            (1, 1, 1, 8),
            (0x70416E53, 1, 2, 8),
            (0x70416E53, 1, 1, 1 << 21),  # for which the kernel would take 3 GiB of its memory
            (0x70416E53, 1, 1, 0),
        ],
    )
    def test_one_that_the_kernel_is_not_to_read(self, begin: tuple[int, ...]) -> None:
        with pytest.raises(Refusal, match="neither empty nor a layer"):
            verify_layer(VM, LAYER.pack(*begin))


def test_a_disk_as_large_as_its_image_has_no_zeroes_behind() -> None:
    assert plan_base(IMAGE_BYTES, IMAGE_BYTES) == 2048
    assert render_base(2048, IMAGE_BYTES, "7:0") == (Target(0, 2048, "linear", "7:0 0"),)
    assert render_snapshot(IMAGE_BYTES, "253:0", "7:1") == (Target(0, 2048, "snapshot", "253:0 7:1 P 8"),)


class TestFake:
    """It refuses what the helper refuses, in the same words."""

    @pytest.fixture
    def fake(self) -> FakePrivileged:
        return FakePrivileged()

    async def attach(self, fake: FakePrivileged, files: Files, size_bytes: int = DISK_BYTES) -> None:
        with files.image.open("rb") as image, files.layer.open("r+b") as layer:
            request = AttachSnapshot(vm=VM, size_bytes=size_bytes)
            await fake.call(request, (image.fileno(), layer.fileno()))

    async def list(self, fake: FakePrivileged) -> tuple[Snapshot, ...]:
        return (await fake.call(ListSnapshots())).result.snapshots

    async def test_attached_listed_and_detached(self, fake: FakePrivileged, files: Files) -> None:
        assert (await fake.call(InspectMachines())).result.snapshot_reason == ""
        await self.attach(fake, files)
        expected = Snapshot(vm=VM, state=ACTIVE, used_bytes=8192, size_bytes=IMAGE_BYTES, in_use=False)
        assert await self.list(fake) == (expected,)
        await fake.call(DetachSnapshot(vm=VM))
        await fake.call(DetachSnapshot(vm=VM))
        assert await self.list(fake) == ()

    async def test_a_name_that_is_taken_and_a_size_that_does_not_fit(
        self, fake: FakePrivileged, files: Files
    ) -> None:
        with pytest.raises(Problem, match="smaller than its image"):
            await self.attach(fake, files, IMAGE_BYTES - 512)
        await self.attach(fake, files)
        with pytest.raises(Problem, match="is there already") as problem:
            await self.attach(fake, files)
        assert problem.value.code is Code.CONFLICT

    async def test_one_in_use_stays(self, fake: FakePrivileged, files: Files) -> None:
        await self.attach(fake, files)
        fake.snapshots.attached[VM].in_use = True
        with pytest.raises(Problem, match="is in use"):
            await fake.call(DetachSnapshot(vm=VM))
        assert len(await self.list(fake)) == 1

    async def test_one_that_has_been_full_is_lost_for_good(self, fake: FakePrivileged, files: Files) -> None:
        await self.attach(fake, files)
        fake.snapshots.fill(VM)
        (listed,) = await self.list(fake)
        assert (listed.state, listed.used_bytes, listed.size_bytes) == (FULL, 0, 0)
        await fake.call(DetachSnapshot(vm=VM))
        with pytest.raises(Problem, match="was full") as problem:
            await self.attach(fake, files)
        assert problem.value.code is Code.OPERATION_FAILED
        assert await self.list(fake) == ()


class TestSupport:
    def test_all_parts_are_asked_for(self, mapper: Mapper, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(snapshots, "verify_loops", lambda: None)
        assert machine_support.find_obstacle(snapshots.verify_snapshots) == ("", "")
        mapper.missing.add("zero")
        reason, hint = machine_support.find_obstacle(snapshots.verify_snapshots)
        assert ("no zero target" in reason, hint) == (True, "sudo modprobe dm_zero")

    def test_root_that_may_not_use_it(self, mapper: Mapper, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(mapper, "get_version", fail)
        reason, hint = machine_support.find_obstacle(snapshots.verify_snapshots)
        assert ("may not use /dev/mapper/control" in reason, hint) == (True, "sudo banger system install")

    def test_an_error_of_the_kernels_is_a_reason(self) -> None:
        def fail() -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        reason, hint = machine_support.find_obstacle(fail)
        assert ("Permission denied" in reason, hint) == (True, "banger doctor")
