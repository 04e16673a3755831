"""One Firecracker process that is watched: its API, its sockets, its console, and how it ended.

Owns the API's connection, the knock, the console's watch and the sockets from start or adoption to the conclusion or
`release`.
"""

import asyncio
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from banger.base.problem import Problem
from banger.vmm.contract import Exit, Handle
from banger.vmm.firecracker.agent_stream import Knock
from banger.vmm.firecracker.api import Api
from banger.vmm.firecracker.consoles import Consoles
from banger.vmm.firecracker.ending import judge_ending
from banger.vmm.firecracker.sockets import VMM_LOG, Sockets
from banger.vmm.logs import find_panic, read_tail
from banger.vmm.watching import WatchedProcess

_log = logging.getLogger(__name__)
_LAST_WORDS_BYTES = 2048
_AGAIN_S = 5.0
_ANSWER_S = 2.0


class Home(Protocol):
    """What differs between a Firecracker in a jail and one outside."""

    sockets: Sockets

    @property
    def uid(self) -> int:
        """Whose the process is: a tap must be this user's for it to attach."""

    async def kill(self, pidfd: int) -> None: ...

    async def settle(self, pidfd: int, tap: int | None, name: str) -> None:
        """All disks are open, and the tap is attached to if there is one. Its descriptor becomes the process's own, and
        nothing is left that would outlive the process."""

    def keep_log(self, log: Path) -> None:
        """The VMM's own words go to where they are kept. Idempotent."""

    async def clear(self) -> None:
        """Removes what the process has left. Idempotent; raises nothing."""


class WatchedGuest(WatchedProcess):
    def __init__(
        self,
        handle: Handle,
        pidfd: int,
        home: Home,
        process: "subprocess.Popen[bytes] | None" = None,
        knock: Knock | None = None,
    ) -> None:
        super().__init__(handle, pidfd, process)
        self.home = home
        self.api = Api(home.sockets)
        self.knock = knock
        self._halted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._forget_console: Callable[[], None] = lambda: None

    @property
    def vmm_log(self) -> Path:
        return Path(self.handle.serial_log).with_name(VMM_LOG)

    def watch_console(self, consoles: Consoles) -> None:
        """Raises Problem when inotify is used up."""
        self._forget_console = consoles.watch(Path(self.handle.serial_log), self._notice_halt)

    def _notice_halt(self) -> None:
        if not self._halted.done():
            self._halted.set_result(None)

    async def wait_exit(self) -> Exit:
        """Firecracker does not end with a guest that has powered off, so whoever waits ends it."""
        await asyncio.wait((self.gone, self._halted), return_when=asyncio.FIRST_COMPLETED)
        while not self.gone.done():
            try:
                await self.home.kill(self.pidfd)
            except Problem as problem:
                extra = {"pid": self.handle.pid, "why": problem.brief}
                _log.warning("a VMM whose guest has powered off cannot be ended yet", extra=extra)
            await asyncio.wait((self.gone,), timeout=_AGAIN_S)
        return await super().wait_exit()

    async def _send_kill(self) -> None:
        await self.home.kill(self.pidfd)

    async def _conclude(self, status: int | None) -> Exit:
        self._let_go()
        self.home.keep_log(self.vmm_log)
        console = Path(self.handle.serial_log)
        verdict = judge_ending(
            status=status,
            killed=self._killed,
            halted=self._halted.done(),
            panic=find_panic(console),
            last_words=read_tail(console, _LAST_WORDS_BYTES).decode("utf-8", "replace"),
            log=read_tail(self.vmm_log).decode("utf-8", "replace"),
        )
        await self.home.clear()
        self.home.sockets.close()
        return verdict

    async def release(self) -> None:
        if self._conclusion is None:
            await self.api.settle(_ANSWER_S)
            self._let_go()
            self.home.sockets.close()
        await super().release()

    def _let_go(self) -> None:
        self.api.drop()
        self._forget_console()
        if self.knock is not None:
            self.knock.close()
