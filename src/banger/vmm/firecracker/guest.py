"""One Firecracker process that is watched: its descriptor, its API, and how it ended.

Owns the pidfd, the API's connection and the knock from start or adoption to `_conclude` or `release`. Invariant:
`gone` is done if and only if the kernel has said that the process ended.
"""

import asyncio
import os
import subprocess
from pathlib import Path

from banger.vmm.contract import Exit, Handle
from banger.vmm.firecracker.agent_stream import Knock
from banger.vmm.firecracker.api import Api
from banger.vmm.firecracker.ending import judge_ending
from banger.vmm.firecracker.place import clear_place
from banger.vmm.identity import kill_process
from banger.vmm.logs import find_panic, read_tail

VMM_LOG = "vmm.log"
_LAST_WORDS_BYTES = 2048


class WatchedGuest:
    """A process known to be the one its handle names, which may end at any moment."""

    def __init__(
        self,
        handle: Handle,
        pidfd: int,
        process: "subprocess.Popen[bytes] | None" = None,
        knock: Knock | None = None,
    ) -> None:
        self.handle = handle
        self.pidfd = pidfd
        self.api = Api(handle.control_socket)
        self.knock = knock
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process = process
        self._killed = False
        self._exit: Exit | None = None
        self._concluding = asyncio.Lock()
        asyncio.get_running_loop().add_reader(pidfd, self._notice_end)  # pidfd_open(2): readable at the end

    def _notice_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.pidfd)
        if not self.gone.done():
            self.gone.set_result(None)

    def kill(self) -> None:
        if not self.gone.done():
            self._killed = True
            kill_process(self.pidfd)

    async def wait_exit(self) -> Exit:
        """Any number of callers may wait; the first to wake reaps and cleans up."""
        await asyncio.shield(self.gone)
        async with self._concluding:
            if self._exit is None:
                self._exit = self._conclude()
            return self._exit

    def _conclude(self) -> Exit:
        status = None if self._process is None else self._process.wait()
        self.api.drop()
        if self.knock is not None:
            self.knock.close()
        clear_place(str(Path(self.handle.agent_socket).parent))
        console = Path(self.handle.serial_log)
        verdict = judge_ending(
            status=status,
            killed=self._killed,
            panic=find_panic(console),
            last_words=read_tail(console, _LAST_WORDS_BYTES).decode("utf-8", "replace"),
            log=read_tail(console.with_name(VMM_LOG)).decode("utf-8", "replace"),
        )
        os.close(self.pidfd)
        return verdict

    def release(self) -> None:
        """Lets go of a guest that runs on."""
        self.api.drop()
        if self.knock is not None:
            self.knock.close()
        if self._exit is None:
            asyncio.get_running_loop().remove_reader(self.pidfd)
            os.close(self.pidfd)
