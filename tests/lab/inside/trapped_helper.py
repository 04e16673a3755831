"""Runs in the lab as root in place of banger's helper: the same code, which kills itself once, in the middle of the
request that the file of orders names.

`python3 -I -S banger-root ARCHIVE ORDERS …`; what follows are the helper's own arguments.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from banger.privileged.helper import __main__ as helper
from banger.privileged.helper import jails, snapshots

ORDERS = Path(sys.argv[2])
POINTS = {
    "attach_snapshot": (snapshots, "_make"),
    "launch_vmm": (jails, "LaunchedVmm"),
    "settle_vmm": (jails, "unstage"),
}


def trap(request, owner, name):
    """After what comes about in the middle of `request`: one of two devices, a process in its jail, a jail half empty."""
    real = getattr(owner, name)

    def trapped(*arguments, **options):
        done = real(*arguments, **options)
        if ORDERS.exists() and ORDERS.read_text() == request:
            ORDERS.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, name, trapped)


for request, point in POINTS.items():
    trap(request, *point)
helper.main(sys.argv[3:])
