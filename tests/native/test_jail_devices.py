"""Names of devices in a jail: numbers are used again, and a name must not lead to what comes after its own device."""

import os
import stat
from pathlib import Path

import pytest
from tests.native.test_jail import OTHER, OWNER, VM, bench  # noqa: F401

from banger.privileged.contract.machines import FILE, SNAPSHOT
from banger.privileged.helper import jails
from banger.privileged.helper.loop import attach_loop
from banger.privileged.helper.processes import find_identity


def attach(path: Path):
    file = os.open(path, os.O_RDWR)
    try:
        return attach_loop(file, read_only=False, owner=OWNER)
    finally:
        os.close(file)


def test_a_snapshot_keeps_its_number_until_the_vmm_is_settled(bench, monkeypatch):  # noqa: F811
    """Detached before that by its owner, it would leave the VMM a name of whatever is made next. A loop device stands
    in for it."""
    device = attach(bench.disk)
    monkeypatch.setattr(jails, "find_snapshot_device", lambda _: (device.major, device.minor))
    launched, sockets = bench.launch(disks=(SNAPSHOT,))
    os.close(device.descriptor)
    bench.wait_api(sockets).close()
    assert len(bench.loops()) == 1
    bench.keeper.settle(VM, "")
    assert bench.wait_loops() == []
    assert find_identity(launched.pid).alive
    bench.keeper.remove(VM)


def test_a_snapshot_is_let_go_when_its_vmm_has_died(bench, monkeypatch):  # noqa: F811
    device = attach(bench.disk)
    monkeypatch.setattr(jails, "find_snapshot_device", lambda _: (device.major, device.minor))
    launched, _ = bench.launch(disks=(SNAPSHOT,))
    os.close(device.descriptor)
    os.kill(launched.pid, 9)
    bench.wait_gone(launched.pid)
    bench.keeper.reap()
    assert bench.wait_loops() == []
    bench.keeper.remove(VM)


def test_another_name_that_a_vmm_has_made_leads_nowhere_once_it_is_settled(bench):  # noqa: F811
    _, sockets = bench.launch(disks=(FILE,))
    api = bench.wait_api(sockets)
    name = bench.root() / "s" / "kept"
    os.link(bench.root() / "disk0", name)
    before = name.stat()
    bench.keeper.settle(VM, "")
    assert (name.stat().st_uid, stat.S_IMODE(name.stat().st_mode)) == (0, 0)
    assert bench.wait_loops() == []
    foreign = bench.directory / "foreign"
    foreign.write_bytes(b"of somebody else".ljust(1 << 20, b"\0"))
    os.chown(foreign, OWNER, OWNER)
    device = attach(foreign)
    try:
        assert (device.major, device.minor) == (os.major(before.st_rdev), os.minor(before.st_rdev))
        drive = {"is_root_device": False, "is_read_only": False}
        with pytest.raises(AssertionError, match="Permission denied"):
            api.put("/drives/kept", drive_id="kept", path_on_host="s/kept", **drive)
    finally:
        os.close(device.descriptor)
        api.close()
    bench.keeper.remove(VM)


def test_a_helper_that_ends_in_the_middle_leaves_no_name_that_leads_anywhere(bench):  # noqa: F811
    launched, sockets = bench.launch(disks=(FILE,))
    bench.wait_api(sockets).close()
    bench.keeper.close()
    node = (bench.root() / "disk0").stat()
    assert (node.st_uid, stat.S_IMODE(node.st_mode)) == (0, 0)
    bench.new_keeper().remove(VM)
    os.waitpid(launched.pid, 0)


def test_a_vmm_that_was_not_settled_does_not_outlive_its_helper_for_long(bench):  # noqa: F811
    unsettled, sockets = bench.launch(disks=(FILE,))
    settled, others = bench.launch(OTHER, disks=(FILE,))
    for each in (sockets, others):
        bench.wait_api(each).close()
    bench.keeper.settle(OTHER, "")
    bench.keeper.close()
    bench.keeper = bench.new_keeper()
    bench.keeper.end_unsettled()
    os.waitpid(unsettled.pid, 0)
    assert [(jail.vm, jail.pid) for jail in bench.keeper.list()] == [(VM, 0), (OTHER, settled.pid)]
    for vm in (VM, OTHER):
        bench.keeper.remove(vm)
    os.waitpid(settled.pid, 0)
