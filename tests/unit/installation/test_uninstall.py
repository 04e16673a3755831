"""Uninstalling: what was laid down goes, what is the administrator's or the owner's stays, unless purged."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.unit.installation.conftest import OWNER_UID

from banger.client.wire import Failure
from banger.installation import places
from banger.installation.install import Wishes, install
from banger.installation.owner import get_user
from banger.installation.tree import Tree
from banger.installation.uninstall import list_doomed, uninstall
from banger.privileged.contract.machines import Jail, Jails, Snapshot, Snapshots

VM = "0123456789ab"


@pytest.fixture
def installed(host, snapshot):
    """(the host, what was there before)"""
    before = snapshot()
    install(host, Wishes(owner="alice", forwarding=False), lambda text: None)
    return host, before


@pytest.fixture
def said():
    return []


@pytest.fixture
def vms(home):
    """The owner's state, data and cache, with a link that leads out of them."""
    (home / "kept").write_text("precious")
    for name in (".local/state/banger/vms/0123456789ab", ".local/share/banger/images", ".cache/banger"):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_bytes(b"x" * 10000)
    (home / ".local/state/banger/link").symlink_to(home)
    if os.getuid() == 0:
        subprocess.run(["chown", "-Rh", str(OWNER_UID), str(home)], check=True)
    return home


def clean(found):
    """Directories that others may use, too, are not ours to remove."""
    shared = {
        "etc",
        "etc/modules-load.d",
        "etc/udev",
        "etc/udev/rules.d",
        "etc/systemd",
        "etc/systemd/system",
        "usr/local",
        "usr/local/lib",
    }
    return {path: content for path, content in found.items() if path not in shared}


def test_everything_that_was_laid_down_goes(installed, snapshot, said):
    host, before = installed
    uninstall(host, said.append, with_vms=False)
    assert clean(snapshot()) == clean(before)
    assert said[-1] == "banger is no longer installed for the system"
    with pytest.raises(Failure, match="not installed") as caught:
        uninstall(host, said.append, with_vms=False)
    assert caught.value.code == "not_found"


def test_a_changed_file_of_ours_goes_and_a_changed_configuration_stays(installed, snapshot, said):
    host, before = installed
    Path(host.at(places.HELPER)).write_text("changed")
    Path(host.at(places.CONFIG)).write_text("changed")
    uninstall(host, said.append, with_vms=False)
    left = {path: content for path, content in clean(snapshot()).items() if path not in before}
    assert left == {"etc/banger": None, "etc/banger/config.toml": b"changed"}
    assert any("kept" in line and "--purge" in line for line in said)


def test_other_peoples_files_in_our_directories_stay(installed, snapshot, said):
    host, before = installed
    Path(host.at("/etc/banger/notes")).write_text("an administrator's")
    Path(host.at("/usr/local/lib/banger/tool")).write_text("an administrator's")
    uninstall(host, said.append, with_vms=False)
    left = {path for path in clean(snapshot()) if path not in before}
    assert left == {
        "etc/banger", "etc/banger/notes", "usr/local/lib/banger", "usr/local/lib/banger/tool"
    }  # fmt: skip


def test_a_record_that_lists_other_files_does_not_get_them_removed(installed, said):
    host, _ = installed
    victim = Path(host.at("/etc/passwd"))
    victim.write_text("root:x:0:0::/root:/bin/sh\n")
    record = Path(host.at(places.RECORD))
    record.write_text(record.read_text().replace(places.HELPER, "/etc/passwd"))
    uninstall(host, said.append, with_vms=False)
    assert victim.exists()


def test_the_owners_vms_stay(installed, vms, said):
    host, _ = installed
    uninstall(host, said.append, with_vms=False)
    assert len(list(vms.rglob("file"))) == 3


