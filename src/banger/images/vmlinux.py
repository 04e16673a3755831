"""The ELF kernel inside a bzImage. Pure.

A bzImage is a small loader with the compressed kernel as its payload; Firecracker needs the ELF file and QEMU
starts it sooner. The setup header says where the payload is and how long
(Documentation/arch/x86/boot.rst of the kernel, protocol 2.08 and newer). Except with gzip, the payload ends
with the unpacked size in four bytes of its own.
"""

import lzma
import struct
import zlib
from collections.abc import Callable

import lz4.block
import zstandard

from banger.base.problem import Code, Problem

_ELF = b"\x7fELF"
_HEADER_MAGIC = b"HdrS"
_OLDEST_PROTOCOL = 0x0208
_LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
_LZ4_LEGACY_BLOCK_BYTES = 8 * 1024 * 1024
_SIZE_FIELD_BYTES = 4


def extract_vmlinux(image: bytes) -> bytes:
    """The uncompressed ELF kernel of a bzImage (or of an ELF kernel, itself). Raises `operation_failed`."""
    if image.startswith(_ELF):
        return image
    payload = _find_payload(image)
    for magic, unpack in _METHODS:
        if payload.startswith(magic):
            kernel = _unpack(unpack, payload)
            break
    else:
        raise _not_usable(f"its payload begins with {payload[:4].hex(' ')}, no compression known here")
    if not kernel.startswith(_ELF):
        raise _not_usable("what it unpacks to is no ELF file")
    return kernel


def _unpack(unpack: Callable[[bytes], bytes], payload: bytes) -> bytes:
    try:
        kernel = unpack(payload)
    except (lzma.LZMAError, zlib.error, zstandard.ZstdError, lz4.block.LZ4BlockError, struct.error) as error:
        raise _not_usable(f"its payload does not unpack: {error}") from error
    if unpack is not _unpack_gzip:
        (size,) = struct.unpack("<I", payload[-_SIZE_FIELD_BYTES:])
        if size != len(kernel):
            raise _not_usable(f"its payload unpacks to {len(kernel)} bytes instead of {size}")
    return kernel


def _find_payload(image: bytes) -> bytes:
    if len(image) < 0x250 or image[0x202:0x206] != _HEADER_MAGIC:
        raise _not_usable("it has no setup header")
    setup_sectors = image[0x1F1] or 4  # 0 means 4, for the oldest loaders
    (protocol,) = struct.unpack_from("<H", image, 0x206)
    if protocol < _OLDEST_PROTOCOL:
        raise _not_usable(f"its boot protocol {protocol >> 8}.{protocol & 0xFF:02d} is older than 2.08")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if length <= _SIZE_FIELD_BYTES or len(payload) != length:
        raise _not_usable("it is cut short")
    return payload


def _unpack_lz4_legacy(payload: bytes) -> bytes:
    """Blocks of u32 length and LZ4 data, each unpacking to 8 MiB at most; then the unpacked size."""
    kernel = bytearray()
    offset, end = len(_LZ4_LEGACY_MAGIC), len(payload) - _SIZE_FIELD_BYTES
    while offset < end:
        (length,) = struct.unpack_from("<I", payload, offset)
        offset += 4
        block = payload[offset : offset + length]
        kernel += lz4.block.decompress(block, uncompressed_size=_LZ4_LEGACY_BLOCK_BYTES)
        offset += length
    return bytes(kernel)


def _unpack_xz(payload: bytes) -> bytes:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload)


def _unpack_zstd(payload: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(payload)


def _unpack_gzip(payload: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(payload)


_METHODS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (_LZ4_LEGACY_MAGIC, _unpack_lz4_legacy),
    (b"\xfd7zXZ\0", _unpack_xz),
    (b"\x28\xb5\x2f\xfd", _unpack_zstd),
    (b"\x1f\x8b", _unpack_gzip),
)


def _not_usable(why: str) -> Problem:
    return Problem(Code.OPERATION_FAILED, f"the kernel image is not usable: {why}")
