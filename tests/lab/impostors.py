"""Firecrackers that are none, and a kernel that is none: static programs, because a jail has no others."""

import struct
import subprocess
import sys
from pathlib import Path

_JAIL_UIDS_FIRST = 0x70000000
# Outside of a jail it is the real one, so that the trials of the host succeed.
_SOURCE = f"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {{
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {{
        puts("Firecracker v" VERSION);
        return 0;
    }}
    if (getuid() < {_JAIL_UIDS_FIRST}u) {{
        execv(REAL, argv);
        return 9;
    }}
    if (HANGS)
        for (;;)
            pause();
    fputs("no luck today\\n", stderr);
    return 3;
}}
"""
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_ENTRY = 0x1000000
_UNDEFINED_INSTRUCTION = b"\x0f\x0b"


def build_impostor(directory: Path, *, version: str, hangs: bool, real: str) -> bytes:
    """`real` is the path of the Firecracker that it pretends to be."""
    source, program = directory / "impostor.c", directory / "impostor"
    source.write_text(_SOURCE)
    defines = (f'-DVERSION="{version}"', f'-DREAL="{real}"', f"-DHANGS={int(hangs)}")
    target = ("-target", "x86_64-linux-musl", "-static", "-Os", "-s")
    argv = (sys.executable, "-m", "ziglang", "cc", *target, *defines, "-o", str(program), str(source))
    subprocess.run(argv, check=True)
    return program.read_bytes()


def render_crashing_kernel() -> bytes:
    """An ELF image whose first instruction is none: without a handler that ends the guest (a triple fault)."""
    offset = _ELF_HEADER.size + _PROGRAM_HEADER.size
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _ELF_HEADER.pack(ident, 2, 62, 1, _ENTRY, _ELF_HEADER.size, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(_UNDEFINED_INSTRUCTION)
    program = _PROGRAM_HEADER.pack(1, 5, offset, _ENTRY, _ENTRY, size, size, 4096)
    return header + program + _UNDEFINED_INSTRUCTION
