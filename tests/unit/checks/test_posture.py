"""What the doctor says of files, records, rows and the clock: who may change them, and whether they are true."""

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

import banger
from banger.api.system import DoctorRun
from banger.base.clock import host_now
from banger.base.problem import unavailable
from banger.model.config import Config
from banger.model.storage import StorageDriver
from banger.model.vm import Hold, VmRecord, VmRuntime, VmSpec, VmState
from banger.privileged.contract.base import Reply
from banger.privileged.contract.machines import Jail, Jails, Snapshot, Snapshots
from banger.privileged.contract.processes import Greeting
from banger.services.checks import (
    clock,
    configuration,
    daemon,
    database,
    disk_space,
    installation,
    leftovers,
    material,
    memory,
    own_posture,
    root_programs,
    service,
    stored_files,
    vms,
)
from banger.store.sqlite import open_store

GIB = 2**30


def make_vm(vm_id="0123456789ab", name="web", **changes):
    spec = VmSpec(
        image="i", kernel="k", vcpus=1, memory_mib=512, disk_size_bytes=GIB, system_overlay_size_bytes=GIB
    )
    at = "2026-01-01T00:00:00.000Z"
    values = {"state": VmState.STOPPED, "created_at": at, "updated_at": at, "last_touched_at": at, **changes}
    return VmRecord(id=vm_id, name=name, spec=spec, **values)


def make_runtime(pid, start_time=1, tap=""):
    return VmRuntime(
        backend="fake", pid=pid, start_time=start_time, agent_socket="", control_socket="", accelerator="tcg", tap=tap
    )  # fmt: skip


def with_rows(around, *rows):
    return around._replace(list_rows=lambda: list(rows))


# the service


async def test_a_check_that_hangs_is_a_finding_after_its_deadline(around, monkeypatch):
    async def hang(_):
        await asyncio.Event().wait()

    monkeypatch.setitem(service.CHECKS, "memory", hang)
    findings = (await service.CheckService(around, deadline_s=0.05).run(DoctorRun())).findings
    found = {each.check: each for each in findings}
    assert (found["memory"].verdict, found["memory"].text) == ("fail", "no answer within 0.05 s")
    assert len(findings) == len(service.CHECKS)


async def test_a_check_with_a_bug_is_a_finding(around, monkeypatch):
    async def broken(_):
        raise KeyError("x")

    monkeypatch.setitem(service.CHECKS, "names", broken)
    findings = (await service.CheckService(around).run(DoctorRun())).findings
    assert next(each for each in findings if each.check == "names").verdict == "fail"


# daemon, installation


async def test_a_daemon_that_runs_says_which_it_is_and_one_that_does_not_that_it_will(around):
    assert str(os.getpid()) in (await daemon.check(around)).text
    finding = await daemon.check(around._replace(serving_since=None))
    assert (finding.verdict, finding.text) == ("pass", "does not run; it starts when a command needs it")


class Helper:
    kind = "helper"

    def __init__(self, build):
        self.build = build

    async def call(self, request, descriptors=()):
        return Reply(Greeting(version=1, build=self.build, pid=1, owner=os.getuid()))


@pytest.fixture
def installed(around):
    """The system's own, without systemd."""
    around.root_program.write_bytes(b"program")
    digest = hashlib.sha256(b"program").hexdigest()

    def write(**changes):
        record = {
            "format": 1,
            "version": banger.__version__,
            "owner": "alice",
            "uid": os.getuid(),
            "installed_at": "2026-01-01T00:00:00Z",
            "finished": True,
            "files": [{"path": str(around.root_program), "digest": digest, "mode": 493}],
            "forwarding_before": "0",
        }
        around.places.install_record.write_text(json.dumps(record | changes))
        return around._replace(privileged=Helper(digest[:16]))

    return write


