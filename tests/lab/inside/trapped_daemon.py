"""Runs in the lab as `sitecustomize` of the owner's Python, beside tests/support/load/traps.py: lays traps in banger's
daemon, and in nothing else.

Nothing happens until SIGUSR1 lets the orders in the file be read; the daemon after that one has none. A VMM and a
helper are killed from outside, by who holds the other end of the FIFO; the daemon stands still meanwhile.
"""

import os
import sys
from pathlib import Path

OUTSIDE = "outside"


def lay() -> None:
    import traps

    traps.lay_traps()
    from banger.vmm.firecracker.backend import FirecrackerVmm

    traps.wrap_vmm(FirecrackerVmm)
    traps.TRAPS.act[OUTSIDE] = stand_still


def stand_still() -> None:
    fifo = Path(os.environ["BANGER_TRAPS"]).with_name("fifo")
    fifo.write_text("reached\n")
    fifo.read_text()


if "banger.daemon" in sys.orig_argv:
    lay()
