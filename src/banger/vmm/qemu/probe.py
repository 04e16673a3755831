"""What this host lets QEMU do, found by trying: which QEMU there is, and whether KVM runs a guest.

Owns the verdict and its cache file. /dev/kvm proves nothing: it can open, answer its API version, even run
a few real-mode instructions, and still not run a Linux guest (a paravirtual KVM does). So a vendor's module
must be there as well, and QEMU must run a tiny guest on it.
"""

import asyncio
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from banger.base.files import write_atomic
from banger.base.problem import Problem, unavailable
from banger.base.process import find_tool, render_failure, run, start_process

_HINT = "sudo apt-get install qemu-system-x86"
_OLDEST = (7, 0)  # reads JSON for -netdev
_VERSION = re.compile(rb"version (\d+)\.(\d+)(?:\.\d+)?")
_DEVICE = "/dev/kvm"
_MODULES = ("/sys/module/kvm_intel", "/sys/module/kvm_amd")
_TRIAL_S = 30.0  # milliseconds where all is well; a host that is just booting has been seen to take 5 s
_TRIAL_STATUS = 33  # isa-debug-exit: (0x10 << 1) | 1
_ROM_BYTES = 65536
_RESET_VECTOR = _ROM_BYTES - 16
_TRIAL_CODE = bytes.fromhex("baf400 b010 ee f4")  # mov dx,0xf4; mov al,0x10; out dx,al; hlt


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`key` says for which host and QEMU it holds. `kvm_reason` tells people why not; empty when usable."""

    key: str
    qemu: str
    qemu_version: str
    kvm: bool
    kvm_reason: str


async def probe_host(configured: str | None, cache: Path | None) -> Verdict:
    """Raises `unavailable` without a usable QEMU. Runs nothing when the cache file still holds."""
    qemu = _get_qemu(configured)
    reason = find_kvm_obstacle()
    key = _render_key(qemu, reason)
    if cache is not None and (known := _read_cache(cache, key)) is not None:
        return known
    version = await _read_version(qemu)
    if reason is None:
        reason = await _try_guest(qemu)
    verdict = Verdict(key=key, qemu=qemu, qemu_version=version, kvm=reason is None, kvm_reason=reason or "")
    if cache is not None:
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(cache, msgspec.json.encode(verdict))
    return verdict


def find_kvm_obstacle() -> str | None:
    """What can be seen without trying: the device, our right to it, the vendor's module."""
    if not Path(_DEVICE).exists():
        return f"{_DEVICE} is missing"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"{_DEVICE} is not ours to use: sudo usermod -aG kvm $USER"
    if platform.machine() == "x86_64" and not any(Path(module).exists() for module in _MODULES):
        return f"{_DEVICE} is there, but neither kvm_intel nor kvm_amd is"
    return None


def _get_qemu(configured: str | None) -> str:
    if configured:
        if not os.access(configured, os.X_OK):
            raise unavailable(f"qemu_bin {configured} cannot be executed", hint=_HINT)
        return configured
    found = find_tool("qemu-system-x86_64")
    if found is None:
        raise unavailable("QEMU is not installed", hint=_HINT)
    return str(found)


def _render_key(qemu: str, reason: str | None) -> str:
    state = Path(qemu).stat()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{platform.release()} {boot_id} {qemu} {state.st_mtime_ns} {state.st_size} {reason or ''}"


def _read_cache(cache: Path, key: str) -> Verdict | None:
    with suppress(FileNotFoundError, msgspec.DecodeError):
        verdict = msgspec.json.decode(cache.read_bytes(), type=Verdict)
        if verdict.key == key:
            return verdict
    return None


async def _read_version(qemu: str) -> str:
    try:
        done = await run((qemu, "--version"), timeout_s=_TRIAL_S)
    except Problem as error:
        raise unavailable(f"{qemu} does not run", hint=_HINT, detail=error.detail) from error
    match = _VERSION.search(done.stdout)
    if match is None:
        raise unavailable(f"{qemu} names no version", hint=_HINT)
    if (int(match[1]), int(match[2])) < _OLDEST:
        raise unavailable(f"{qemu} is older than {_OLDEST[0]}.{_OLDEST[1]}", hint=_HINT)
    return match[0].removeprefix(b"version ").decode()


async def _try_guest(qemu: str) -> str | None:
    """Runs three instructions from the reset vector on KVM; None when they had their effect."""
    with _open_rom() as rom:
        argv = (
            *(qemu, "-M", "microvm", "-accel", "kvm", "-cpu", "host", "-m", "16M"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-bios", f"/proc/self/fd/{rom}", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        )
        async with start_process(argv, pass_fds=(rom,)) as process:
            try:
                async with asyncio.timeout(_TRIAL_S):
                    _, stderr = await process.communicate()
            except TimeoutError:
                return f"a guest on KVM did nothing for {_TRIAL_S:.0f} s"
            status = process.returncode
    assert status is not None
    if status == _TRIAL_STATUS:
        return None
    return render_failure((qemu, "-accel", "kvm"), status, stderr).replace("\n", "; ")


@contextmanager
def _open_rom() -> Iterator[int]:
    rom = bytearray(b"\xf4" * _ROM_BYTES)
    rom[_RESET_VECTOR : _RESET_VECTOR + len(_TRIAL_CODE)] = _TRIAL_CODE
    descriptor = os.memfd_create("banger-kvm-probe", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, rom)
        yield descriptor
    finally:
        os.close(descriptor)
