"""Loop devices: files that the owner has opened, as block devices (loop(4)).

Owns /dev/loop-control and the nodes that it names. Refuses what is no regular file, is not open as needed, or is
neither the owner's nor root's. Every device is of the kind that goes by itself with its last user (autoclear), so
nothing that is killed leaves one.
"""

import errno
import fcntl
import os
import stat
import struct
from typing import NamedTuple

from banger.privileged.contract.machines import SECTOR_BYTES
from banger.privileged.contract.values import Refusal, refuse
from banger.privileged.helper.managed import Root, open_below
from banger.privileged.helper.refusals import loop_missing, loop_unopened

_LOOP_MAJOR = 7
_LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
# struct loop_config, linux/loop.h: fd, block_size, then loop_info64, of which lo_flags alone is ours to say.
_LOOP_CONFIG = struct.Struct("=II 48x II 64x 64x 32x 16x 64x")
_TRIES = 64  # each lost to another process that took the number first
_TAKEN = (errno.EBUSY, errno.ENXIO, errno.ENOENT)  # the last two: removed again meanwhile
_MISSING = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)
_O_PATH = 0o10000000


class LoopDevice(NamedTuple):
    """It lives as long as somebody has it open; the descriptor is the caller's."""

    descriptor: int
    major: int
    minor: int

    @property
    def number(self) -> str:
        """As device-mapper's tables want it."""
        return f"{self.major}:{self.minor}"


def attach_loop(descriptor: int, *, read_only: bool, owner: int) -> LoopDevice:
    """The file stays the caller's. What it has beyond whole sectors is not to be seen. Raises Refusal."""
    verify_file(descriptor, read_only=read_only, owner=owner)
    control = _open_control()
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            if (found := _try_number(number, descriptor, read_only=read_only)) is not None:
                return found
    finally:
        os.close(control)
    raise Refusal("unavailable", "other processes took every free loop device first", "losetup --list")


def verify_file(descriptor: int, *, read_only: bool, owner: int) -> int:
    """Its size in bytes. Raises Refusal."""
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        raise refuse("a disk comes as a regular file")
    if state.st_uid not in (owner, 0):
        raise Refusal("unauthorized", f"a file of uid {state.st_uid} is no disk of uid {owner}'s")
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    wanted = (os.O_RDONLY, os.O_RDWR) if read_only else (os.O_RDWR,)
    if not read_only and flags & os.O_APPEND:  # the right to add to a file is none to change it
        raise refuse("a disk's file comes open for writing anywhere, not for appending")
    if flags & _O_PATH or flags & os.O_ACCMODE not in wanted:
        raise refuse(f"a disk's file comes open for reading{'' if read_only else ' and writing'}")
    if state.st_size < SECTOR_BYTES:
        raise refuse(f"a file of {state.st_size} bytes is no disk")
    return state.st_size


def verify_loops() -> None:
    """Raises Refusal where there can be none. Attaches nothing: a kernel that knows the call finds fault with the file
    first."""
    control = _open_control()
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    device = _open_device(number, os.O_RDONLY)
    try:
        fcntl.ioctl(device, _LOOP_CONFIGURE, encode_config(2**32 - 1, read_only=True))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY):
            raise Refusal(
                "unavailable", "this kernel is older than 5.8: its loop devices lack a call"
            ) from error
        if error.errno not in (errno.EBADF, *_TAKEN):
            raise
    finally:
        os.close(device)


def encode_config(file: int, *, read_only: bool) -> bytes:
    """Pure. Direct I/O is not asked for: the page cache is what several VMs of one image share."""
    return _LOOP_CONFIG.pack(file, 0, 0, _AUTOCLEAR | (_READ_ONLY if read_only else 0))


def _try_number(number: int, file: int, *, read_only: bool) -> LoopDevice | None:
    """None when somebody else was faster."""
    device = _open_device(number, os.O_RDONLY if read_only else os.O_RDWR)
    try:
        fcntl.ioctl(device, _LOOP_CONFIGURE, encode_config(file, read_only=read_only))
        place = os.fstat(device).st_rdev
        return LoopDevice(device, os.major(place), os.minor(place))
    except BaseException as error:
        os.close(device)
        if isinstance(error, OSError) and error.errno in _TAKEN:
            return None
        raise


def _open_control() -> int:
    try:
        return open_below(Root.DEVICES, ("loop-control",), os.O_RDWR)
    except OSError as error:
        if error.errno in _MISSING:
            raise loop_missing("loop-control") from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise loop_unopened("loop-control") from error
        raise


def _open_device(number: int, flags: int) -> int:
    name = f"loop{number}"
    try:
        device = open_below(Root.DEVICES, (name,), flags)
    except OSError as error:
        if error.errno in _MISSING:
            raise loop_missing(name) from error
        if error.errno in (errno.EPERM, errno.EACCES):
            raise loop_unopened(name) from error
        raise
    state = os.fstat(device)
    if not stat.S_ISBLK(state.st_mode) or os.major(state.st_rdev) != _LOOP_MAJOR:
        os.close(device)
        raise Refusal("unavailable", f"/dev/{name} is not a loop device", f"ls -l /dev/{name}")
    return device
