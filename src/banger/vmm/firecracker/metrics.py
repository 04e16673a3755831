"""Firecracker's own figures, read from a pipe when somebody asks.

Owns no state. A pipe, because Firecracker writes a line every minute whether anybody reads or not: what does not fit
is dropped, and the disk stays out of it.
"""

import asyncio
import os
from contextlib import suppress
from typing import Any

import msgspec

from banger.base.problem import Code, Outcome, Problem
from banger.vmm.firecracker.api import Api
from banger.vmm.firecracker.bodies import FLUSH_METRICS
from banger.vmm.firecracker.sockets import METRICS, Sockets

_CHUNK = 65536  # of a pipe, unless somebody has changed it
_LINES_MAX_BYTES = 1024 * 1024


async def read_metrics(api: Api, sockets: Sockets) -> dict[str, Any]:
    """The figures since they were last read. The caller sets the deadline. Raises OSError without the pipe."""
    descriptor = sockets.open_pipe(METRICS)
    try:
        with suppress(BlockingIOError):
            os.read(descriptor, _CHUNK)
        await api.call(FLUSH_METRICS)
        content = b""
        while len(content) < _LINES_MAX_BYTES:
            content += await _read_some(descriptor)
            for line in content.split(b"\n")[:-1]:
                with suppress(msgspec.DecodeError):  # the rest of a line that did not fit before
                    return msgspec.json.decode(line, type=dict[str, Any])
        raise Problem(Code.OPERATION_FAILED, "Firecracker's metrics are no figures")
    finally:
        os.close(descriptor)


async def _read_some(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    chunk = os.read(descriptor, _CHUNK)
    if not chunk:
        raise Problem(
            Code.NOT_RUNNING, "Firecracker ended before it told its metrics", outcome=Outcome.UNKNOWN
        )
    return chunk
