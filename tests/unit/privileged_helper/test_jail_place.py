import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from banger.privileged.contract.values import Refusal
from banger.privileged.helper import jail_place
from banger.privileged.helper.cgroups import Cgroups
from banger.privileged.helper.jail_place import JailPlace, find_jail_of, jail_obstacle, verify_mount

VM = "0123456789ab"


class TestObstacle:
    @pytest.fixture(autouse=True)
    def host(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """One that has what it takes."""
        monkeypatch.setattr(Cgroups, "find_obstacle", lambda _: None)
        monkeypatch.setattr(jail_place, "BASE", str(tmp_path / "root" / "jails"))
        monkeypatch.setattr(jail_place, "find_vmm_programs", lambda: None)

    def test_there_is_none(self, tmp_path: Path) -> None:
        assert jail_obstacle() == ("", "")
        assert os.listdir(tmp_path) == []

    def test_the_cgroups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Cgroups, "find_obstacle", lambda _: Refusal("unavailable", "why", "how"))
        assert jail_obstacle() == ("why", "how")

    def test_the_programs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise Refusal("unavailable", "none", "sudo banger setup firecracker")

        monkeypatch.setattr(jail_place, "find_vmm_programs", fail)
        assert jail_obstacle() == ("none", "sudo banger setup firecracker")

    def test_an_error_of_the_kernels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise PermissionError(13, "Permission denied", "/x")

        monkeypatch.setattr(jail_place, "find_vmm_programs", fail)
        assert jail_obstacle()[0] == "the root helper may not do this here: /x: Permission denied"

    def test_the_mount(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        flags = SimpleNamespace(f_flag=os.ST_NODEV | os.ST_NOEXEC)
        monkeypatch.setattr(os, "statvfs", lambda _: flags)
        monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path)
        reason, hint = jail_obstacle()
        assert reason == f"{tmp_path} is mounted nodev,noexec: no jail is possible in {tmp_path}/root/jails"
        assert hint == f"sudo mount -o remount,dev,exec {tmp_path}, or set jailer_enabled = false"


def test_a_mount_with_devices_and_programs_is_fine(tmp_path: Path) -> None:
    verify_mount(str(tmp_path / "not" / "there" / "yet"))


@pytest.mark.skipif(os.geteuid() != 0, reason="the place is root's")
class TestPlace:
    @pytest.fixture
    def place(self, tmp_path: Path) -> JailPlace:
        return JailPlace(str(tmp_path / "root" / "jails"))

    def test_nothing_is_there_before_the_first(self, place: JailPlace, tmp_path: Path) -> None:
        assert place.list_vms() == set()
        assert place.remove(VM, 0)
        with pytest.raises(FileNotFoundError):
            place.open_sockets(VM)
        assert os.listdir(tmp_path) == []

    def test_directories_are_roots_alone(self, place: JailPlace, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            with place.create(VM):
                pass
        finally:
            os.umask(before)
        below = tmp_path
        for name in ("root", "jails", "firecracker", VM, "root"):
            below /= name
            assert (below.stat().st_uid, below.stat().st_mode & 0o777) == (0, 0o700)
        assert place.list_vms() == {VM}

    def test_a_place_that_was_open_is_closed(self, place: JailPlace, tmp_path: Path) -> None:
        (tmp_path / "root" / "jails").mkdir(parents=True)
        (tmp_path / "root").chmod(0o755)
        with place.create(VM):
            assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("depth", ["root", "root/jails", "root/jails/firecracker"])
    def test_somebody_elses_place_is_refused(self, place: JailPlace, tmp_path: Path, depth: str) -> None:
        (tmp_path / "root" / "jails" / "firecracker").mkdir(parents=True)
        os.chown(tmp_path / depth, 4711, 4711)
        with pytest.raises(Refusal, match="belongs to uid 4711"), place.create(VM):
            pass

    @pytest.mark.parametrize("depth", ["root", "root/jails", "root/jails/firecracker"])
    def test_a_link_is_refused(self, place: JailPlace, tmp_path: Path, depth: str) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (tmp_path / depth).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / depth).symlink_to(elsewhere)
        with pytest.raises(OSError), place.create(VM):
            pass
        assert os.listdir(elsewhere) == []

    def test_a_process_outside_of_jails_is_in_none(self, place: JailPlace) -> None:
        with place.create(VM):
            assert find_jail_of(os.getpid(), 0, place.base) is None
            assert find_jail_of(os.getpid(), jail_place.uid_of(VM), place.base) is None
            assert find_jail_of(2**22, jail_place.uid_of(VM), place.base) is None
