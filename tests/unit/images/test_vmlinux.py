import gzip
import lzma
import struct
from contextlib import suppress

import lz4.block
import pytest
import zstandard

from banger.base.problem import Problem
from banger.images.vmlinux import extract_vmlinux

KERNEL = b"\x7fELF" + bytes(range(256)) * 300


def bzimage(payload: bytes, *, protocol: int = 0x020F, sectors: int = 4) -> bytes:
    """The header of a bzImage, a stretch of loader, and the payload."""
    head = bytearray((sectors + 1) * 512)
    head[0x1F1] = sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, protocol)
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    return bytes(head) + b"L" * 100 + payload + b"after"


def sized(packed: bytes, size: int = len(KERNEL)) -> bytes:
    return packed + struct.pack("<I", size)


def lz4_legacy(kernel: bytes) -> bytes:
    packed = b"\x02\x21\x4c\x18"
    for start in range(0, len(kernel), 8 * 1024 * 1024):
        block = lz4.block.compress(kernel[start : start + 8 * 1024 * 1024], store_size=False)
        packed += struct.pack("<I", len(block)) + block
    return packed


PAYLOADS = {
    "lz4": sized(lz4_legacy(KERNEL)),
    "xz": sized(lzma.compress(KERNEL, check=lzma.CHECK_CRC32)),
    "zstd": sized(zstandard.ZstdCompressor(write_content_size=False).compress(KERNEL)),
    "gzip": gzip.compress(KERNEL),
}


@pytest.mark.parametrize("method", PAYLOADS)
def test_each_compression_gives_the_kernel(method: str):
    assert extract_vmlinux(bzimage(PAYLOADS[method])) == KERNEL


def test_lz4_blocks_follow_one_another():
    kernel = b"\x7fELF" + bytes(9 * 1024 * 1024)
    assert extract_vmlinux(bzimage(sized(lz4_legacy(kernel), len(kernel)))) == kernel


def test_an_elf_kernel_is_itself():
    assert extract_vmlinux(KERNEL) == KERNEL


@pytest.mark.parametrize("method", PAYLOADS)
@pytest.mark.parametrize("damage", [slice(10, 14), slice(40, 60)])
def test_damage_is_one_problem_or_unnoticed_but_never_another_exception(method: str, damage: slice):
    payload = bytearray(PAYLOADS[method])
    payload[damage] = b"\xff" * len(payload[damage])
    with suppress(Problem):
        extract_vmlinux(bzimage(bytes(payload)))


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (b"", "no setup header"),
        (bytes(4096), "no setup header"),
        (bzimage(PAYLOADS["xz"], protocol=0x0205), "older"),
        (bzimage(PAYLOADS["xz"])[:2700], "cut short"),
        (bzimage(b"BZh9 whatever"), "no compression known"),
        (bzimage(sized(lzma.compress(b"no elf"), 6)), "no ELF"),
        (bzimage(sized(lzma.compress(KERNEL), 5)), "instead of 5"),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes, word: str):
    with pytest.raises(Problem, match=word):
        extract_vmlinux(image)
