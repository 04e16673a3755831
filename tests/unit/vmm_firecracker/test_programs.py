"""Which program is taken for Firecracker, and which is refused."""

import os

import pytest

from banger.base.problem import Code, Problem
from banger.vmm.boot_files import verify_kernel
from banger.vmm.firecracker import probe, programs
from banger.vmm.firecracker.programs import get_program, managed_program, read_version


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    """Where root would have set one up."""
    monkeypatch.setattr(programs, "ROOTS_DIRECTORY", tmp_path / "roots")
    return tmp_path / "roots"


@pytest.fixture
def program(tmp_path):
    return make_program(tmp_path)


def make_program(directory):
    path = managed_program(directory)
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\necho Firecracker v1.12.1\n")
    path.chmod(0o755)
    return path


def test_a_configured_one_wins_over_the_managed_one(program, tmp_path):
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o700)
    assert get_program(None, tmp_path) == str(program)
    assert get_program(str(own), tmp_path) == str(own)


def test_what_root_has_set_up_wins_over_the_owners(program, tmp_path, roots):
    assert get_program(None, tmp_path) == str(program)
    theirs = make_program(roots)
    assert get_program(None, tmp_path) == get_program(None, None) == str(theirs)


@pytest.mark.parametrize("configured", ["/nonexistent/firecracker", "firecracker"])
def test_a_configured_one_that_is_not_there_is_not_replaced(program, tmp_path, configured):
    with pytest.raises(Problem, match=f"firecracker_bin {configured} cannot be executed"):
        get_program(configured, tmp_path)


def test_none_at_all_names_the_command_that_brings_one(tmp_path):
    with pytest.raises(Problem) as caught:
        get_program(None, tmp_path)
    assert (caught.value.code, caught.value.hint) == (Code.UNAVAILABLE, "banger setup firecracker")


@pytest.mark.parametrize("which", ["file", "directory"])
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_one_that_others_may_change_is_refused(program, tmp_path, which, mode):
    place = program if which == "file" else program.parent
    place.chmod(mode)
    with pytest.raises(Problem, match=f"{place} may be written by others") as caught:
        get_program(None, tmp_path)
    assert caught.value.code is Code.UNAUTHORIZED
    assert caught.value.hint == f"chmod go-w {place}"


@pytest.mark.skipif(os.getuid() != 0, reason="giving a file away needs root")
def test_one_that_belongs_to_somebody_else_is_refused(program, tmp_path):
    os.chown(program, 65534, 65534)
    with pytest.raises(Problem, match="belongs to uid 65534"):
        get_program(None, tmp_path)


async def test_its_version_is_what_it_says(program):
    assert await read_version(str(program)) == "1.12.1"


def test_the_trial_kernel_is_a_whole_elf_file(tmp_path):
    path = tmp_path / "trial"
    path.write_bytes(probe.render_trial_kernel())
    verify_kernel(path)


async def test_the_verdict_is_remembered_for_this_program_and_host_only(program, tmp_path, monkeypatch):
    tries = []

    async def trial(path):
        tries.append(path)
        return

    monkeypatch.setattr(probe, "find_kvm_obstacle", lambda *, any_kvm: None)
    monkeypatch.setattr(probe, "_try_guest", trial)
    cache = tmp_path / "cache" / "verdict.json"
    for _ in range(2):
        verdict = await probe.probe_host(None, tmp_path, cache)
        assert (verdict.kvm, verdict.firecracker_version) == (True, "1.12.1")
    assert len(tries) == 1
    await probe.probe_host(None, tmp_path, cache, any_kvm=True)
    os.utime(program, (1, 1))
    await probe.probe_host(None, tmp_path, cache)
    cache.write_text("{")
    await probe.probe_host(None, tmp_path, cache)
    assert len(tries) == 4


def test_what_keeps_kvm_from_us_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "_DEVICE", str(tmp_path / "kvm"))
    monkeypatch.setattr(probe, "_MODULES", (str(tmp_path / "kvm_amd"),))
    assert "is missing" in (probe.find_kvm_obstacle() or "")
    (tmp_path / "kvm").touch()
    assert "neither kvm_intel nor kvm_amd" in (probe.find_kvm_obstacle() or "")
    assert probe.find_kvm_obstacle(any_kvm=True) is None
    (tmp_path / "kvm_amd").mkdir()
    assert probe.find_kvm_obstacle() is None