async def test_an_installation_of_this_version_that_runs_what_it_has_laid_down_passes(installed):
    finding = await installation.check(installed())
    assert (finding.verdict, "for alice; without systemd" in finding.text) == ("pass", True)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"finished": False}, "fail", "not finished"),
        ({"version": "0.0.1"}, "warn", "of version 0.0.1"),
        ({"files": []}, "fail", "is not what was installed"),
        ({"uid": 4242}, "pass", "and not for you"),
    ],
)
async def test_an_installation_that_is_not_whole_is_told(installed, changes, verdict, words):
    finding = await installation.check(installed(**changes))
    assert (finding.verdict, words in finding.text) == (verdict, True), finding
    if verdict != "pass":
        assert finding.fix == "sudo banger system install"


async def test_a_helper_that_runs_other_code_is_told(installed):
    finding = await installation.check(installed()._replace(privileged=Helper("other")))
    assert (finding.verdict, finding.fix) == ("warn", "sudo banger system restart")


async def test_a_daemon_of_the_systems_that_is_down_fails_with_what_starts_it(installed):
    around = installed()._replace(serving_since=None)
    assert (await daemon.check(around)).fix == "sudo banger system restart"
    around.places.systemd.mkdir()
    finding = await daemon.check(around)
    assert (finding.verdict, finding.fix) == ("fail", "sudo systemctl start banger")


# configuration


async def test_a_key_that_nobody_knows_is_told_with_file_and_line(around):
    file = Path(around.paths.config_file)
    file.write_text('network = "user"\nmemroy = 3\n')
    findings = (await service.CheckService(around).run(DoctorRun())).findings
    finding = next(each for each in findings if each.check == "configuration")
    assert (finding.verdict, f"{file}:2: memroy" in finding.text) == ("fail", True)


async def test_a_change_that_the_daemon_has_not_read_is_a_warning(around):
    assert (await configuration.check(around)).verdict == "pass"
    Path(around.paths.config_file).write_text('network = "user"\nlog_level = "debug"\n')
    finding = await configuration.check(around)
    assert (finding.verdict, finding.fix) == ("warn", "banger daemon restart")
    assert (await configuration.check(around._replace(serving_since=None))).verdict == "pass"


async def test_a_file_that_another_wins_over_is_told(around, tmp_path):
    other = tmp_path / "home.toml"
    other.touch()
    finding = await configuration.check(around._replace(other_config_files=(other,)))
    assert (finding.verdict, finding.fix) == ("warn", f"mv {other} {other}.unused")


async def test_a_configuration_that_is_gone_means_all_defaults(around):
    Path(around.paths.config_file).unlink()
    assert (await configuration.check(around._replace(config=Config()))).text.startswith("all defaults")


# database


