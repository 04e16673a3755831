"""The helper's log: one JSON line for each call on stderr. There are no secrets in a request."""

import json
import os
import time
from contextlib import suppress

TEXT_CHARACTERS_MAX = 200


class Log:
    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor

    def write(self, **fields: object) -> None:
        """Text that came from a peer is ASCII and short. A log that nobody reads any more does not end the helper."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, **fields}) + "\n"
        with suppress(OSError):
            os.write(self._descriptor, line.encode())


def shorten(text: str) -> str:
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= TEXT_CHARACTERS_MAX else plain[: TEXT_CHARACTERS_MAX - 3] + "..."
