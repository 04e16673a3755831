"""banger in the lab with traps: its daemon and helper run as before, and die where a test wants them to.

Drop-ins of /run bring that about; what is installed is not touched. inside/trapped_*.py tell how it is done.
"""

import json
from pathlib import Path

from tests.lab.machine import Machine
from tests.support.banger import ROOT
from tools.lab.channel import Running
from tools.lab.recipe import OWNER, OWNER_ID

from banger.installation.owner import Owner
from banger.installation.units import quote_command, render_helper_argv

DAEMON, HELPER, VMM = "daemon", "helper", "vmm"
OUTSIDE = "outside"
UNITS = {DAEMON: "banger", HELPER: "banger-root"}
_INSIDE = Path(__file__).parent / "inside"
_CODE, _ORDERS = "/opt/traps", "/run/banger-traps"
_FILES = {
    f"{_CODE}/traps.py": ROOT / "tests" / "support" / "load" / "traps.py",
    f"{_CODE}/sitecustomize.py": _INSIDE / "trapped_daemon.py",
    f"{_CODE}/banger-root": _INSIDE / "trapped_helper.py",
}
_FIFO, _POINTS = f"{_ORDERS}/fifo", f"{_ORDERS}/points"
_DAEMON_DROP_IN = f"""\
[Service]
Environment=PYTHONPATH={_CODE} BANGER_TRAPS={_ORDERS}/daemon
ReadWritePaths={_ORDERS}
"""
_HELPER_DROP_IN = """\
[Service]
ExecStart=
ExecStart=/usr/bin/python3 -I -S {code}/banger-root {command}
ReadWritePaths={orders}
"""
_DEATH_S = 180


def lay_traps(lab: Machine) -> None:
    owner = Owner(name=OWNER, uid=OWNER_ID, gid=OWNER_ID, home=f"/home/{OWNER}")
    program, *arguments = render_helper_argv(owner)
    command = quote_command((program, f"{_ORDERS}/helper", *arguments))
    lab.sh(f"mkdir -p {_CODE} {_ORDERS}; chown {OWNER} {_ORDERS}; mkfifo -m 666 {_FIFO}")
    for path, source in _FILES.items():
        lab.put(path, source.read_bytes())
    drop_ins = {
        DAEMON: _DAEMON_DROP_IN,
        HELPER: _HELPER_DROP_IN.format(code=_CODE, command=command, orders=_ORDERS),
    }
    for who, text in drop_ins.items():
        directory = f"/run/systemd/system/{UNITS[who]}.service.d"
        lab.sh(f"mkdir -p {directory}")
        lab.put(f"{directory}/traps.conf", text.encode())
    lab.sh("systemctl daemon-reload; systemctl restart banger-root banger")
    lab.wait_ready()


def start_standstill(lab: Machine, point: str) -> Running:
    """The daemon will stand still there for good; ends when it does. For who ends more than the daemon."""
    _arm_daemon(lab, point, OUTSIDE)
    return lab.start(("head", "-n", "1", _FIFO), timeout_s=_DEATH_S)


class Trap:
    """One death, armed: of the daemon at a point in the words of traps.py, of the helper in the midst of a request, or
    of the VMM that was begun last, while the daemon stands still at such a point."""

    def __init__(self, lab: Machine, victim: str, point: str) -> None:
        if victim == HELPER:
            lab.put(f"{_ORDERS}/helper", point.encode())
        else:
            _arm_daemon(lab, point, DAEMON if victim == DAEMON else OUTSIDE)
        if victim == VMM:
            script = f"head -n 1 {_FIFO}; pkill -KILL --newest --exact firecracker; echo go > {_FIFO}"
        else:
            restarts = f"systemctl show {UNITS[victim]} --property=NRestarts --value"
            before = lab.sh(restarts).strip()
            script = f"until [ $({restarts}) -gt {before} ]; do sleep 0.2; done"
        self._death = lab.start(("sh", "-ec", script), timeout_s=_DEATH_S)

    def wait(self) -> None:
        """Until it has come; by then systemd restarts who was killed."""
        done = self._death.wait()
        assert done.status == 0, f"nobody was killed: {done}"


def _arm_daemon(lab: Machine, point: str, act: str) -> None:
    orders = {"at": point, "what": act, "record": _POINTS}
    lab.put(f"{_ORDERS}/daemon", json.dumps(orders).encode(), user=OWNER)
    lab.sh(
        f"rm -f {_POINTS}; kill -USR1 $(systemctl show banger --property=MainPID --value);"
        f"until [ -e {_POINTS} ]; do sleep 0.1; done",
        timeout_s=60,
    )
