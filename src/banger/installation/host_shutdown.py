"""`ExecStop` of the daemon's unit: when the host goes down, the VMs are stopped in order first.

A restart of the daemon never touches a VM, and so neither does systemd: without this, guests would lose what they
had not written when the host kills what is left. `python -m banger.installation.host_shutdown`.
"""

import os
import select
import sys

from banger.base.process import find_tool
from banger.client.blocking import Connection, find_connection
from banger.client.wire import Failure
from banger.installation.programs import run

_DEADLINE_S = 140  # TimeoutStopSec of the unit is longer


def main() -> int:
    """Silent success in every other case: a restart goes on."""
    try:
        if not is_host_stopping():
            return 0
        connection = find_connection()
        if connection is not None:
            with connection:
                _stop(connection)
    except Failure as failure:
        sys.stderr.write(f"{failure.message}\n")
    return 0


def _stop(connection: Connection) -> None:
    """Returns when the daemon has ended: a signal of systemd's before that would make it hurry."""
    process = os.pidfd_open(connection.daemon_pid)
    try:
        connection.call("daemon.stop")
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(_DEADLINE_S * 1000)
    finally:
        os.close(process)


def is_host_stopping() -> bool:
    systemctl = find_tool("systemctl")
    if systemctl is None:
        return False
    return run((str(systemctl), "is-system-running"), timeout_s=10, check=False).stdout.strip() == "stopping"


if __name__ == "__main__":
    sys.exit(main())
