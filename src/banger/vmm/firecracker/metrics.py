"""Firecracker's own figures, read from a pipe when somebody asks.

Owns no state. A pipe, because Firecracker writes a line every minute whether anybody reads or not: what does not fit
is dropped, and the disk stays out of it.
"""

import asyncio
import os
from contextlib import suppress
from typing import Any

import msgspec

from banger.vmm.firecracker.api import Api
from banger.vmm.firecracker.bodies import FLUSH_METRICS

_CHUNK = 65536


async def read_metrics(api: Api, path: str) -> dict[str, Any]:
    """The figures since they were last read. The caller sets the deadline."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _read_all(descriptor)
        await api.call(FLUSH_METRICS)
        content = b""
        while True:
            content += await _read_some(descriptor)
            for line in content.split(b"\n")[:-1]:
                with suppress(msgspec.DecodeError):  # the rest of a line that did not fit before
                    return msgspec.json.decode(line, type=dict[str, Any])
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    content = b""
    with suppress(BlockingIOError):
        while chunk := os.read(descriptor, _CHUNK):
            content += chunk
    return content


async def _read_some(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return _read_all(descriptor)
