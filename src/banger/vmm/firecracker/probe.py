"""What this host lets Firecracker do, found by trying: which Firecracker there is, and whether KVM runs a guest.

Owns the verdict and its cache file. /dev/kvm proves nothing: it can open, answer its API version, even run a small
guest, and still not run Linux (a paravirtual KVM does). So a vendor's module must be there as well, and a guest of a
few instructions must have its effect.
"""

import asyncio
import json
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from banger.base.files import write_atomic
from banger.base.process import render_failure, start_process
from banger.vmm.firecracker.programs import get_program, read_version

_DEVICE = "/dev/kvm"
_MODULES = ("/sys/module/kvm_intel", "/sys/module/kvm_amd")
_TRIAL_S = 30.0  # milliseconds where all is well; a host that is just booting has been seen to take 5 s
_TRIAL_MIB = 32
_TRIAL_ADDRESS = 0x1000000
_TRIAL_WORD = b"banger-trial-guest-ran"
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`key` says for which host and program it holds. `kvm_reason` tells people why not; empty when usable."""

    key: str
    firecracker: str
    firecracker_version: str
    kvm: bool
    kvm_reason: str


async def probe_host(
    configured: str | None, directory: Path | None, cache: Path | None, *, any_kvm: bool = False
) -> Verdict:
    """Raises `unavailable` without a usable Firecracker. Runs nothing when the cache file still holds. `any_kvm`
    takes a KVM without a vendor's module, too."""
    program = get_program(configured, directory)
    return await _probe(program, "", find_kvm_obstacle(any_kvm=any_kvm), cache, any_kvm=any_kvm)


async def probe_jailed(program: str, version: str, cache: Path | None, *, any_kvm: bool = False) -> Verdict:
    """The same for a program that root has found and runs. Without a right to KVM of our own there is no trial: what
    can be seen must do."""
    obstacle = find_kvm_obstacle(any_kvm=any_kvm, by_root=True)
    return await _probe(program, version, obstacle, cache, any_kvm=any_kvm)


async def _probe(
    program: str, version: str, obstacle: str | None, cache: Path | None, *, any_kvm: bool
) -> Verdict:
    """An empty version is asked for."""
    tries = obstacle is None and _may_use_kvm() and os.access(program, os.X_OK)
    key = _render_key(program, obstacle, any_kvm=any_kvm, tries=tries)
    if cache is not None and (known := _read_cache(cache, key)) is not None:
        return known
    version = version or await read_version(program)
    if tries:
        obstacle = await _try_guest(program)
    verdict = Verdict(
        key=key,
        firecracker=program,
        firecracker_version=version,
        kvm=obstacle is None,
        kvm_reason=obstacle or "",
    )
    if cache is not None:
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(cache, msgspec.json.encode(verdict))
    return verdict


def find_kvm_obstacle(*, any_kvm: bool = False, by_root: bool = False) -> str | None:
    """What can be seen without trying: the device, our right to it unless root uses it, the vendor's module."""
    if not Path(_DEVICE).exists():
        return f"{_DEVICE} is missing"
    if not by_root and not _may_use_kvm():
        return f"{_DEVICE} is not ours to use: sudo usermod -aG kvm $USER"
    if not any_kvm and platform.machine() == "x86_64" and not any(Path(m).exists() for m in _MODULES):
        return f"{_DEVICE} is there, but neither kvm_intel nor kvm_amd is"
    return None


def _may_use_kvm() -> bool:
    return os.access(_DEVICE, os.R_OK | os.W_OK)


def render_trial_kernel() -> bytes:
    """An ELF file of one segment that writes a word to the serial port and asks for a reset."""
    code = b"\x66\xba\xf8\x03"  # mov dx, 0x3f8
    for character in _TRIAL_WORD:
        code += b"\xb0" + bytes((character,)) + b"\xee"  # mov al, character; out dx, al
    code += b"\xb0\xfe\xe6\x64\xf4"  # mov al, 0xfe; out 0x64, al; hlt
    offset = _ELF_HEADER.size + _PROGRAM_HEADER.size
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _ELF_HEADER.pack(ident, 2, 62, 1, _TRIAL_ADDRESS, _ELF_HEADER.size, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = _PROGRAM_HEADER.pack(1, 7, offset, _TRIAL_ADDRESS, _TRIAL_ADDRESS, len(code), len(code), 1)
    return header + segment + code


def _render_key(program: str, obstacle: str | None, *, any_kvm: bool, tries: bool) -> str:
    state = Path(program).stat()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = f"{platform.release()} {boot_id} {program} {state.st_mtime_ns} {state.st_size}"
    how = f"{'any' if any_kvm else 'vendor'} {'tried' if tries else 'seen'}"
    return f"{key} {how} {obstacle or ''}"


def _read_cache(cache: Path, key: str) -> Verdict | None:
    with suppress(FileNotFoundError, msgspec.DecodeError):
        verdict = msgspec.json.decode(cache.read_bytes(), type=Verdict)
        if verdict.key == key:
            return verdict
    return None


async def _try_guest(program: str) -> str | None:
    """Runs the trial guest; None when its word came. Firecracker's status is 0 for a crashed guest, too."""
    with ExitStack() as files:
        kernel = files.enter_context(_open_memory_file(render_trial_kernel()))
        config = {
            "boot-source": {"kernel_image_path": f"/proc/self/fd/{kernel}", "boot_args": ""},
            "drives": [],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": _TRIAL_MIB},
        }
        told = files.enter_context(_open_memory_file(json.dumps(config).encode()))
        argv = (program, "--no-api", "--log-path", os.devnull, "--config-file", f"/proc/self/fd/{told}")
        async with start_process(argv, pass_fds=(kernel, told)) as process:
            try:
                async with asyncio.timeout(_TRIAL_S):
                    stdout, stderr = await process.communicate()
            except TimeoutError:
                return f"a guest on KVM did nothing for {_TRIAL_S:.0f} s"
            status = process.returncode
    assert status is not None
    if _TRIAL_WORD in stdout:
        return None
    if status == 0:
        return "a guest on KVM ended before its first word"
    return render_failure((program, "--no-api"), status, stdout + stderr).replace("\n", "; ")


@contextmanager
def _open_memory_file(content: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("banger-kvm-probe", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)
