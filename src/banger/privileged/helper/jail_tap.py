"""The tap that a VMM has attached to by its name, taken back to end its persistence.

From then on the tap lives as long as somebody holds it: the VMM, or the daemon, who is sent a descriptor. Only a
process that lives in a jail is looked into (pidfd_getfd(2)), and only what proves to be this tap leaves it.
"""

import ctypes
import errno
import fcntl
import os
import struct

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.managed import Root, list_names, open_below, read_below

_TUNSETPERSIST, _TUNGETIFF = 0x400454CB, 0x800454D2
_IFREQ = struct.Struct("16sH22x")
_SYS_PIDFD_GETFD = 438  # the same number everywhere


def take_tap(pid: int, pidfd: int, name: str) -> int:
    """A descriptor of the process's own tap, which is not persistent any more. Raises Refusal `not_found`."""
    number = _find_descriptor(pid, name)
    if number is None:
        raise _not_held(pid, name)
    try:
        tap = _get_descriptor(pidfd, number)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ESRCH):  # closed, or gone with its process
            raise _not_held(pid, name) from error
        raise
    try:
        if _read_name(tap) != name:
            raise _not_held(pid, name)
        fcntl.ioctl(tap, _TUNSETPERSIST, 0)
    except BaseException:
        os.close(tap)
        raise
    return tap


def _find_descriptor(pid: int, name: str) -> int | None:
    """proc(5), fdinfo: «iff:»."""
    wanted = f"iff:\t{name}"
    try:
        directory = open_below(Root.PROCESSES, (str(pid), "fdinfo"), os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        for number in list_names(directory):
            try:
                if wanted in read_below(directory, (number,)).splitlines():
                    return int(number)
            except FileNotFoundError:
                continue
    except ProcessLookupError:
        return None
    finally:
        os.close(directory)
    return None


def _get_descriptor(pidfd: int, number: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    os.set_inheritable(found, False)
    return found


def _read_name(descriptor: int) -> str | None:
    """None for what is no tap (any more)."""
    try:
        answer = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(_IFREQ.size))
    except OSError:
        return None
    name: bytes = _IFREQ.unpack(answer)[0]
    return name.rstrip(b"\0").decode("ascii", "replace")


def _not_held(pid: int, name: str) -> Refusal:
    return Refusal("not_found", f"process {pid} does not hold the tap {name}")
