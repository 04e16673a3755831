"""What every back end does with processes that it watches: knows their end, ends them, and remembers how they ended.

Owns the table of a back end's guests and their pidfds. Invariant: a guest's `gone` is done if and only if the kernel
has said that its process ended. A back end adds what it alone knows: how a handle becomes a watched guest again, and
how an end is judged.
"""

import asyncio
import os
import subprocess
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from banger.base.problem import Code, Outcome, Problem
from banger.vmm.contract import Exit, Handle
from banger.vmm.exits import UNKNOWN
from banger.vmm.identity import kill_process

_KILL_S = 10.0
_REMEMBERED_EXITS = 256

Key = tuple[int, int]


class WatchedProcess:
    """A process known to be the one its handle names, which may end at any moment. Owns the pidfd from start or
    adoption to the end's conclusion or `release`."""

    def __init__(self, handle: Handle, pidfd: int, process: "subprocess.Popen[bytes] | None") -> None:
        """`process` is there for a child of our own."""
        loop = asyncio.get_running_loop()
        self.handle = handle
        self.pidfd = pidfd
        self.gone: asyncio.Future[None] = loop.create_future()
        self._process = process
        self._killed = False
        self._conclusion: asyncio.Future[Exit] | None = None
        loop.add_reader(pidfd, self._notice_end)  # pidfd_open(2): readable at the end

    def _notice_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.pidfd)
        if not self.gone.done():
            self.gone.set_result(None)

    async def kill(self) -> None:
        """Asks for the end. Raises Problem when it cannot even be asked for."""
        if not self.gone.done():
            self._killed = True
            await self._send_kill()

    async def _send_kill(self) -> None:
        kill_process(self.pidfd)

    async def wait_exit(self) -> Exit:
        """Any number of callers may wait; the first to wake begins the conclusion, which none of them can cancel."""
        await asyncio.shield(self.gone)
        if self._conclusion is None:
            self._conclusion = asyncio.ensure_future(self._finish())
        return await asyncio.shield(self._conclusion)

    async def _finish(self) -> Exit:
        status = None if self._process is None else self._process.wait()
        try:
            return await self._conclude(status)
        finally:
            os.close(self.pidfd)

    async def _conclude(self, status: int | None) -> Exit:
        """Judges the end of a process that is gone and reaped, and removes what it leaves. `status` as of waitpid,
        None for what was adopted. Raises nothing."""
        raise NotImplementedError

    async def release(self) -> None:
        """Lets go of a guest that runs on; waits for a conclusion that has begun."""
        if self._conclusion is not None:
            await asyncio.wait((self._conclusion,))
            return
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)


G = TypeVar("G", bound=WatchedProcess)


class GuestTable(Generic[G]):
    """The guests of one back end by the identity of their process, and the last exits."""

    def __init__(self, program: str, watch: Callable[[Handle], Awaitable[G | None]]) -> None:
        """`program` is its name for people; `watch` makes a guest of a handle whose process is alive."""
        self._program = program
        self._watch = watch
        self._adopting = asyncio.Lock()
        self._guests: dict[Key, G] = {}
        self._exits: OrderedDict[Key, Exit] = OrderedDict()

    def add(self, guest: G) -> None:
        self._guests[_key(guest.handle)] = guest

    async def find(self, handle: Handle) -> G | None:
        """The guest as known, or watched from now on if it is alive; None when it is gone."""
        key = _key(handle)
        if key in self._guests:
            return self._guests[key]
        if key in self._exits:
            return None
        async with self._adopting:  # two callers must not watch the same
            if key not in self._guests:
                guest = await self._watch(handle)
                if guest is None:
                    return None
                self._guests[key] = guest
            return self._guests[key]

    async def get(self, handle: Handle) -> G:
        """Raises `not_running`."""
        guest = await self.find(handle)
        if guest is None or guest.gone.done():
            raise self.not_running(handle)
        return guest

    async def wait_exit(self, handle: Handle) -> Exit:
        guest = await self.find(handle)
        if guest is None:
            return self._exits.get(_key(handle), Exit(clean=False, reason=UNKNOWN))
        verdict = await guest.wait_exit()
        self._guests.pop(_key(handle), None)
        self._exits[_key(handle)] = verdict
        while len(self._exits) > _REMEMBERED_EXITS:
            self._exits.popitem(last=False)
        return verdict

    async def stop(self, handle: Handle, *, deadline_s: float) -> Exit:
        try:
            async with asyncio.timeout(deadline_s):
                return await self.wait_exit(handle)
        except TimeoutError:
            return await self.kill(handle)

    async def kill(self, handle: Handle) -> Exit:
        guest = await self.find(handle)
        if guest is not None:
            await guest.kill()
        try:
            async with asyncio.timeout(_KILL_S):
                return await self.wait_exit(handle)
        except TimeoutError as error:
            raise Problem(
                Code.OPERATION_FAILED,
                f"{self._program} (pid {handle.pid}) is still there {_KILL_S:.0f} s after SIGKILL",
                hint=f"ps -o pid,stat,wchan,args {handle.pid}",
                outcome=Outcome.UNKNOWN,
            ) from error

    async def close(self) -> None:
        guests, self._guests = list(self._guests.values()), {}
        for guest in guests:
            await guest.release()

    def not_running(self, handle: Handle) -> Problem:
        return Problem(
            Code.NOT_RUNNING,
            f"{self._program} (pid {handle.pid}) is not running",
            outcome=Outcome.NOT_STARTED,
        )


def _key(handle: Handle) -> Key:
    return handle.pid, handle.start_time


async def destroy(guest: WatchedProcess) -> None:
    """Undoes a start; goes on to the end when the caller is cancelled once more."""
    await asyncio.shield(_end(guest))


async def _end(guest: WatchedProcess) -> None:
    await guest.kill()
    await guest.wait_exit()