def test_a_purge_lists_and_removes_them_and_follows_no_link(installed, vms, said):
    host, _ = installed
    owner, doomed = list_doomed(host)
    assert owner.name == "alice"
    assert [each.path for each in doomed] == [owner.state, owner.data, owner.cache]
    assert all(each.size_bytes >= 10000 for each in doomed)
    Path(host.at(places.CONFIG)).write_text("changed")
    uninstall(host, said.append, with_vms=True)
    assert list(vms.rglob("file")) == []
    assert (vms / "kept").read_text() == "precious"
    assert not Path(host.at("/etc/banger")).exists()


def test_a_purge_of_nothing_is_no_error(installed, said):
    host, _ = installed
    assert list_doomed(host)[1] == []
    uninstall(host, said.append, with_vms=True)


def test_a_state_directory_that_is_a_link_is_not_followed(installed, home, root, said):
    host, _ = installed
    (root / "elsewhere").mkdir()
    (root / "elsewhere/file").touch()
    (home / ".cache").mkdir()
    (home / ".cache/banger").symlink_to(root / "elsewhere")
    with pytest.raises(Failure, match="could not be removed") as caught:
        uninstall(host, said.append, with_vms=True)
    assert "symbolic link" in caught.value.detail
    assert (root / "elsewhere/file").exists()
    (home / ".cache/banger").unlink()
    uninstall(host, said.append, with_vms=True)  # the record was kept, so that it can be repeated


def test_refused_while_the_daemon_says_that_vms_run(installed, listen, snapshot, said):
    host, _ = installed
    listen.daemon(running=1)
    before = snapshot()
    for act in (lambda: uninstall(host, said.append, with_vms=False), lambda: list_doomed(host)):
        with pytest.raises(Failure, match="1 of alice's VMs runs") as caught:
            act()
        assert "banger vm stop" in caught.value.hint
    assert snapshot() == before


