"""The real daemon on the fake host: `banger.daemon.main` with other VMMs behind the same wiring, and traps laid.

`prepare` once in a process, before anything of the daemon is imported; `run` as often as it is forked.
`python -m tests.support.load.daemon` is one daemon by itself.
"""

import os
import signal
import sys
from collections.abc import Sequence

from tests.support.load.link import HOST, HostLink
from tests.support.load.traps import TRAPS, VMM, lay_traps, wrap_vmm


def prepare() -> None:
    lay_traps()
    from tests.support.load.vmm import JailedVmm, PlainVmm

    wrap_vmm(JailedVmm)
    wrap_vmm(PlainVmm)
    from banger.vmm.firecracker import backend as firecracker
    from banger.vmm.qemu import backend as qemu

    firecracker.FirecrackerVmm, qemu.QemuVmm = JailedVmm, PlainVmm
    from banger.daemon import main, wiring
    from banger.services.hostnet import names

    assert main.main
    assert wiring.open_services
    # Tests ask from loopback, where the fake of root has opened port 53.
    names.NameServer._is_near = lambda *_: True
    TRAPS.act[VMM] = _kill_vmms


def run(arguments: Sequence[str]) -> int:
    """The exit status. Traps that are ordered already hold from the first line on."""
    from banger.daemon import main

    signal.signal(signal.SIGUSR1, TRAPS.set)
    TRAPS.set()
    return main.main(list(arguments))


def _kill_vmms() -> None:
    link = HostLink(os.environ[HOST])
    try:
        link.order("kill_vmms")
    finally:
        link.close()


if __name__ == "__main__":
    prepare()
    sys.exit(run(sys.argv[1:]))
