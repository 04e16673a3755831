"""Which process a handle means: a pid alone is reused, a pid with its start time is not.

Owns nothing but the descriptors it hands out. A pidfd is opened first and the start time read after, so the
descriptor is known to name the very process that was checked (pidfd_open(2)).
"""

import errno
import os
import signal
from contextlib import suppress
from pathlib import Path


def find_start_time(pid: int) -> int | None:
    """Clock ticks from boot to the process's start (proc(5), stat field 22); None when there is none
    or only its unreaped remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the command's name may hold blanks and parentheses
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def find_process(pid: int, start_time: int) -> int | None:
    """A pidfd for exactly this process, to be closed by the caller; None when it is gone."""
    descriptor = open_pidfd(pid)
    if descriptor is None or find_start_time(pid) == start_time:
        return descriptor
    os.close(descriptor)
    return None


def open_pidfd(pid: int) -> int | None:
    """For whichever process has the pid now; None when none has."""
    try:
        return os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # a thread's id, on old kernels and new ones
            return None
        raise


def kill_process(pidfd: int) -> None:
    """SIGKILL to the process behind the descriptor; no effect when it has gone."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
