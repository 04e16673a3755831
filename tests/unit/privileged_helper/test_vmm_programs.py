import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.privileged.contract.values import Refusal
from banger.privileged.helper import vmm_programs
from banger.privileged.helper.vmm_programs import VmmPrograms, find_vmm_programs, parse_configured

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="nobody else's programs are trusted")


class Programs:
    """A managed directory, and what root's configuration says."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.patch = patch
        self.managed = place / "firecracker"
        self.managed.mkdir()
        patch.setattr(vmm_programs, "MANAGED", str(self.managed))
        patch.setattr(vmm_programs, "_versions", {})
        self.configure("")

    def configure(self, text: str) -> None:
        self.patch.setattr(vmm_programs, "read_trusted", lambda *_: text)

    def add(self, version: str, directory: str | None = None, *, says: str | None = None) -> Path:
        place = self.managed / (directory or version)
        place.mkdir(exist_ok=True)
        for name in ("firecracker", "jailer"):
            self.write(place / name, f"echo {name} {says or f'v{version}'}; echo run >> {self.place}/runs")
        return place

    def write(self, path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def refused(self) -> str:
        with pytest.raises(Refusal) as caught:
            find_vmm_programs()
        assert caught.value.hint
        return f"{caught.value.code}: {caught.value.message}"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    place = Path(tempfile.mkdtemp(prefix="bp-", dir="/tmp"))
    place.chmod(0o755)
    yield Programs(place, monkeypatch)
    shutil.rmtree(place)


@needs_root
class TestFound:
    def test_the_newest_fitting_version(self, programs: Programs) -> None:
        for version in ("1.9.0", "1.10.2", "1.12.1", "2.0.0"):
            programs.add(version)
        (programs.managed / "latest").mkdir()
        place = programs.managed / "1.12.1"
        assert find_vmm_programs() == VmmPrograms(f"{place}/firecracker", f"{place}/jailer", "1.12.1")

    def test_a_version_is_asked_for_once(self, programs: Programs) -> None:
        place = programs.add("1.12.1")
        find_vmm_programs()
        find_vmm_programs()
        assert (programs.place / "runs").read_text().count("run") == 2
        programs.write(place / "jailer", "echo Jailer v1.13.0")
        assert "they belong together" in programs.refused()

    def test_configured_ones_win(self, programs: Programs) -> None:
        programs.add("1.12.1")
        own = programs.add("1.11.0", "own")
        programs.configure(f'firecracker_bin = "{own}/firecracker"')
        assert find_vmm_programs() == VmmPrograms(f"{own}/firecracker", f"{own}/jailer", "1.11.0")
        other = programs.add("1.11.0", "other")
        programs.configure(f'firecracker_bin = "{own}/firecracker"\njailer_bin = "{other}/jailer"')
        assert find_vmm_programs().jailer == f"{other}/jailer"

    def test_none(self, programs: Programs) -> None:
        assert programs.refused() == "unavailable: Firecracker is not installed for root"
        programs.add("1.9.0")
        assert programs.refused() == "unavailable: Firecracker is not installed for root"
        programs.managed.rename(programs.place / "away")
        assert programs.refused() == "unavailable: Firecracker is not installed for root"

    def test_one_that_is_missing_is_named(self, programs: Programs) -> None:
        (programs.add("1.12.1") / "jailer").unlink()
        assert programs.refused().endswith("/1.12.1/jailer")

    @pytest.mark.parametrize("version", ["1.9.9", "2.0.0", "3.1.4"])
    def test_a_version_out_of_range(self, programs: Programs, version: str) -> None:
        own = programs.add(version, "own")
        programs.configure(f'firecracker_bin = "{own}/firecracker"')
        assert f"is of {version}, and 1.10 or newer, and before 2.0 is wanted" in programs.refused()

    def test_a_program_that_names_no_version(self, programs: Programs) -> None:
        programs.add("1.12.1", says="hello")
        assert "names no version" in programs.refused()

    def test_a_program_that_does_not_run(self, programs: Programs) -> None:
        (programs.add("1.12.1") / "firecracker").write_bytes(b"\x7fELF of another world")
        assert "does not run" in programs.refused()

    def test_another_name_would_be_another_directory_of_jails(self, programs: Programs) -> None:
        own = programs.add("1.12.1")
        (own / "firecracker").rename(own / "firecracker-v1.12.1-x86_64")
        programs.configure(f'firecracker_bin = "{own}/firecracker-v1.12.1-x86_64"')
        assert "has to be called firecracker" in programs.refused()


@needs_root
class TestTrust:
    def test_a_program_that_others_may_write_to(self, programs: Programs) -> None:
        (programs.add("1.12.1") / "firecracker").chmod(0o775)
        assert "uid 0, mode 0775" in programs.refused()

    def test_a_program_of_somebody_elses(self, programs: Programs) -> None:
        os.chown(programs.add("1.12.1") / "jailer", 4711, 0)
        assert "uid 4711" in programs.refused()

    def test_a_program_that_is_not_executable(self, programs: Programs) -> None:
        (programs.add("1.12.1") / "jailer").chmod(0o644)
        assert "mode 0644" in programs.refused()

    @pytest.mark.parametrize("depth", ["1.12.1", "."])
    def test_a_directory_that_others_may_write_to(self, programs: Programs, depth: str) -> None:
        programs.add("1.12.1")
        (programs.managed / depth).chmod(0o777)
        assert "has mode 0777" in programs.refused()

    def test_a_directory_of_somebody_elses(self, programs: Programs) -> None:
        os.chown(programs.add("1.12.1"), 4711, 0)
        assert "belongs to uid 4711" in programs.refused()

    def test_a_link_even_one_of_roots(self, programs: Programs) -> None:
        place = programs.add("1.12.1")
        place.rename(programs.place / "moved")
        place.symlink_to(programs.place / "moved")
        assert "symbolic link" in programs.refused()
        place.unlink()
        (programs.place / "moved").rename(place)
        (place / "jailer").rename(place / "other")
        (place / "jailer").symlink_to("other")
        assert "cannot be trusted" in programs.refused()

    def test_a_fifo_does_not_keep_us_waiting(self, programs: Programs) -> None:
        jailer = programs.add("1.12.1") / "jailer"
        jailer.unlink()
        os.mkfifo(jailer, 0o755)
        assert "cannot be trusted" in programs.refused()

    @pytest.mark.parametrize("path", ["firecracker", "./firecracker", "/tmp/../tmp/firecracker"])
    def test_a_path_that_is_not_plain(self, programs: Programs, path: str) -> None:
        programs.configure(f'firecracker_bin = "{path}"')
        assert "is not an absolute, plain path" in programs.refused()


class TestConfiguration:
    def test_nothing_is_configured(self) -> None:
        assert parse_configured("") == ("", "")
        assert parse_configured('bridge_cidr = "10.0.0.1/24"') == ("", "")

    @pytest.mark.parametrize("text", ["firecracker_bin = 1", "jailer_bin = []", "firecracker_bin ="])
    def test_what_is_no_path_is_refused(self, text: str) -> None:
        with pytest.raises(Refusal, match=r"/etc/banger/config\.toml") as caught:
            parse_configured(text)
        assert caught.value.hint == "sudoedit /etc/banger/config.toml"
