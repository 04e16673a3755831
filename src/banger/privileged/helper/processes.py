"""Signals to VMMs: to a process that can be proven to be the one that is meant, by its pidfd, and to no other.

The proof is its start time, and that it runs as the owner, who could signal it without us, or lives in a VM's jail.
All are read after the pidfd was opened: a pid that is reused meanwhile has another start time, and the signal goes to
what the pidfd names.
"""

import os
import signal
from contextlib import suppress
from typing import NamedTuple

from banger.privileged.contract.values import Refusal, refuse
from banger.privileged.helper.jail_place import find_jail_of
from banger.privileged.helper.managed import Root, read_below
from banger.privileged.helper.refusals import process_foreign, process_mistaken

PID_MAX = 2**22  # PID_MAX_LIMIT, linux/threads.h
_DEAD = "ZX"
_STAT_START_TIME = 19  # the 22nd field of proc_pid_stat(5), counted after the command's closing parenthesis


class Identity(NamedTuple):
    start_time: int
    uid: int
    alive: bool = True


def signal_vmm(pid: int, start_time: int, number: int, owner: int) -> None:
    """Nothing happens when it is gone. Raises Refusal `unauthorized`."""
    if pid > PID_MAX:
        raise refuse(f"{pid} is no process")
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError as error:  # EINVAL or ENOENT: a thread's id
        raise Refusal("unauthorized", f"{pid} is no process") from error
    try:
        identity = find_identity(pid)
        if identity is None:
            return
        if identity.start_time != start_time:
            raise process_mistaken(pid)
        if identity.uid != owner and find_jail_of(pid, identity.uid) is None:
            raise process_foreign(pid)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def find_identity(pid: int) -> Identity | None:
    """None when there is no such process."""
    try:
        state = read_below(Root.PROCESSES, (str(pid), "stat"))
        status = read_below(Root.PROCESSES, (str(pid), "status"))
        return Identity(parse_start_time(state), parse_real_uid(status), parse_state(state) not in _DEAD)
    except (FileNotFoundError, ProcessLookupError):
        return None


def parse_start_time(state: str) -> int:
    """Clock ticks since boot. The command in parentheses may hold anything, parentheses and spaces too. Pure."""
    return int(state.rpartition(")")[2].split()[_STAT_START_TIME])


def parse_state(state: str) -> str:
    """One letter. Pure."""
    return state.rpartition(")")[2].split()[0]


def parse_real_uid(status: str) -> int:
    """Pure."""
    return _parse_real(status, "Uid:")


def parse_real_gid(status: str) -> int:
    """Pure."""
    return _parse_real(status, "Gid:")


def _parse_real(status: str, name: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1])
