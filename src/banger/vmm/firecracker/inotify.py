"""What inotify(7) tells, which Python does not have. Owns no descriptor; whoever opens one closes it."""

import ctypes
import errno
import os
import struct
from contextlib import suppress
from pathlib import Path

from banger.base.problem import Problem, unavailable

MODIFIED, CREATED, MOVED_HERE = 0x2, 0x100, 0x80
ONCE = 0x80000000  # the watch goes with its first event
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024
_LIBC = ctypes.CDLL(None, use_errno=True)


def open_inotify() -> int:
    """Raises `unavailable` when the user's instances are used up."""
    try:
        return _check(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise _translate(error, "instances") from error


def add_watch(descriptor: int, path: Path, events: int) -> int:
    """The watch's number. Raises OSError for a path that is not there, `unavailable` when watches are used up."""
    try:
        return _check(_LIBC.inotify_add_watch(descriptor, os.fsencode(path), events))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _translate(error, "watches") from error
        raise


def remove_watch(descriptor: int, number: int) -> None:
    """Idempotent."""
    with suppress(OSError):
        _check(_LIBC.inotify_rm_watch(descriptor, number))


def read_events(descriptor: int) -> set[int]:
    """The numbers of the watches that have news, as far as one read brings them; -1 when some were lost."""
    try:
        data = os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return set()
    numbers, offset = set(), 0
    while offset < len(data):
        number, _, _, name_bytes = _EVENT.unpack_from(data, offset)
        numbers.add(number)
        offset += _EVENT.size + name_bytes
    return numbers


def _check(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _translate(error: OSError, what: str) -> Problem:
    limit = f"fs.inotify.max_user_{what}"
    return unavailable(
        f"this user's inotify {what} are used up: {error.strerror}", hint=f"sudo sysctl {limit}=8192"
    )
