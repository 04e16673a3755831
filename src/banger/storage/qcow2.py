"""Root as a qcow2 layer over the image: an empty one, whose header is written in-process.

Owns the format's bytes. `qemu-img create` costs a process and 10 ms for what are four clusters. Reference:
docs/interop/qcow2.txt of QEMU, version 3.
"""

import os
import struct
from pathlib import Path

from banger.base.files import atomic_file
from banger.base.problem import bad_request
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.storage.contract import Root
from banger.storage.plain_file import PlainFile
from banger.storage.sizes import plan_size

FILE = "root.qcow2"

_MAGIC = b"QFI\xfb"
_VERSION = 3
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_L1_ENTRY_COVERS = _CLUSTER * (_CLUSTER // 8)  # one L2 table: 512 MiB
_L1_OFFSET = 3 * _CLUSTER
_L1_ENTRIES_MAX = _CLUSTER // 8  # one cluster of L1: 4 TiB
_REFCOUNT_TABLE_OFFSET = 1 * _CLUSTER
_REFCOUNT_BLOCK_OFFSET = 2 * _CLUSTER
_USED_CLUSTERS = 4  # header, refcount table, refcount block, L1
_REFCOUNT_ORDER = 4  # 16 bits
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_BACKING_NAME_MAX_BYTES = 1023
_PIECE = tuple[int, bytes]


class Qcow2Driver(PlainFile):
    """For VMMs that read qcow2."""

    name = StorageDriver.QCOW2

    def __init__(self) -> None:
        super().__init__(FILE, DiskFormat.QCOW2, stands_on_image=True)

    def create(self, root: Root) -> None:
        create_overlay(self._place(root), root.image, size_bytes=root.size_bytes)


def render_overlay(backing: str, size_bytes: int) -> tuple[_PIECE, ...]:
    """(offset, content) pairs of an empty overlay over a raw image; all other bytes are zero."""
    name = os.fsencode(backing)
    entries = -(-size_bytes // _L1_ENTRY_COVERS)
    if len(name) > _BACKING_NAME_MAX_BYTES:
        raise bad_request(f"the image path {backing} exceeds {_BACKING_NAME_MAX_BYTES} bytes")
    if entries > _L1_ENTRIES_MAX:
        raise bad_request(f"{size_bytes} bytes are too large for an overlay", hint="use at most 4T")
    extensions = _EXTENSION.pack(_BACKING_FORMAT, 3) + b"raw".ljust(8, b"\0") + _EXTENSION.pack(0, 0)
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        _HEADER.size + len(extensions),
        len(name),
        _CLUSTER_BITS,
        size_bytes,
        0,  # not encrypted
        entries,
        _L1_OFFSET,
        _REFCOUNT_TABLE_OFFSET,
        1,
        0,  # no internal snapshots
        0,
        0,  # no incompatible, compatible or automatically cleared features
        0,
        0,
        _REFCOUNT_ORDER,
        _HEADER.size,
    )
    return (
        (0, header + extensions + name),
        (_REFCOUNT_TABLE_OFFSET, struct.pack(">Q", _REFCOUNT_BLOCK_OFFSET)),
        (_REFCOUNT_BLOCK_OFFSET, struct.pack(">H", 1) * _USED_CLUSTERS),
    )


def create_overlay(path: Path, backing: Path, *, size_bytes: int | None = None) -> None:
    """Writes an empty overlay at `path`, at least as large as the raw image below it, or larger if asked.

    The image must stay as it is while an overlay stands on it.
    """
    assert backing.is_absolute(), backing
    size = plan_size(backing, size_bytes or 0)
    with atomic_file(path) as descriptor:
        os.ftruncate(descriptor, _USED_CLUSTERS * _CLUSTER)
        for offset, content in render_overlay(str(backing), size):
            os.pwrite(descriptor, content, offset)
