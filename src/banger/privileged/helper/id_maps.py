"""Subordinate ids for a user namespace of the owner's: what newuidmap(1) does, for a daemon that may not execute it.

The ids are those that root has put down for the owner in /etc/subuid and /etc/subgid. Which namespace may get them is
the kernel's to judge, since only that cannot be raced: both maps are opened and written with the owner's effective uid
and no capability but CAP_SETUID and CAP_SETGID, and so they must be of a namespace that the owner has made below ours
and that has no map yet (user_namespaces(7)). What is read before is for the words of the refusal.
"""

import ctypes
import errno
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from banger.privileged.contract.values import Refusal, refuse
from banger.privileged.helper.managed import Root, open_below, read_below, read_trusted
from banger.privileged.helper.processes import PID_MAX, parse_real_gid, parse_real_uid, parse_start_time
from banger.privileged.helper.refusals import (
    ids_missing,
    namespace_mapped,
    process_foreign,
    process_gone,
    process_mistaken,
)

IDS = 65536
_ID_END = 2**32 - 1  # that one is no id: -1 in the calls
_LINE = re.compile(r"([^:]+):([0-9]{1,10}):([0-9]{1,10})")
_MAPS = ("uid_map", "gid_map")
_CAPABILITIES = 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID
_CAPABILITY_VERSION = 0x20080522  # of 64 capabilities, capget(2)


class Owner(NamedTuple):
    name: str
    uid: int
    gid: int


def map_ids(pid: int, start_time: int, uid: int) -> None:
    """Raises Refusal."""
    if uid == 0:
        raise refuse("root needs no subordinate ids")
    if pid > PID_MAX:
        raise refuse(f"{pid} is no process")
    owner = _get_owner(uid)
    try:
        # All that follows is of the process that this descriptor names, whoever has its pid later.
        process = open_below(Root.PROCESSES, (str(pid),), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise process_gone(pid) from None
    try:
        _verify(process, pid, start_time, owner)
        _write(process, pid, owner, _render_maps(owner))
    except (FileNotFoundError, ProcessLookupError):
        raise process_gone(pid) from None
    finally:
        os.close(process)


def _get_owner(uid: int) -> Owner:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise Refusal("unavailable", f"uid {uid} has no name on this host", f"getent passwd {uid}") from None
    return Owner(entry.pw_name, uid, entry.pw_gid)


def _verify(process: int, pid: int, start_time: int, owner: Owner) -> None:
    if parse_start_time(read_below(process, ("stat",))) != start_time:
        raise process_mistaken(pid)
    status = read_below(process, ("status",))
    # newgidmap(1) wants the primary group, too: a group that was left or lent is not made root of anything.
    if (parse_real_uid(status), parse_real_gid(status)) != (owner.uid, owner.gid):
        raise process_foreign(pid)
    if any(read_below(process, (name,)) for name in _MAPS):
        raise namespace_mapped(pid)


def _render_maps(owner: Owner) -> tuple[bytes, bytes]:
    """As `unshare --map-auto --map-root-user` has them made, so that trees of either way are the other's."""
    maps = []
    for file, own in (("subuid", owner.uid), ("subgid", owner.gid)):
        first = find_first_id(read_trusted(Root.CONFIGURATION, (file,)), owner, own)
        if first is None:
            raise ids_missing(owner.name, f"/etc/{file}")
        maps.append(f"0 {own} 1\n1 {first} {IDS - 1}\n".encode())
    return maps[0], maps[1]


def find_first_id(text: str, owner: Owner, own: int) -> int | None:
    """Of the first range that has enough ids and neither root nor `own` among them; the owner stands there by name or
    by number (subuid(5)). Pure."""
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line.strip())) and match[1] in (owner.name, str(owner.uid)):
            first, count = int(match[2]), int(match[3])
            if count >= IDS and 0 < first <= _ID_END - count and own not in range(first, first + IDS):
                return first
    return None


def _write(process: int, pid: int, owner: Owner, maps: tuple[bytes, bytes]) -> None:
    opened: list[int] = []
    with _acting_as(owner.uid):
        try:
            opened.extend(open_below(process, (name,), os.O_WRONLY) for name in _MAPS)
            for descriptor, text in zip(opened, maps, strict=True):
                os.write(descriptor, text)
        except PermissionError as error:
            raise Refusal(
                "unauthorized", f"process {pid} is not in a user namespace that the owner has made here"
            ) from error
        finally:
            for descriptor in opened:
                os.close(descriptor)


@contextmanager
def _acting_as(uid: int) -> Iterator[None]:
    """The owner may not signal or trace us meanwhile: real and saved uid stay root's (kill(2), ptrace(2))."""
    os.seteuid(uid)  # takes all effective capabilities
    try:
        _raise_capabilities(_CAPABILITIES)
        yield
    finally:
        os.seteuid(0)  # gives back all that are permitted


def _raise_capabilities(wanted: int) -> None:
    """These of the permitted ones become the effective ones of this thread. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (
        ctypes.c_uint32 * 6
    )()  # effective, permitted, inheritable: of capabilities 0 to 31, then of the others
    failed = libc.capget(header, sets)
    sets[0], sets[3] = wanted, 0
    if failed or libc.capset(header, sets):
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, f"capabilities: {os.strerror(number)}")
