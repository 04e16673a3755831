"""One QEMU process that is watched: its monitor, and how it ended.

Owns the QMP session from start or adoption to the conclusion or `release`.
"""

import subprocess
from pathlib import Path

from banger.vmm.contract import Exit, Handle
from banger.vmm.exits import judge_exit
from banger.vmm.logs import find_panic, read_tail
from banger.vmm.qemu.monitor import Monitor
from banger.vmm.qemu.resources import remove_sockets
from banger.vmm.watching import WatchedProcess

_LAST_WORDS_BYTES = 2048


class WatchedGuest(WatchedProcess):
    def __init__(self, handle: Handle, pidfd: int, process: "subprocess.Popen[bytes] | None") -> None:
        super().__init__(handle, pidfd, process)
        self.monitor: Monitor | None = None

    async def _conclude(self, status: int | None) -> Exit:
        reason = await self.monitor.wait_end_reason() if self.monitor else None
        remove_sockets((self.handle.agent_socket, self.handle.control_socket))
        log = Path(self.handle.serial_log)
        return judge_exit(
            reason=reason,
            status=status,
            killed=self._killed,
            panic=find_panic(log),
            last_words=read_tail(log, _LAST_WORDS_BYTES).decode("utf-8", "replace"),
        )

    async def release(self) -> None:
        if self.monitor is not None:
            await self.monitor.close()
        await super().release()
