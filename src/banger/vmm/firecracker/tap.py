"""A tap lent to a VMM that opens taps by name only, so that none outlives whoever used it.

Firecracker takes no descriptor, and a tap has one user at a time: as long as the daemon's descriptor is open,
attaching ends with EBUSY. So the tap is made persistent and let go of, Firecracker attaches, and its descriptor is
fetched back (pidfd_getfd(2)) to end the persistence with. From then on the tap lives as long as somebody holds it,
as before. None of this needs a privilege as long as Firecracker has our uid: the helper has made the tap, its holder
may name its owner. One of another uid's is fetched from by root.

The caller's number stays his: what is behind it changes (dup2), from his open file over none to the one that he
shares with Firecracker. Kernel: drivers/net/tun.c, tun_set_iff and __tun_detach.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from banger.base.problem import Code, Problem, conflict, unavailable

_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNGETIFF = 0x400454CA, 0x400454CB, 0x400454CC, 0x800454D2
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFREQ = struct.Struct("16sH22x")
_SYS_PIDFD_GETFD = 438  # the same number everywhere
_DEVICE = "/dev/net/tun"
_BUSY_TRIES = 50
_BUSY_PAUSE_S = 0.01


def release_tap(descriptor: int, name: str, owner: int) -> None:
    """Lets a Firecracker of this uid attach; `share_tap` comes next, or `reclaim_tap`. A daemon that is killed in
    between leaves a persistent tap, which has no carrier once nobody is attached; that window is a millisecond.

    Raises `conflict` when the descriptor is not the tap's any more: a Firecracker of root's would make another of the
    same name. Owned, because anybody may attach to a tap without an owner."""
    if _read_name(descriptor) != name:
        raise conflict(f"the tap {name} is gone", hint="banger vm start NAME")
    fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
    fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)


def share_tap(descriptor: int, name: str, pid: int, pidfd: int) -> None:
    """Makes `descriptor` the process's own and ends the tap's persistence."""
    try:
        number = _find_descriptor(pid, name)
        if number is None:
            raise Problem(
                Code.OPERATION_FAILED, f"Firecracker (pid {pid}) does not hold the tap {name} it was given"
            )
        shared = _get_descriptor(pidfd, number)
    except PermissionError as error:
        raise unavailable(
            f"this host does not let banger see the descriptors of its own Firecracker (pid {pid})",
            hint="sudo sysctl kernel.yama.ptrace_scope=1",
        ) from error
    try:
        fcntl.ioctl(shared, _TUNSETPERSIST, 0)
        os.dup2(shared, descriptor, inheritable=False)
    finally:
        os.close(shared)


async def reclaim_tap(descriptor: int, name: str) -> bool:
    """The tap is the caller's alone again, wherever the loan was interrupted. Firecracker must have ended; somebody
    else who is attached is waited for a little. A tap that is gone leaves the number without one, which its owner
    takes for a tap that has died. False when the tap is there and another uid's."""
    for _ in range(_BUSY_TRIES):
        try:
            _try_reclaim(descriptor, name)
        except PermissionError:
            return False
        except OSError as error:
            if error.errno != errno.EBUSY:
                return True
        else:
            return True
        await asyncio.sleep(_BUSY_PAUSE_S)
    return True


def _try_reclaim(descriptor: int, name: str) -> None:
    """Raises OSError: EBUSY when somebody else is attached, EPERM when the tap has another owner."""
    attached_to = _read_name(descriptor)
    if attached_to is not None:
        if attached_to == name:
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 0)
        return
    socket.if_nametoindex(name)  # root would make one that is missing
    own = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(own, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        fcntl.ioctl(own, _TUNSETPERSIST, 0)
        fcntl.ioctl(own, _TUNSETOWNER, os.geteuid())
        os.dup2(own, descriptor, inheritable=False)
    finally:
        os.close(own)


def _read_name(descriptor: int) -> str | None:
    try:
        answer = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(_IFREQ.size))
    except OSError:  # EBADFD: somebody has deleted the interface
        return None
    name: bytes = _IFREQ.unpack(answer)[0]
    return name.rstrip(b"\0").decode("ascii", "replace")


def _find_descriptor(pid: int, name: str) -> int | None:
    """The process's descriptor that is attached to the tap (proc(5), fdinfo: «iff:»)."""
    wanted = f"iff:\t{name}\n".encode()
    for information in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            if wanted in information.read_bytes():
                return int(information.name)
        except FileNotFoundError:
            continue
    return None


def _get_descriptor(pidfd: int, number: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    os.set_inheritable(found, False)
    return found
