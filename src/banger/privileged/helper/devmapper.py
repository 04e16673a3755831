"""The kernel's device-mapper, spoken to directly (linux/dm-ioctl.h): devices that are ours, by their UUIDs.

Owns the encoding and one open control node. Knows nothing of VMs. Devices have a name for people and a UUID, by which
everything but their making addresses them: somebody else's device of the same name is never touched.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.managed import Root, open_below, read_below
from banger.privileged.helper.refusals import device_mapper_missing, device_mapper_unopened

_VERSION, _LIST, _CREATE, _REMOVE, _SUSPEND, _STATUS = 0, 2, 3, 4, 6, 7  # _SUSPEND without its flag resumes
_LOAD, _TABLE_STATUS, _TARGET_VERSION = 9, 12, 17
READ_ONLY, ACTIVE_TABLE, INACTIVE_TABLE, BUFFER_FULL = 1 << 0, 1 << 5, 1 << 6, 1 << 8
_QUERY_INACTIVE = 1 << 12
# What a guest has written may look like a file system of the host's, or a part of its volumes: udev is to look at none
# of it, and makes the device's own names only (libdevmapper.h: DM_UDEV_…; without a number nobody waits for it).
_DISABLE_SUBSYSTEM, _DISABLE_DISK, _DISABLE_OTHER, _PRIMARY_SOURCE = 1 << 1, 1 << 2, 1 << 3, 1 << 6
_UDEV_FLAGS = (_DISABLE_SUBSYSTEM | _DISABLE_DISK | _DISABLE_OTHER | _PRIMARY_SOURCE) << 16

# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, dev, name, uuid
_HEADER = struct.Struct("=3I I I I i I I 4x Q 128s 129s 7x")
_TARGET = struct.Struct("=Q Q i I 16s")  # struct dm_target_spec: start, length, status, next, type
_DEVICE = struct.Struct("=Q I")  # struct dm_name_list: dev, next; a name follows
_INTERFACE = (4, 0, 0)
_BUFFER_BYTES, _BUFFER_BYTES_MAX = 16 * 1024, 4 * 1024 * 1024
_CALL = 0xC000FD00 | _HEADER.size << 16  # _IOWR(0xfd, 0, struct dm_ioctl)
_GONE = errno.ENXIO
_MISSING = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)


class Target(NamedTuple):
    """A piece of a device's table, in sectors. `text` are its parameters, or its status when it is read."""

    start: int
    length: int
    kind: str
    text: str


class Device(NamedTuple):
    """`targets` are those of one table; none when there is no such table."""

    major: int
    minor: int
    open_count: int
    flags: int
    targets: tuple[Target, ...]


class Header(NamedTuple):
    """What the kernel says of a device before any data."""

    version: tuple[int, int, int]
    data_start: int
    target_count: int
    open_count: int
    flags: int
    device: int


class DeviceMapper:
    """Raises OSError as the kernel has it: EBUSY for a name or UUID that is taken and for a device in use."""

    def __init__(self, control: int) -> None:
        self._control = control

    def get_version(self) -> tuple[int, int, int]:
        header, _ = self._call(_VERSION)
        return header.version

    def has_target(self, kind: str) -> bool:
        """The kernel loads what it lacks, if it has it."""
        try:
            self._call(_TARGET_VERSION, name=kind)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
        return True

    def create(self, name: str, uuid: str) -> None:
        """Without a table: `load`, then `resume`."""
        self._call(_CREATE, name=name, uuid=uuid)

    def load(self, uuid: str, targets: Sequence[Target], *, read_only: bool = False) -> None:
        flags = READ_ONLY if read_only else 0
        self._call(_LOAD, uuid=uuid, flags=flags, count=len(targets), data=encode_targets(targets))

    def resume(self, uuid: str) -> None:
        """The table that was loaded is the device's from now on."""
        self._call(_SUSPEND, uuid=uuid, event=_UDEV_FLAGS)

    def remove(self, uuid: str) -> bool:
        """False when there is none."""
        try:
            self._call(_REMOVE, uuid=uuid)
        except OSError as error:
            if error.errno == _GONE:
                return False
            raise
        return True

    def find(self, uuid: str, *, loaded: bool = False) -> Device | None:
        """With the status of its table; with `loaded`, of the one that waits for `resume`."""
        try:
            header, data = self._call(_TABLE_STATUS, uuid=uuid, flags=_QUERY_INACTIVE if loaded else 0)
        except OSError as error:
            if error.errno == _GONE:
                return None
            raise
        targets = decode_targets(data, header.target_count)
        place = header.device
        return Device(os.major(place), os.minor(place), header.open_count, header.flags, targets)

    def list_names(self) -> tuple[str, ...]:
        """Of everybody's devices."""
        return decode_names(self._call(_LIST)[1])

    def _call(
        self,
        command: int,
        *,
        name: str = "",
        uuid: str = "",
        flags: int = 0,
        count: int = 0,
        event: int = 0,
        data: bytes = b"",
    ) -> tuple[Header, bytes]:
        size = max(_BUFFER_BYTES, _HEADER.size + len(data))
        while True:
            message = encode_message(
                size, name=name, uuid=uuid, flags=flags, count=count, event=event, data=data
            )
            fcntl.ioctl(self._control, _CALL | command, message)
            header = decode_header(message)
            if not header.flags & BUFFER_FULL:
                return header, bytes(message[header.data_start :])
            if size >= _BUFFER_BYTES_MAX:
                raise Refusal("unavailable", "this host has too many device-mapper devices to list")
            size *= 4


