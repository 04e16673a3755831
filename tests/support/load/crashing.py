"""The real daemon with traps laid: `python -m tests.support.load.crashing [the daemon's own arguments]`."""

import sys

from tests.support.load.traps import TRAPS, lay_traps, wrap_vmm


def main() -> int:
    lay_traps()
    from banger.daemon.main import main as run_daemon
    from banger.vmm.qemu.backend import QemuVmm

    wrap_vmm(QemuVmm)
    TRAPS.set()
    return run_daemon(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
