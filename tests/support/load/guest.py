"""What runs in a process of the fake host's that stands for a VMM: a guest of `guest.fake` on an inherited socket.

Owns its process. Its status tells how it ended: 0 after a power-off, `REBOOT` after a reset, as a VMM that is told not
to reboot ends. The guest's /root is a scratch directory with a link to each disk, so that a command writes to it.
"""

import asyncio
import os
import random
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from banger.guest.entries import Listener
from banger.guest.fake import FakeGuest

REBOOT = 3
_SSH = Listener("tcp", "0.0.0.0", 22, 1, "sshd")


class Boot(NamedTuple):
    """/root has a link to each of `disks`, by its file's stem. `delay_ms` is a range; the guest is silent that long."""

    boot_id: str
    scratch: Path
    disks: Sequence[str]
    delay_ms: tuple[float, float]


def run_guest(listener: socket.socket, boot: Boot) -> None:
    """Until it is ended. Never returns to the host's code: whoever forks calls os._exit behind it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    asyncio.run(_serve(listener, boot))


async def _serve(listener: socket.socket, boot: Boot) -> None:
    guest = FakeGuest(
        boot.scratch,
        boot_id=boot.boot_id,
        on_power_off=lambda: os._exit(0),
        on_reboot=lambda: os._exit(REBOOT),
    )
    guest.listeners = (_SSH,)
    for path in boot.disks:
        (boot.scratch / "root" / Path(path).stem).symlink_to(path)
    one_at_a_time = asyncio.Lock()
    booted = asyncio.get_running_loop().time() + random.uniform(*boot.delay_ms) / 1000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with one_at_a_time:
            await asyncio.sleep(booted - asyncio.get_running_loop().time())
            await guest.serve(reader, writer)

    server = await asyncio.start_unix_server(serve, sock=listener)
    async with server:
        await server.serve_forever()
