"""Builds the mini guest with whatever C compiler there is: the system's, or the one in the ziglang wheel."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = (
    *("-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-fno-pie"),
    *("-mgeneral-regs-only", "-fno-asynchronous-unwind-tables", "-nostdlib", "-static", "-no-pie"),
    *("-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,norelro", f"-Wl,-T,{HERE}/mini.ld"),
)
_HEADER_32 = struct.Struct("<16xHHIIIIIHHHHHH")
_PROGRAM_32 = struct.Struct("<IIIIIIII")
_HEADER_64 = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_64 = struct.Struct("<IIQQQQQQ")


def build_mini_guest(directory: Path) -> Path:
    """The kernel's path in `directory`. Raises FileNotFoundError when there is no compiler."""
    narrow, wide = directory / "mini32.elf", directory / "mini.elf"
    sources = (str(HERE / "start.S"), str(HERE / "mini.c"))
    subprocess.run((*_compiler(), *FLAGS, "-o", str(narrow), *sources), check=True, stdin=subprocess.DEVNULL)
    wide.write_bytes(widen(narrow.read_bytes()))
    return wide


def _compiler() -> tuple[str, ...]:
    if found := shutil.which("gcc"):
        return (found, "-m32", "-fcf-protection=none")
    try:
        import ziglang  # noqa: F401
    except ImportError as error:
        raise FileNotFoundError("neither gcc nor ziglang is installed") from error
    return (sys.executable, "-m", "ziglang", "cc", "-target", "x86-freestanding-none")


def widen(narrow: bytes) -> bytes:
    """The same segments in a 64-bit ELF file, which is what kernels come in."""
    fields = _HEADER_32.unpack_from(narrow)
    entry, table, count = fields[3], fields[4], fields[9]
    programs = [_PROGRAM_32.unpack_from(narrow, table + 32 * index) for index in range(count)]
    segments = [program for program in programs if program[0] in {1, 4}]
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = _HEADER_64.pack(ident, 2, 62, 1, entry, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    for kind, offset, virtual, physical, in_file, in_memory, flags, align in segments:
        head += _PROGRAM_64.pack(kind, flags, offset + 4096, virtual, physical, in_file, in_memory, align)
    return head.ljust(4096, b"\0") + narrow
