"""On files that look like the kernel's. What the kernel does with them is for the lab."""

import os
import stat
import time
from pathlib import Path

import pytest

from banger.privileged.contract.values import Refusal
from banger.privileged.helper import cgroups as cgroups_module
from banger.privileged.helper.cgroups import Cgroups, find_vm_of

VM = "0123456789ab"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.procs").write_text("1\n2\n")
    return tmp_path


@pytest.fixture
def cgroups(root: Path) -> Cgroups:
    return Cgroups(str(root))


def add_vm(root: Path, processes: str = "", populated: int = 0) -> Path:
    vm = root / "banger" / VM
    vm.mkdir(parents=True)
    (vm / "cgroup.procs").write_text(processes)
    (vm / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    (vm / "cgroup.kill").touch()
    return vm


def why(cgroups: Cgroups) -> tuple[str, str]:
    obstacle = cgroups.find_obstacle()
    assert obstacle is not None
    assert obstacle.code == "unavailable"
    return obstacle.message, obstacle.hint


class TestObstacles:
    def test_a_host_with_what_it_takes_has_none(self, cgroups: Cgroups) -> None:
        assert cgroups.find_obstacle() is None

    def test_version_one(self, tmp_path: Path) -> None:
        (tmp_path / "memory").mkdir()
        message, hint = why(Cgroups(str(tmp_path)))
        assert message == "this host has cgroups of version 1 only"
        assert "systemd.unified_cgroup_hierarchy=1" in hint
        assert "jailer_enabled = false" in hint

    @pytest.mark.parametrize("name", ["", "missing"])
    def test_none_at_all(self, tmp_path: Path, name: str) -> None:
        assert "has no cgroups at" in why(Cgroups(str(tmp_path / name)))[0]

    def test_a_controller_that_is_missing_is_named(self, root: Path, cgroups: Cgroups) -> None:
        (root / "cgroup.controllers").write_text("cpu memory\n")
        assert "no controller for pids" in why(cgroups)[0]

    def test_a_container_whose_processes_are_in_the_root_of_its_tree(
        self, root: Path, cgroups: Cgroups
    ) -> None:
        (root / "cgroup.subtree_control").write_text("\n")
        assert cgroups.find_obstacle() is None  # the host's own root may have processes
        (root / "cgroup.type").write_text("domain\n")
        message, hint = why(cgroups)
        assert "as in a container" in message
        assert "jailer_enabled = false" in hint
        with pytest.raises(Refusal, match="as in a container"):
            cgroups.prepare(VM)
        assert not (root / "banger").exists()


def test_limits_are_for_jailer_to_write(cgroups: Cgroups) -> None:
    assert cgroups.render_arguments(2048) == (
        *("--cgroup-version", "2", "--parent-cgroup", "banger"),
        *("--cgroup", f"memory.max={2176 * 1024 * 1024}", "--cgroup", "pids.max=64"),
    )


def test_the_parents_get_the_controllers_that_they_lack(root: Path, cgroups: Cgroups) -> None:
    (root / "cgroup.subtree_control").write_text("cpu pids\n")
    (root / "banger").mkdir()
    (root / "banger" / "cgroup.subtree_control").write_text("memory pids\n")
    cgroups.prepare(VM)
    assert (root / "cgroup.subtree_control").read_text().startswith("+memory")
    assert (root / "banger" / "cgroup.subtree_control").read_text() == "memory pids\n"
    assert (root / "banger" / VM).is_dir()
    cgroups.prepare(VM)  # as after a helper that was killed


def test_who_is_in_it(root: Path, cgroups: Cgroups) -> None:
    assert cgroups.find_processes(VM) == []
    assert cgroups.list_vms() == set()
    add_vm(root, "17\n42\n")
    (root / "banger" / "other").mkdir()
    assert cgroups.find_processes(VM) == [17, 42]
    assert cgroups.list_vms() == {VM}


@pytest.mark.parametrize(
    ("line", "vm"),
    [
        (f"0::/banger/{VM}", VM),
        (f"0::/banger/{VM}/inner", None),
        (f"0::/user.slice/user-1000.slice/banger/{VM}", None),
        (f"5:memory:/banger/{VM}", None),
        ("0::/banger/another", None),
        ("0::/", None),
    ],
)
def test_whose_cgroup_a_process_is_in(monkeypatch: pytest.MonkeyPatch, line: str, vm: str | None) -> None:
    monkeypatch.setattr(cgroups_module, "read_below", lambda *_: f"9:cpu:/\n{line}\n")
    assert find_vm_of(4711) == vm


def test_killing_nobody_writes_nothing(root: Path, cgroups: Cgroups) -> None:
    assert cgroups.kill(VM, time.monotonic())
    vm = add_vm(root)
    assert cgroups.kill(VM, time.monotonic())
    assert (vm / "cgroup.kill").read_text() == ""


def test_all_are_killed_at_once_and_waited_for(root: Path, cgroups: Cgroups) -> None:
    vm = add_vm(root, "17\n", populated=0)
    assert cgroups.kill(VM, time.monotonic() + 5)
    assert (vm / "cgroup.kill").read_text() == "1"


def test_those_that_do_not_end_are_told(root: Path, cgroups: Cgroups) -> None:
    add_vm(root, "17\n", populated=1)
    assert not cgroups.kill(VM, time.monotonic() + 0.05)


def test_a_kernel_that_cannot_kill_a_cgroup_kills_each(root: Path, cgroups: Cgroups) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    vm = add_vm(root, f"{pid}\n")
    (vm / "cgroup.kill").unlink()
    assert cgroups.kill(VM, time.monotonic() + 5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9


def test_the_parent_goes_with_its_last_vm(root: Path, cgroups: Cgroups) -> None:
    cgroups.remove(VM)
    (root / "banger" / VM).mkdir(parents=True)
    (root / "banger" / "ba9876543210").mkdir()
    cgroups.remove(VM)
    assert os.listdir(root / "banger") == ["ba9876543210"]
    cgroups.remove("ba9876543210")
    assert not (root / "banger").exists()


def test_a_link_in_the_place_of_a_cgroup_is_not_followed(
    root: Path, cgroups: Cgroups, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / VM).mkdir()
    (root / "banger").symlink_to(elsewhere)
    with pytest.raises(OSError):
        cgroups.remove(VM)
    assert (elsewhere / VM).is_dir()


def test_the_owner_may_read_what_a_vmm_uses_whatever_the_umask(root: Path, cgroups: Cgroups) -> None:
    (root / "banger").mkdir(mode=0o700)  # of a helper of before
    (root / "cgroup.subtree_control").write_text("memory pids\n")
    (root / "banger" / "cgroup.subtree_control").write_text("memory pids\n")
    before = os.umask(0o077)
    try:
        cgroups.prepare(VM)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (root / "banger", root / "banger" / VM)]
    assert modes == [0o755, 0o755]
