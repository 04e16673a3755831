"""Moments that can be told apart from the host's clock: how long ago something was, whatever the clock did since.

A clock may be set, forwards or back, by a person or by NTP; the host's uptime may not. So within one boot of the
host only the uptime counts, and the wall clock only across a reboot, where nothing else is left.
"""

from datetime import UTC, datetime

import msgspec


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is RFC 3339 in UTC, for people; `uptime_s` is CLOCK_BOOTTIME of the boot `host_boot`, sleep included."""

    at: str
    host_boot: str
    uptime_s: float


class Ttl(msgspec.Struct, frozen=True, kw_only=True):
    """How long something may live, counted from a moment."""

    seconds: float
    since: Moment

    def left_s(self, now: Moment) -> float:
        """Zero or less when it is over."""
        return self.seconds - elapsed_s(self.since, now)


def settle_ttl(before: Ttl | None, asked_s: float | None, now: Moment) -> Ttl | None:
    """Of a VM that starts, or is given another: counted from now, as asked for, else as long as it was before."""
    seconds = asked_s if asked_s is not None else before.seconds if before else None
    return None if seconds is None else Ttl(seconds=seconds, since=now)


def elapsed_s(since: Moment, now: Moment) -> float:
    """Seconds between two moments, never negative."""
    if since.host_boot == now.host_boot:
        return max(0.0, now.uptime_s - since.uptime_s)
    return max(0.0, (_parse(now.at) - _parse(since.at)).total_seconds())


def surely_elapsed_s(since: Moment, now: Moment) -> float:
    """Seconds that have passed whatever the clock says: across a reboot of the host, those since that. For what
    ends something, because a clock that is wrong when the host comes up must not."""
    return now.uptime_s if since.host_boot != now.host_boot else elapsed_s(since, now)


def _parse(at: str) -> datetime:
    moment = datetime.fromisoformat(at)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