@contextmanager
def open_mapper() -> Iterator[DeviceMapper]:
    """Raises Refusal `unavailable` where there is none. Opening it may load the kernel's module."""
    try:
        control = open_below(Root.DEVICES, ("mapper", "control"), os.O_RDWR)
    except OSError as error:
        if error.errno in _MISSING:
            raise device_mapper_missing() from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise device_mapper_unopened() from error
        raise
    try:
        yield DeviceMapper(control)
    finally:
        os.close(control)


def is_loaded() -> bool:
    """Whether this kernel can have devices at all: nothing is to be loaded only to find that there are none."""
    return "device-mapper" in read_below(Root.PROCESSES, ("misc",)).split()


def encode_message(
    size: int,
    *,
    name: str = "",
    uuid: str = "",
    flags: int = 0,
    count: int = 0,
    event: int = 0,
    data: bytes = b"",
) -> bytearray:
    """A buffer of `size` bytes for question and answer. Pure."""
    message = bytearray(size)
    _HEADER.pack_into(
        message, 0, *_INTERFACE, size, _HEADER.size, count, 0, flags, event, 0, name.encode(), uuid.encode()
    )
    message[_HEADER.size : _HEADER.size + len(data)] = data
    return message


def decode_header(message: bytes | bytearray) -> Header:
    """Pure."""
    major, minor, patch, _, start, count, open_count, flags, _, device, _, _ = _HEADER.unpack_from(message)
    return Header((major, minor, patch), start, count, open_count, flags, device)


def encode_targets(targets: Sequence[Target]) -> bytes:
    """Each with the distance to the next from its own begin. Pure."""
    parts = []
    for target in targets:
        text = target.text.encode() + b"\0"
        text += bytes(-len(text) % 8)
        size = _TARGET.size + len(text)
        parts.append(_TARGET.pack(target.start, target.length, 0, size, target.kind.encode()) + text)
    return b"".join(parts)


def decode_targets(data: bytes, count: int) -> tuple[Target, ...]:
    """As the kernel answers: distances are from the begin of the first. Pure."""
    targets = []
    offset = 0
    for _ in range(count):
        start, length, _, following, kind = _TARGET.unpack_from(data, offset)
        text = _read_text(data, offset + _TARGET.size)
        targets.append(Target(start, length, kind.rstrip(b"\0").decode(), text))
        offset = following
    return tuple(targets)


def decode_names(data: bytes) -> tuple[str, ...]:
    """Each with the distance to the next from its own begin, 0 for the last. Pure."""
    names = []
    offset = 0
    while True:
        device, following = _DEVICE.unpack_from(data, offset)
        if device == 0:  # the answer when there are none
            break
        names.append(_read_text(data, offset + _DEVICE.size))
        if following == 0:
            break
        offset += following
    return tuple(names)


def _read_text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode("utf-8", "replace")
