"""What the QEMU back end looks at on the host: clock, KVM, logs, identity, memory, ports."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from banger.base.problem import Code, Problem, unavailable
from banger.vmm import logs
from banger.vmm.boot_files import verify_initramfs, verify_kernel
from banger.vmm.choose import choose_vmm
from banger.vmm.contract import Place
from banger.vmm.fake import FAKE_INITRAMFS, FAKE_KERNEL, FakeVmm
from banger.vmm.identity import find_process, find_start_time, kill_process
from banger.vmm.qemu import probe, resources
from banger.vmm.qemu.tsc import Reading, TscClock, compute_khz

SOURCE = Path(__file__).parents[3] / "src"


def test_the_counter_is_measured_once_and_steadily():
    first, second = TscClock().khz(), TscClock().khz()
    if first is None or second is None:
        pytest.skip("no time stamp counter here")
    assert abs(first - second) / first < 1e-4


def test_a_clock_that_was_made_earlier_waits_for_nothing(monkeypatch):
    clock = TscClock()
    time.sleep(0.03)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    clock.khz()


def test_an_implausible_frequency_is_none():
    assert compute_khz(Reading(0, 0), Reading(20_000_000, 46_000_000)) == 2_300_000
    assert compute_khz(Reading(0, 0), Reading(20_000_000, -5)) is None
    assert compute_khz(Reading(0, 0), Reading(20_000_000_000, 46_000)) is None


def fake_host(monkeypatch, tmp_path, *, device=True, module=True):
    for name, wanted in (("kvm", device), ("kvm_intel", module)):
        if wanted:
            (tmp_path / name).touch()
    monkeypatch.setattr(probe, "_DEVICE", str(tmp_path / "kvm"))
    monkeypatch.setattr(probe, "_MODULES", (str(tmp_path / "kvm_intel"), str(tmp_path / "kvm_amd")))


def test_a_device_without_a_vendors_module_proves_nothing(monkeypatch, tmp_path):
    fake_host(monkeypatch, tmp_path, module=False)
    assert "neither kvm_intel nor kvm_amd" in (probe.find_kvm_obstacle() or "")
    fake_host(monkeypatch, tmp_path)
    assert probe.find_kvm_obstacle() is None
    (tmp_path / "kvm").unlink()
    assert "missing" in (probe.find_kvm_obstacle() or "")


def fake_qemu(tmp_path, status, version="7.2.22"):
    qemu = tmp_path / "qemu"
    qemu.write_text(
        f'#!/bin/sh\necho run >> {tmp_path}/runs\n[ "$1" = --version ] && echo "QEMU emulator version {version}"'
        f' && exit 0\necho "kvm: failed to set MSR" >&2\nexit {status}\n'
    )
    qemu.chmod(0o755)
    return str(qemu)


async def test_a_verdict_is_remembered_until_host_or_qemu_change(monkeypatch, tmp_path):
    fake_host(monkeypatch, tmp_path)
    qemu, cache = fake_qemu(tmp_path, 33), tmp_path / "cache/probe.json"
    first = await probe.probe_host(qemu, cache)
    assert (first.kvm, first.kvm_reason, first.qemu_version) == (True, "", "7.2.22")
    assert await probe.probe_host(qemu, cache) == first
    assert (tmp_path / "runs").read_text().count("run") == 2
    (tmp_path / "kvm_intel").unlink()
    assert not (await probe.probe_host(qemu, cache)).kvm
    cache.write_text("garbage")
    assert not (await probe.probe_host(qemu, cache)).kvm


async def test_a_guest_that_fails_on_kvm_makes_it_unusable_with_qemus_words(monkeypatch, tmp_path):
    fake_host(monkeypatch, tmp_path)
    verdict = await probe.probe_host(fake_qemu(tmp_path, 1), None)
    assert not verdict.kvm
    assert "failed to set MSR" in verdict.kvm_reason


async def test_an_old_qemu_and_no_qemu_are_unavailable(monkeypatch, tmp_path):
    with pytest.raises(Problem, match=r"older than 7\.0"):
        await probe.probe_host(fake_qemu(tmp_path, 0, version="6.2.0"), None)
    monkeypatch.setattr(probe, "find_tool", lambda _: None)
    with pytest.raises(Problem) as caught:
        await probe.probe_host(None, None)
    assert (caught.value.code, caught.value.hint) == (
        Code.UNAVAILABLE,
        "sudo apt-get install qemu-system-x86",
    )


def test_logs_are_rotated_bounded_and_read_from_the_end(tmp_path):
    log = tmp_path / "serial.log"
    logs.rotate_log(log)
    log.write_bytes(b"first\n")
    logs.rotate_log(log)
    assert (tmp_path / "serial.log.1").read_bytes() == b"first\n"
    log.write_bytes(b"x" * 5000 + b"\nlast \x1b[31mword\n")
    assert logs.render_tail(log, 1) == "serial.log: last [31mword"
    assert not logs.bound_log(log, limit_bytes=10_000)
    assert logs.bound_log(log, limit_bytes=400)
    assert log.stat().st_size == 0
    assert (tmp_path / "serial.log.1").read_bytes().endswith(b"word\n")


def test_a_log_is_emptied_even_where_its_end_finds_no_room(tmp_path, monkeypatch):
    log = tmp_path / "serial.log"
    log.write_bytes(b"x" * 5000)

    def refuse(path, content):
        assert log.stat().st_size == 0
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="No space left"):
        logs.bound_log(log, limit_bytes=400)
    assert log.stat().st_size == 0


def test_the_last_panic_is_found(tmp_path):
    log = tmp_path / "serial.log"
    assert logs.find_panic(log) is None
    log.write_bytes(b"[1] Kernel panic - not syncing: No init\r\n[2] more\n")
    assert logs.find_panic(log) == "No init"


def test_identity_survives_odd_names_and_sees_through_reuse(tmp_path):
    shutil.copy("/bin/sleep", tmp_path / "a) R (b")
    process = subprocess.Popen([tmp_path / "a) R (b", "60"])
    started = find_start_time(process.pid)
    assert started is not None
    assert find_process(process.pid, started + 1) is None
    pidfd = find_process(process.pid, started)
    assert pidfd is not None
    kill_process(pidfd)
    process.wait()
    kill_process(pidfd)
    os.close(pidfd)
    assert find_start_time(process.pid) is None
    assert find_process(process.pid, started) is None


def test_kernels_are_known_by_their_headers(tmp_path):
    kernel, initramfs = tmp_path / "kernel", tmp_path / "initramfs"
    kernel.write_bytes(FAKE_KERNEL)
    verify_kernel(kernel)
    kernel.write_bytes(bytes(0x202) + b"HdrS" + bytes(1000))
    verify_kernel(kernel)
    initramfs.write_bytes(FAKE_INITRAMFS)
    verify_initramfs(initramfs)


def test_memory_goes_to_the_first_tmpfs_with_room_else_to_disk(monkeypatch):
    kinds = {"/run": "tmpfs", "/shm": "tmpfs", "/state": "ext4"}
    monkeypatch.setattr(resources, "_file_system_of", kinds.__getitem__)

    def choose(**room):
        monkeypatch.setattr(resources, "_available_mib", lambda directory: room[directory[1:]])
        return resources.choose_memory_directory(tuple(kinds), 512)

    assert choose(run=600, shm=600, state=9000) == "/run"
    assert choose(run=100, shm=600, state=9000) == "/shm"
    assert choose(run=100, shm=100, state=9000) == "/state"
    with pytest.raises(Problem) as caught:
        choose(run=100, shm=100, state=100)
    assert caught.value.code is Code.NO_SPACE


def test_a_socket_path_that_is_too_long_is_refused_with_the_way_out(tmp_path):
    place = Place(str(tmp_path / ("x" * 120)), str(tmp_path))
    with pytest.raises(Problem, match="exceeds 107 bytes") as caught, resources.open_descriptors(place, 64):
        pass
    assert "BANGER_RUNTIME_DIR" in (caught.value.hint or "")


def test_memory_is_sparse_and_nameless():
    with tempfile.TemporaryDirectory(prefix="bt-", dir="/tmp") as root:
        with resources.open_descriptors(Place(root, root), 64) as (descriptors, _):
            state = os.fstat(descriptors.memory)
            assert (state.st_size, state.st_blocks, state.st_nlink) == (64 << 20, 0, 0)
            assert sorted(os.listdir(root)) == ["agent.sock", "qmp.sock"]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptors.memory)


async def test_the_first_vmm_that_can_run_is_chosen():
    able, unable = FakeVmm(name="able"), FakeVmm(name="unable")
    unable.faults.missing = True
    assert await choose_vmm("auto", {"unable": unable, "able": able}) is able
    assert await choose_vmm("able", {"unable": unable, "able": able}) is able
    with pytest.raises(Problem, match="not installed"):
        await choose_vmm("unable", {"unable": unable, "able": able})
    with pytest.raises(Problem, match="not installed"):
        await choose_vmm("auto", {"unable": unable})
    with pytest.raises(Problem, match="'xen' is not a VMM"):
        await choose_vmm("xen", {"able": able})
    with pytest.raises(Problem, match="no VMM can run"):
        await choose_vmm("auto", {"unable": unable, "other": unable})


async def test_faults_of_the_fake_strike_where_they_are_set(tmp_path):
    from banger.model.machine import Machine

    (tmp_path / "k").write_bytes(FAKE_KERNEL)
    (tmp_path / "i").write_bytes(FAKE_INITRAMFS)
    machine = Machine(
        id="a",
        name="a",
        vcpus=1,
        memory_mib=64,
        kernel=str(tmp_path / "k"),
        initramfs=str(tmp_path / "i"),
        kernel_arguments=(),
        disks=(),
        network=None,
        agent_channel="a",
    )
    vmm = FakeVmm()
    with tempfile.TemporaryDirectory(prefix="bt-", dir="/tmp") as root:
        place = Place(root, root)
        vmm.faults.fail_start = unavailable("struck")
        with pytest.raises(Problem, match="struck"):
            await vmm.start(machine, place)
        vmm.faults.fail_start, vmm.faults.hang_start = None, True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(vmm.start(machine, place), 0.02)
        vmm.faults.hang_start, vmm.faults.die_after_start = False, True
        handle = await vmm.start(machine, place)
        assert (await vmm.wait_exit(handle)).reason == "kernel panic: fake"
        assert not vmm.host.alive()


def test_a_detached_process_outlives_the_interpreter_that_began_it():
    script = (
        "import pathlib\n"
        "from banger.base.process import spawn_detached\n"
        "print(spawn_detached(('/bin/sleep', '30'), cwd=pathlib.Path('/'), output=2).pid)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    # The child keeps this stderr open: a pipe would make run() wait for its end.
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        env=environment,
    )
    pid = int(done.stdout)
    assert find_start_time(pid) is not None
    os.kill(pid, 9)
