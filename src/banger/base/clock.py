"""Time for records and randomness for ids, in one place so that tests can hold both still."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple


def utc_now() -> str:
    """RFC 3339 in UTC with milliseconds: sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class HostTime(NamedTuple):
    """Now, three ways: by the clock, which may be set; by which boot of the host; by the time since that boot."""

    at: str
    host_boot: str
    uptime_s: float


def host_now() -> HostTime:
    """The uptime counts while the host sleeps, too (CLOCK_BOOTTIME)."""
    return HostTime(utc_now(), host_boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))


@cache
def host_boot_id() -> str:
    """The kernel's name for this boot of the host (random(4)); it never changes while a process lives."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Entropy(NamedTuple):
    """Where ids and generated names come from."""

    hexadecimal: Callable[[int], str] = lambda digits: secrets.token_hex((digits + 1) // 2)[:digits]
    number: Callable[[], int] = lambda: secrets.randbits(32)


monotonic = time.monotonic
