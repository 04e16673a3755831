"""Can this host's clock be right: not before what is on record, and not set while the daemon has been running?"""

from datetime import UTC, datetime, timedelta

from banger.api.system import Finding
from banger.base.clock import host_now
from banger.services.checks.contract import CheckSurroundings, passed, warned

_NAME = "clock"
_FIX = "sudo timedatectl set-ntp true"
_JUMP = timedelta(minutes=1)
_TOLERANCE = timedelta(seconds=5)


async def check(around: CheckSurroundings) -> Finding:
    """Nothing of banger's fails by it: times to live count the host's uptime. Certificates and people do."""
    now = host_now()
    newest = max((vm.updated_at for vm in around.list_rows()), default="")
    if newest and _parse(newest) - _parse(now.at) > _TOLERANCE:
        return warned(_NAME, f"it says {now.at}, and a VM was changed at {newest}: it has gone back", _FIX)
    since = around.serving_since
    if since is not None:
        by_clock = _parse(now.at) - _parse(since.at)
        jump = by_clock - timedelta(seconds=now.uptime_s - since.uptime_s)
        if abs(jump) > _JUMP:
            way = "forward" if jump > timedelta() else "back"
            text = f"it was set {way} by {_say(abs(jump))} since the daemon began; it says {now.at}"
            return warned(_NAME, text, _FIX)
    return passed(_NAME, f"{now.at}, not before what is on record")


def _parse(at: str) -> datetime:
    moment = datetime.fromisoformat(at)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _say(length: timedelta) -> str:
    return str(timedelta(seconds=round(length.total_seconds())))
