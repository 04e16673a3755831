"""Time for records and randomness for ids, in one place so that tests can hold both still."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple


def utc_now() -> str:
    """RFC 3339 in UTC with milliseconds: sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Entropy(NamedTuple):
    """Where ids and generated names come from."""

    hexadecimal: Callable[[int], str] = lambda digits: secrets.token_hex((digits + 1) // 2)[:digits]
    number: Callable[[], int] = lambda: secrets.randbits(32)


monotonic = time.monotonic