def test_refused_while_a_vmm_of_a_dead_daemon_runs(installed, said):
    host, _ = installed
    owner = get_user(OWNER_UID)
    vmm = subprocess.Popen(
        ["/bin/sh", "-c", "echo; read line", f"{owner.state}/vms/0123456789ab/root.qcow2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **owner.credentials,
    )
    try:
        vmm.stdout.readline()
        with pytest.raises(Failure, match="VMs runs"):
            uninstall(host, said.append, with_vms=False)
    finally:
        vmm.communicate(b"\n")
    uninstall(host, said.append, with_vms=False)


def test_refused_while_somebody_lives_in_a_jail(installed, snapshot, said):
    """Its uid is its own, and the daemon that could tell of it is gone."""
    host, _ = installed
    group = Path(host.at(places.CGROUPS), "0123456789ab")
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("4711\n")
    before = snapshot()
    with pytest.raises(Failure, match="1 of alice's VMs runs"):
        uninstall(host, said.append, with_vms=True)
    assert snapshot() == before
    (group / "cgroup.procs").write_text("")
    uninstall(host, said.append, with_vms=True)


def test_what_a_jailed_vm_has_left_goes_and_firecracker_with_a_purge(installed, said):
    host, _ = installed
    jail = Path(host.at(places.HELPER_STATE), "jails/firecracker/0123456789ab/root")
    jail.mkdir(parents=True)
    (jail / "link").symlink_to(host.at("/etc"))
    Path(host.at(places.CGROUPS)).mkdir(parents=True)
    program = Path(host.at(places.FIRECRACKER), "1.12.1/firecracker")
    program.parent.mkdir(parents=True)
    program.touch()
    uninstall(host, said.append, with_vms=False)
    assert not Path(host.at(places.HELPER_STATE)).exists()
    assert not Path(host.at(places.CGROUPS)).exists()
    assert Path(host.at("/etc/systemd")).is_dir()
    assert program.exists()
    install(host, Wishes(owner="alice"), lambda text: None)
    uninstall(host, said.append, with_vms=True)
    assert not Path(host.at(places.HELPER_DIRECTORY)).exists()
    assert f"removed   {places.FIRECRACKER}" in said


def test_the_helpers_last_work_are_jails_and_disks(systemctl, listen, said):
    host = systemctl()
    listen.daemon()
    answers = {
        "list_jails": Jails(jails=(Jail(vm=VM, pid=0, start_time=0, uid=1),)),
        "list_snapshots": Snapshots(
            snapshots=(Snapshot(vm=VM, state="active", used_bytes=1, size_bytes=2, in_use=False),)
        ),
    }
    helper = listen.helper(answers=answers)
    install(host, Wishes(owner="alice"), lambda text: None)
    helper.asked.clear()
    uninstall(host, said.append, with_vms=False)
    assert [(request.method, getattr(request, "vm", "")) for request in helper.asked] == [
        ("list_jails", ""),
        ("remove_jail", VM),
        ("list_snapshots", ""),
        ("detach_snapshot", VM),
    ]


def test_sockets_and_locks_go(installed, said):
    host, _ = installed
    runtime = Path(host.at(places.RUNTIME))
    for name in ("daemon.lock", "vms/0123456789ab/agent.sock"):
        (runtime / name).parent.mkdir(parents=True, exist_ok=True)
        (runtime / name).touch()
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", str(OWNER_UID), str(runtime)], check=True)
    Path(host.at(places.HELPER_RUNTIME)).mkdir()
    Path(host.at(places.HELPER_LOG)).touch()
    uninstall(host, said.append, with_vms=False)
    assert not runtime.exists()
    assert not Path(host.at(places.HELPER_RUNTIME)).exists()


def test_systemd_lets_go_of_the_daemon_then_the_bridge_then_the_helper(systemctl, listen, said):
    host = systemctl()
    listen.daemon()
    helper = listen.helper()
    install(host, Wishes(owner="alice"), lambda text: None)
    for name in ("br-banger", "br-bangerx", "br0", "eth0"):
        Path(host.at(places.INTERFACES), name).mkdir(parents=True)
    count = len(systemctl.calls())
    uninstall(host, said.append, with_vms=False)
    assert [call for call in systemctl.calls()[count:] if "disable" in call] == [
        "disable --now banger.service",
        "disable --now banger-root.service",
    ]
    assert systemctl.calls()[-2:] == ["daemon-reload", "reset-failed banger-root.service banger.service"]
    assert [request.bridge for request in helper.asked if request.method == "remove_bridge"] == [
        "br-banger",
        "br-bangerx",
    ]


def test_forwarding_stays_on_and_that_is_said(host, said):
    install(host, Wishes(owner="alice"), lambda text: None)
    uninstall(host, said.append, with_vms=False)
    assert any("sudo sysctl -w net.ipv4.ip_forward=0" in line for line in said)
    assert Path(host.at(places.FORWARDING_SWITCH)).read_text() == "1\n"


def test_it_needs_root(installed, said):
    host, _ = installed
    with pytest.raises(Failure, match="system uninstall needs root"):
        uninstall(host._replace(root_uid=os.getuid() + 1), said.append, with_vms=False)


def test_an_owner_whose_account_has_gone_is_no_obstacle(installed, monkeypatch, said):
    import pwd

    def gone(key):
        raise KeyError(key)

    host, _ = installed
    monkeypatch.setattr(pwd, "getpwuid", gone)
    uninstall(host, said.append, with_vms=False)
    assert not Path(host.at(places.HELPER)).exists()


class Killed(BaseException):
    """As SIGKILL."""


@pytest.mark.parametrize("step", range(8))
def test_one_that_was_killed_can_be_repeated(installed, snapshot, monkeypatch, said, step):
    host, before = installed
    left = [step]
    remove = Tree.remove

    def maybe(tree, path):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return remove(tree, path)

    monkeypatch.setattr(Tree, "remove", maybe)
    if step < 7:  # six files and the record
        with pytest.raises(Killed):
            uninstall(host, said.append, with_vms=False)
        monkeypatch.setattr(Tree, "remove", remove)
    uninstall(host, said.append, with_vms=False)
    assert clean(snapshot()) == clean(before)
