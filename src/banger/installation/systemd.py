"""systemd, as far as the two units need it: systemctl and journalctl with fixed arguments."""

from banger.client.wire import Failure
from banger.installation import places
from banger.installation.host import Host
from banger.installation.programs import Ended, run

UNITS = (places.HELPER_UNIT_NAME, places.DAEMON_UNIT_NAME)
_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 200.0  # longer than TimeoutStopSec
_JOURNAL_LINES = 8


def start_units(host: Host) -> None:
    """Enabled and, if they ran already, started anew. The VMs are not theirs to stop (KillMode=process)."""
    _systemctl(host, "daemon-reload")
    _systemctl(host, "enable", *UNITS)
    restart_units(host)


def restart_units(host: Host) -> None:
    try:
        _systemctl(host, "restart", *UNITS, timeout_s=_STOP_TIMEOUT_S)
    except Failure as failure:
        unit = next((unit for unit in UNITS if not is_active(host, unit)), places.DAEMON_UNIT_NAME)
        failure.detail = read_journal(host, unit) or failure.detail
        failure.hint = f"journalctl -u {unit}; then: sudo banger system restart"
        raise


def stop_unit(host: Host, unit: str) -> None:
    """Stopped and not started again at the next boot. One that there is not is no error."""
    if _systemctl(host, "cat", unit, check=False).status == 0:
        _systemctl(host, "disable", "--now", unit, timeout_s=_STOP_TIMEOUT_S)


def forget_units(host: Host) -> None:
    """Their files have gone."""
    _systemctl(host, "daemon-reload")
    _systemctl(host, "reset-failed", *UNITS, check=False)


def find_state(host: Host, unit: str) -> str:
    """`active`, `inactive`, `failed` or another word of systemctl's."""
    return _systemctl(host, "is-active", unit, check=False).stdout.strip() or "unknown"


def is_active(host: Host, unit: str) -> bool:
    return find_state(host, unit) == "active"


def read_journal(host: Host, unit: str) -> str | None:
    """What the unit's processes said last, for a failure's detail. systemd's own remarks on it are left out."""
    if host.journalctl is None:
        return None
    lines = str(_JOURNAL_LINES)
    argv = (host.journalctl, f"_SYSTEMD_UNIT={unit}", "--lines", lines, "--no-pager", "--output", "cat")
    return run(argv, timeout_s=_TIMEOUT_S, check=False).stdout.strip() or None


def _systemctl(host: Host, *words: str, check: bool = True, timeout_s: float = _TIMEOUT_S) -> Ended:
    assert host.systemctl is not None
    return run((host.systemctl, "--no-ask-password", *words), timeout_s=timeout_s, check=check)