def photograph(directory):
    return {
        path: (entry.st_mode, entry.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
        if (entry := path.lstat()) and not stat.S_ISSOCK(entry.st_mode)
    }


@pytest.mark.parametrize("live", [True, False])
async def test_a_database_is_looked_into_and_not_touched(around, live):
    store = open_store(Path(around.paths.database))
    store.vms.insert(make_vm())
    around = around._replace(serving_since=host_now() if live else None)
    before = photograph(Path(around.paths.state))
    finding = await database.check(around)
    after = photograph(Path(around.paths.state))
    store.close()
    assert (finding.verdict, ", 1 VM, " in finding.text) == ("pass", True)
    shared = Path(around.paths.database + "-shm")  # memory of SQLite's, with the marks of who reads
    before.pop(shared), after.pop(shared)
    assert after == before


async def test_a_crashed_daemons_database_is_read_with_what_is_in_its_log(around, tmp_path):
    store = open_store(Path(around.paths.database))
    store.vms.insert(make_vm())
    crashed = tmp_path / "crashed"
    shutil.copytree(around.paths.state, crashed)
    store.close()
    around = around._replace(paths=around.paths._replace(state=str(crashed)), serving_since=None)
    before = photograph(crashed)
    assert ", 1 VM, " in (await database.check(around)).text
    assert photograph(crashed) == before


async def find_database(around):
    findings = (await service.CheckService(around).run(DoctorRun())).findings
    return next(each for each in findings if each.check == "database")


async def test_a_database_of_the_future_and_a_damaged_one_fail_and_stay(around):
    around = around._replace(serving_since=None)
    path = Path(around.paths.database)
    open_store(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO migrations (number, name, checksum) VALUES (99, 'x', 'y')")
    content = path.read_bytes()
    finding = await find_database(around)
    assert (finding.verdict, "newer than this banger" in finding.text) == ("fail", True)
    assert path.read_bytes() == content
    path.write_bytes(b"nonsense" * 1000)
    finding = await find_database(around)
    assert (finding.verdict, "damaged" in finding.text) == ("fail", True)


async def test_an_older_database_is_not_migrated(around):
    """The original's doctor did."""
    path = Path(around.paths.database)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE x (y)")
    content = path.read_bytes()
    finding = await database.check(around._replace(serving_since=None))
    assert (finding.verdict, "the next start brings it up to date" in finding.text) == ("pass", True)
    assert path.read_bytes() == content


# clock


async def test_a_clock_before_the_newest_row_is_a_warning(around):
    assert (await clock.check(around)).verdict == "pass"
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    finding = await clock.check(with_rows(around, make_vm(updated_at=later)))
    assert (finding.verdict, "it has gone back" in finding.text) == ("warn", True)


@pytest.mark.parametrize(("hours", "way"), [(2, "back"), (-2, "forward")])
async def test_a_clock_that_was_set_while_the_daemon_runs_is_a_warning(around, hours, way):
    now = host_now()
    then = datetime.now(UTC) + timedelta(hours=hours)
    since = now._replace(at=then.isoformat().replace("+00:00", "Z"))
    finding = await clock.check(around._replace(serving_since=since))
    assert (finding.verdict, f"set {way} by " in finding.text) == ("warn", True)


# room


async def test_room_is_told_in_numbers_with_what_vms_may_still_take(around):
    rows = (make_vm(has_work_disk=True), make_vm("0123456789ac", "db"))
    text = (await disk_space.check(with_rows(around, *rows))).text
    assert text.endswith("; the disks of 2 VMs may still grow by 3 GiB")
    (around.places.processes / "7").mkdir(parents=True)
    pages = 256 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    (around.places.processes / "7" / "statm").write_text(f"999999 {pages} 0 0 0 0 0\n")
    running = make_vm(state=VmState.RUNNING, runtime=make_runtime(7))
    text = (await memory.check(with_rows(around, running, make_vm("0123456789ac")))).text
    assert text.endswith("; 1 running VM may still take 256 MiB")


# VMs


@pytest.fixture
def stocked(around):
    (around.kernels / "k").mkdir(parents=True)
    (around.images / "i@1").mkdir(parents=True)
    place = Path(around.paths.state) / "vms" / make_vm().id
    place.mkdir(parents=True)
    (place / "root.qcow2").touch()
    return around


async def test_vms_that_have_all_they_need_pass(stocked):
    rows = make_vm(prepared=True, image_directory=str(stocked.images / "i@1"))
    assert (await vms.check(with_rows(stocked, rows))).verdict == "pass"


async def test_a_running_vm_without_its_process_fails_although_the_pid_is_somebodys(stocked):
    row = make_vm(state=VmState.RUNNING, runtime=make_runtime(os.getpid()))
    finding = await vms.check(with_rows(stocked, row))
    assert (finding.verdict, finding.fix) == ("fail", "banger daemon reconcile")


async def test_a_kernel_that_is_gone_is_pulled_and_an_image_that_is_gone_leaves_the_work_disk(stocked):
    row = make_vm(
        prepared=True,
        has_work_disk=True,
        image_directory=str(stocked.images / "i@1"),
        root_driver=StorageDriver.SNAPSHOT,
    )
    (stocked.kernels / "k").rmdir()
    finding = await vms.check(with_rows(stocked, row))
    assert (finding.verdict, finding.fix) == ("fail", "banger kernel pull k")
    (stocked.images / "i@1").rmdir()
    finding = await vms.check(with_rows(stocked, row))
    assert f"its root disk stands on {stocked.images / 'i@1'}" in finding.text
    disk = f"{stocked.paths.state}/vms/{row.id}/work.img"
    assert finding.fix == f"cp --sparse=always {disk} web-work.img && banger vm delete web"


async def test_a_vm_with_a_root_disk_of_its_own_needs_its_image_no_more(stocked):
    gone = str(stocked.images / "i@2")
    row = make_vm(prepared=True, image_directory=gone, root_driver=StorageDriver.REFLINK)
    assert (await vms.check(with_rows(stocked, row))).verdict == "pass"


async def test_a_root_disk_that_is_gone_comes_never_back(stocked):
    row = make_vm(prepared=True, state=VmState.ERROR, error={"message": "the disk is missing"})
    row = msgspec.structs.replace(row, root_driver=StorageDriver.REFLINK)
    place = Path(stocked.paths.state) / "vms" / row.id
    (place / "root.qcow2").unlink()
    finding = await vms.check(with_rows(stocked, row))
    assert (finding.verdict, finding.fix) == ("fail", "banger vm delete web")
    assert finding.text == f"web cannot start: its root disk is gone from {place}"


async def test_a_vm_in_error_is_told_with_its_error(stocked):
    row = make_vm(state=VmState.ERROR, error={"message": "the guest has panicked"})
    finding = await vms.check(with_rows(stocked, row))
    assert (finding.verdict, finding.fix) == ("warn", "banger vm start web")
    assert "web: the guest has panicked" in finding.text


# leftovers


class Root:
    kind = "helper"

    async def call(self, request, descriptors=()):
        if request.method == "list_jails":
            jail = Jail(vm="0000000000aa", pid=1, start_time=1, uid=1)
            return Reply(Jails(jails=(jail, Jail(vm="0123456789ab", pid=2, start_time=1, uid=1))))
        snapshot = Snapshot(vm="0000000000bb", state="active", used_bytes=0, size_bytes=0, in_use=False)
        return Reply(Snapshots(snapshots=(snapshot,)))


async def test_what_no_vm_owns_is_listed_and_left_to_reconcile(around):
    row = make_vm(state=VmState.RUNNING, runtime=make_runtime(7, tap="bng-00000001"))
    for parent in (around.paths.state, around.paths.runtime):
        for vm_id in (row.id, "0000000000cc"):
            (Path(parent) / "vms" / vm_id).mkdir(parents=True)
    for tap, flags in (("bng-00000001", "0x1802"), ("bng-00000002", "0x1802"), ("bng-00000003", "0x1002")):
        (around.places.interfaces / tap).mkdir(parents=True)
        (around.places.interfaces / tap / "tun_flags").write_text(flags + "\n")
    for pid, vm_id in (("7", row.id), ("8", "0000000000dd")):
        (around.places.processes / pid).mkdir(parents=True)
        line = f"/usr/bin/qemu-system-x86_64\0-chardev\0path={around.paths.runtime}/vms/{vm_id}/a.sock\0"
        (around.places.processes / pid / "cmdline").write_bytes(line.encode())
    stopped = make_vm("0123456789ac", "db", holds=(Hold(step="network"),))
    finding = await leftovers.check(with_rows(around._replace(privileged=Root()), row, stopped))
    assert (finding.verdict, finding.fix) == ("warn", "banger daemon reconcile")
    for owned in ("bng-00000001", "bng-00000003", row.id, "process 7"):
        assert owned not in finding.text
    for left in (
        "tap bng-00000002",
        "jail 0000000000aa",
        "root disk 0000000000bb",
        "process 8 of VM 0000000000dd",
        "network of db",
    ):
        assert left in finding.text
    assert finding.text.count("/vms/0000000000cc") == 2


async def test_where_everything_is_owned_nothing_is_left_over(around):
    assert (await leftovers.check(around)).verdict == "pass"


# stored files


async def test_damaged_material_fails_with_what_makes_it_anew(around):
    assert (await stored_files.check(around)).verdict == "pass"

    async def damaged():
        return (unavailable("image x is damaged: rootfs.ext4 is gone", hint="banger image build --force x"),)

    finding = await stored_files.check(around._replace(list_damaged=damaged))
    assert (finding.verdict, finding.fix) == ("fail", "banger image build --force x")


# posture


@pytest.mark.parametrize(
    ("name", "mode", "fixed"),
    [
        ("state", 0o755, "0700"),
        ("run", 0o770, "0700"),
        ("config", 0o777, "0755"),
        ("config/config.toml", 0o666, "0644"),
    ],
)
async def test_what_others_may_enter_or_write_fails_with_the_chmod(around, tmp_path, name, mode, fixed):
    assert (await own_posture.check(around)).verdict == "pass"
    (tmp_path / name).chmod(mode)
    finding = await own_posture.check(around)
    assert (finding.verdict, finding.fix) == ("fail", f"chmod {fixed} {tmp_path / name}")


async def test_a_key_that_others_read_fails(around):
    around.owner_key.parent.mkdir()
    around.owner_key.touch(0o644)
    around.owner_key.chmod(0o644)
    assert (await own_posture.check(around)).fix == f"chmod 0600 {around.owner_key}"


async def test_roots_firecracker_belongs_to_root_in_every_part_of_its_path(around):
    assert (await root_programs.check(around)).text.startswith("none")
    program = around.places.firecracker / "1.12.1" / "firecracker"
    program.parent.mkdir(parents=True)
    program.touch()
    program.chmod(0o755)
    finding = await root_programs.check(around)
    assert (finding.verdict, "1.12.1" in finding.text) == ("pass", True)
    program.parent.chmod(0o757)
    finding = await root_programs.check(around)
    assert (finding.verdict, finding.fix) == ("fail", f"sudo chmod o-w {program.parent}")


async def test_all_checks_together_change_nothing_of_state_and_rows(around, tmp_path):
    store = open_store(Path(around.paths.database))
    store.vms.insert(make_vm(prepared=True))
    store.close()
    around = around._replace(serving_since=None, list_rows=lambda: [make_vm(prepared=True)])
    before, content = photograph(tmp_path), Path(around.paths.database).read_bytes()
    await service.CheckService(around).run(DoctorRun())
    assert photograph(tmp_path) == before
    assert Path(around.paths.database).read_bytes() == content
    store = open_store(Path(around.paths.database))
    assert msgspec.to_builtins(store.vms.list()) == msgspec.to_builtins([make_vm(prepared=True)])
    store.close()


# what depends on something broken


async def test_what_depends_on_a_configuration_that_nobody_understands_is_not_looked_at(around):
    async def guess():
        raise AssertionError("looked at")

    around = around._replace(config_is_known=False, try_vmm=guess, serving_since=None)
    Path(around.paths.config_file).write_text("netwrok = 1")
    findings = (await service.CheckService(around, {"git": guess}).run(DoctorRun())).findings
    found = {each.check: each for each in findings}
    for name in ("vmm", "firecracker", "storage", "kernel and image", "network", "git"):
        said = (found[name].verdict, found[name].text)
        assert said == ("warn", "not looked at: the configuration cannot be read")
    assert found["configuration"].verdict == "fail"
    assert found["database"].verdict == "pass"


async def test_a_broken_database_fails_once(around):
    path = Path(around.paths.database)
    path.write_bytes(b"nonsense" * 1000)
    path.chmod(0o600)

    def damaged():
        raise unavailable("the database is damaged")

    around = around._replace(list_rows=damaged, serving_since=None)
    findings = (await service.CheckService(around).run(DoctorRun())).findings
    assert [each.check for each in findings if "damaged" in each.text] == ["database"]
    unread = {each.check: each.verdict for each in findings if "the database cannot be read" in each.text}
    assert unread == dict.fromkeys(("clock", "disk space", "memory", "VMs", "leftovers"), "warn")


@pytest.mark.parametrize("noun", ["kernel", "image"])
async def test_a_default_that_nobody_can_make_fails(around, noun):
    config = msgspec.structs.replace(around.config, **{f"default_{noun}": "nonesuch"})
    own = getattr(around, f"{noun}s") / "own"
    own.mkdir(parents=True)
    (own / "manifest.json").touch()
    finding = await material.check(around._replace(config=config))
    assert finding.verdict == "fail"
    assert f'default_{noun} = "nonesuch": no such {noun}; there are debian-' in finding.text
    assert "own" in finding.text.split("there are ")[1].split(", ")
