"""One QEMU process that is watched: its descriptor, its monitor, and how it ended.

Owns the pidfd and the QMP session from start or adoption to `conclude` or `release`. Invariant: `gone`
is done if and only if the kernel has said that the process ended.
"""

import asyncio
import os
import subprocess
from pathlib import Path

from banger.vmm.contract import Exit, Handle
from banger.vmm.exits import judge_exit
from banger.vmm.identity import kill_process
from banger.vmm.logs import find_panic, read_tail
from banger.vmm.qemu.monitor import Monitor
from banger.vmm.qemu.resources import remove_sockets

_LAST_WORDS_BYTES = 2048


class WatchedGuest:
    """A process known to be the one its handle names, which may end at any moment."""

    def __init__(self, handle: Handle, pidfd: int, process: "subprocess.Popen[bytes] | None") -> None:
        self.handle = handle
        self.monitor: Monitor | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pidfd = pidfd
        self._process = process
        self._killed = False
        self._exit: Exit | None = None
        self._concluding = asyncio.Lock()
        asyncio.get_running_loop().add_reader(pidfd, self._notice_end)  # pidfd_open(2): readable at the end

    def _notice_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if not self.gone.done():
            self.gone.set_result(None)

    def kill(self) -> None:
        if not self.gone.done():
            self._killed = True
            kill_process(self._pidfd)

    async def wait_exit(self) -> Exit:
        """Any number of callers may wait; the first to wake reaps and cleans up."""
        await asyncio.shield(self.gone)
        async with self._concluding:
            if self._exit is None:
                self._exit = await self._conclude()
            return self._exit

    async def _conclude(self) -> Exit:
        reason = await self.monitor.wait_end_reason() if self.monitor else None
        status = None if self._process is None else self._process.wait()
        remove_sockets((self.handle.agent_socket, self.handle.control_socket))
        log = Path(self.handle.serial_log)
        verdict = judge_exit(
            reason=reason,
            status=status,
            killed=self._killed,
            panic=find_panic(log),
            last_words=read_tail(log, _LAST_WORDS_BYTES).decode("utf-8", "replace"),
        )
        os.close(self._pidfd)
        return verdict

    async def release(self) -> None:
        """Lets go of a guest that runs on."""
        if self.monitor is not None:
            await self.monitor.close()
        if self._exit is None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
