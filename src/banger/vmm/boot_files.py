"""Kernels and initramfs archives looked at before a VMM gets them. Reads headers only.

A VMM takes a damaged kernel for an old one and runs garbage without a word, so it is told here. Formats:
elf(5); Documentation/arch/x86/boot.rst of the kernel.
"""

import os
import struct
from pathlib import Path

from banger.base.problem import Code, Outcome, Problem

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_ELF_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1
_BZIMAGE_MAGIC_OFFSET = 0x202
_BZIMAGE_MAGIC = b"HdrS"
_HEAD_BYTES = 4096


def verify_kernel(path: Path) -> None:
    """Raises Problem unless the file is a whole ELF vmlinux or starts like a bzImage."""
    head, size = _read_head(path, "kernel")
    if head[_BZIMAGE_MAGIC_OFFSET : _BZIMAGE_MAGIC_OFFSET + 4] == _BZIMAGE_MAGIC:
        return
    if not head.startswith(_ELF64_LITTLE):
        raise _damaged(path, "kernel", "is neither an ELF image nor a bzImage")
    if len(head) < _ELF_HEADER.size:
        raise _damaged(path, "kernel", "ends within its header")
    fields = _ELF_HEADER.unpack_from(head)
    table, entry_size, count = fields[4], fields[8], fields[9]
    end = table + entry_size * count
    if count == 0 or entry_size != _PROGRAM_HEADER.size or end > len(head):
        raise _damaged(path, "kernel", "has no usable program headers")
    for offset in range(table, end, entry_size):
        kind, _, start, _, _, length, _, _ = _PROGRAM_HEADER.unpack_from(head, offset)
        if kind == _PT_LOAD and start + length > size:
            raise _damaged(path, "kernel", f"is cut short: {size} of {start + length} bytes")


def verify_initramfs(path: Path) -> None:
    """Raises Problem unless the file starts like a cpio archive, plain or compressed."""
    head, _ = _read_head(path, "initramfs")
    if not head.startswith(
        (b"070701", b"070702", b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18")
    ):
        raise _damaged(path, "initramfs", "is not a cpio archive")


def verify_disk(path: Path, *, read_only: bool) -> None:
    """Raises Problem unless the disk's file is there and may be used as asked."""
    if not path.is_file():
        raise Problem(
            Code.NOT_FOUND,
            f"the disk {path} is missing",
            hint=f"ls -l {path.parent}",
            outcome=Outcome.NOT_STARTED,
        )
    if not os.access(path, os.R_OK if read_only else os.R_OK | os.W_OK):
        raise Problem(
            Code.UNAUTHORIZED,
            f"the disk {path} is not ours to use",
            hint=f"ls -l {path}",
            outcome=Outcome.NOT_STARTED,
        )


def _read_head(path: Path, what: str) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
    except (FileNotFoundError, IsADirectoryError) as error:
        raise Problem(
            Code.NOT_FOUND,
            f"the {what} {path} is missing",
            hint="banger kernel list",
            outcome=Outcome.NOT_STARTED,
        ) from error
    except PermissionError as error:
        raise Problem(
            Code.UNAUTHORIZED,
            f"the {what} {path} cannot be read",
            hint=f"ls -l {path}",
            outcome=Outcome.NOT_STARTED,
        ) from error


def _damaged(path: Path, what: str, how: str) -> Problem:
    return Problem(
        Code.OPERATION_FAILED,
        f"the {what} {path} {how}",
        hint="banger kernel pull --force",
        outcome=Outcome.NOT_STARTED,
    )
